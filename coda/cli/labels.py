"""`coda labels`: the label table that a head is trained with, from the user's own annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coda.cli.labels_jump import bytes_of, joined_by_position
from coda.cli.labels_score import score
from coda.cli.options import SolventsFile, TableDecimal, TableEncoding, TableSeparator, table_dialects
from coda.cli.selecting import PlateOption, PlatePattern, PlatesFile, PlateType, plate_filter
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.local.offline import storage_settings
from coda.plates.disk import writing
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.solvents import Solvents, packaged, read_solvents
from coda.plates.tabular.dialect import Dialect
from coda.plates.tabular.unique import contradictions
from coda.storage.named_places import place_at
from coda.training.annotations import KEY_COLUMNS, By, KeyedTable, annotate, read_keyed
from coda.training.annotations import Annotated as Joined
from coda.training.label_rule import (
    DEFAULT_RULE,
    LEAST_COMPOUNDS,
    LabelReport,
    labels_by,
    report_beside,
    report_of,
    rule_of,
    table_of,
)
from coda.training.labels import MECHANISM
from coda.training.mechanism_names import SEPARATORS

app = typer.Typer(no_args_is_help=True, help="The label table that a head is trained with, from your own annotations.")

SHOWN = 8
"""Names of a list that are printed; the report has all."""

BY_POSITION = "compounds by position"
"""What the report calls the compound table that was made of plates."""

PLATEMAP = typer.Option(help="JUMP-Target-2_compound_platemap.txt: well_position, broad_sample.")
METADATA = typer.Option(help="JUMP-Target-2_compound_metadata.tsv: broad_sample, InChIKey, names.")
TABLES = typer.Option(help="Folder or prefix with JUMP's plate.csv.gz and well.csv.gz.")
SOURCE = typer.Option(help="Source whose plates are joined; may repeat; all of the tables if not given.")

CONTROL_KINDS = ("negcon", "poscon", "empty")

app.command()(score)


@app.command()
def build(
    annotations: Annotated[Path, typer.Argument(help="Your annotation file: CSV or tabs, a row for each compound.")],
    out: Annotated[Path, typer.Option(help="Label table to write (.csv); its report is written beside it.")],
    compounds: Annotated[
        Path | None, typer.Option(help="Table of the plates' compounds; the annotation file itself if not given.")
    ] = None,
    by: Annotated[By, typer.Option(help="What the two tables are joined by.")] = "compound",
    annotation_key: Annotated[str | None, typer.Option(help="Column of the annotation file to join by.")] = None,
    compound_key: Annotated[str | None, typer.Option(help="Column of the compound table to join by.")] = None,
    mechanism: Annotated[str, typer.Option(help="Column with the mechanisms, several separated by '|'.")] = MECHANISM,
    mechanism_separator: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Other separators of mechanisms in a cell: {', '.join(SEPARATORS)} (bar: nothing); may repeat."
        ),
    ] = None,
    controls: Annotated[
        Path | None, typer.Option(help="Table of controls: compound and Metadata_pert_type (a plate map will do).")
    ] = None,
    rule: Annotated[str, typer.Option(help="Which compounds are learned (docs/labels.md).")] = DEFAULT_RULE,
    least: Annotated[int, typer.Option(min=1, help="Compounds that a mechanism needs.")] = LEAST_COMPOUNDS,
    jump_tables: Annotated[str | None, TABLES] = None,
    platemap: Annotated[Path | None, PLATEMAP] = None,
    metadata: Annotated[Path | None, METADATA] = None,
    source: Annotated[list[str] | None, SOURCE] = None,
    plate: PlateOption = None,
    plates: PlatesFile = None,
    plate_pattern: PlatePattern = None,
    plate_type: PlateType = None,
    solvents: SolventsFile = None,
    table_separator: TableSeparator = None,
    table_encoding: TableEncoding = None,
    table_decimal: TableDecimal = None,
    *,
    keep_poscon: Annotated[bool, typer.Option("--keep-poscon", help="Learn positive controls too.")] = False,
) -> None:
    """Join annotations with compounds, keep those of one mechanism, and report what was joined, missed and dropped.

    For JUMP-Target-2 the compounds may come from the positions of plates instead of a table: --jump-tables, --platemap
    and --metadata, with the plates chosen as `coda manifest build` chooses them. Controls are then the consortium's.
    """
    if out.suffix != ".csv":
        problem = Problem("--out", str(out), "a file that ends in .csv", "Name it so.")
        raise ConfigError("The label table is a CSV.", [problem])
    by_rule = rule_of(rule)
    files = {path.name: bytes_of(path) for path in (annotations, compounds, controls) if path is not None}
    dialects = table_dialects(table_separator, table_encoding, table_decimal, [annotations, compounds, controls], [])
    separators = _separators(mechanism_separator or ())
    of = dialects.of
    known = dict[str, str]()
    if _by_position(jump_tables, platemap, metadata, compounds):
        tables = JumpTables(place_at(str(jump_tables), storage_settings()))
        chosen = plate_filter(plate_type, plate, plates, plate_pattern)
        found = joined_by_position(tables, source or (), chosen, Path(str(platemap)), Path(str(metadata)))
        for said in found.told:
            typer.echo(said)
        files[BY_POSITION] = found.csv
        known = {jcp: item.pert_type for jcp, item in tables.controls().items() if item.pert_type in CONTROL_KINDS}
    right = read_keyed(files[annotations.name], str(annotations), by, annotation_key, of(annotations.name))
    left = right
    if compounds is not None:
        left = read_keyed(files[compounds.name], str(compounds), by, compound_key, of(compounds.name))
    elif BY_POSITION in files:
        left = read_keyed(files[BY_POSITION], BY_POSITION, by, compound_key, Dialect())
    joined = annotate(left, right, by, mechanism, separators)
    kinds = known
    if controls is not None:
        kinds = _controls(files[controls.name], str(controls), of(controls.name))
    by_name = _solvents(joined, left, kinds, read_solvents(solvents) if solvents is not None else packaged())
    kinds |= dict.fromkeys(by_name, "negcon")
    labels, dropped, counts = labels_by(by_rule, joined, kinds, keep_poscon=keep_poscon, least=least)
    options = {
        "joined_by": by, "annotation_column": right.key, "compound_column": left.key, "mechanism_column": mechanism,
        "positive_controls_kept": keep_poscon, "least_compounds": least,
        "mechanism_separators": ["|", *(one for one in separators if one != "|")],
        "written_as": sorted({table.told for table in (left, right) if table.told}),
    }  # fmt: skip
    report = report_of(by_rule, labels, dropped, counts, joined, options=options, inputs=files, solvents=by_name)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(table_of(labels))
        Path(report_beside(str(out))).write_bytes(report.to_bytes())
    _print(report, out, told_controls=bool(kinds) or controls is not None)


@app.command()
def positions(
    platemap: Annotated[Path, PLATEMAP],
    metadata: Annotated[Path, METADATA],
    jump_tables: Annotated[str, TABLES],
    out: Annotated[Path, typer.Option(help="Compound table to write (.csv), for `coda labels build --compounds`.")],
    source: Annotated[list[str] | None, SOURCE] = None,
    plate: PlateOption = None,
    plates: PlatesFile = None,
    plate_pattern: PlatePattern = None,
    plate_type: PlateType = None,
) -> None:
    """Tell which JCP2022 id is which compound, by the positions of JUMP-Target-2 plates."""
    tables = JumpTables(place_at(jump_tables, storage_settings()))
    chosen = plate_filter(plate_type, plate, plates, plate_pattern)
    joined = joined_by_position(tables, source or (), chosen, platemap, metadata)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(joined.csv)
    typer.echo(f"{joined.told[0]}; wrote {out}")
    for said in joined.told[1:]:
        typer.echo(said)


def _by_position(tables: str | None, platemap: Path | None, metadata: Path | None, compounds: Path | None) -> bool:
    """Return whether compounds are identified by plate positions; refuses half of what that needs."""
    given = {"--jump-tables": tables, "--platemap": platemap, "--metadata": metadata}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return False
    problems = [Problem(name, "nothing", "a table", f"Give it with {', '.join(given)}.") for name in missing]
    if compounds is not None:
        remedy = "Leave out either --compounds or the other three."
        problems.append(Problem("--compounds", str(compounds), "one table of the plates' compounds", remedy))
    raise_if_any(ConfigError, "The compounds cannot be identified by positions.", problems)
    return True


def _separators(names: Sequence[str]) -> tuple[str, ...]:
    """Return what parts mechanisms, by the names of an option or the texts themselves."""
    texts = [SEPARATORS.get(name.lower(), name.strip()) for name in names]
    problems = [
        Problem("--mechanism-separator", repr(name), ", ".join(SEPARATORS), "Name one of them.")
        for name, text in zip(names, texts, strict=True)
        if text not in SEPARATORS.values()
    ]
    raise_if_any(ConfigError, "A separator of mechanisms cannot be understood.", problems)
    return tuple(texts)


def _solvents(joined: Joined, compounds: KeyedTable, kinds: Mapping[str, str], solvents: Solvents) -> list[str]:
    """Return annotated compounds that no table of controls names, and whose name is that of a solvent."""
    column = next(name for name in KEY_COLUMNS["compound"] if name in compounds.rows.columns)
    names = [name for name in KEY_COLUMNS["name"] if name in compounds.rows.columns]
    found = {
        str(row[column]) for row in compounds.rows.to_dict("records")
        if any(solvents.meaning(str(row[name])) == "solvent" for name in (column, *names))
    }  # fmt: skip
    return sorted(name for name in found if name in joined.mechanisms and name not in kinds)


def _controls(content: bytes, where: str, dialect: Dialect) -> dict[str, str]:
    """Return compound -> kind of control."""
    table = read_keyed(content, where, "compound", None, dialect)
    column = next((name for name in ("Metadata_pert_type", "pert_type") if name in table.rows.columns), None)
    if column is None:
        problem = Problem(where, "no column Metadata_pert_type", "the kind of each compound", "Add it.")
        raise ContractError(f"{where} lacks a column.", [problem])
    kinds = table.rows.assign(**{column: table.rows[column].str.lower()})
    problems = contradictions(kinds, table.key, [column], where)
    raise_if_any(ContractError, f"{where} contradicts itself.", problems[:20])
    rows = zip(kinds[table.key], kinds[column], strict=True)
    return {compound: kind for compound, kind in rows if compound and kind in CONTROL_KINDS}


def _print(report: LabelReport, out: Path, *, told_controls: bool) -> None:
    console = Console(highlight=False)
    counts, dropped = report.counts, report.dropped
    table = Table(title=f"{counts['labelled']} compounds of {counts['classes']} mechanisms", title_justify="left")
    for name in ("compounds", "what became of them", "which"):
        table.add_column(name, overflow="fold")
    rows: Mapping[str, tuple[int, Sequence[str]]] = {
        "labelled": (counts["labelled"], ()),
        "not in the annotations": (len(report.missed), report.missed),
        "annotated without a mechanism": (len(dropped.no_mechanism), dropped.no_mechanism),
        "several mechanisms": (len(dropped.several_mechanisms), tuple(dropped.several_mechanisms)),
        "controls": (len(dropped.controls), tuple(dropped.controls)),
        "the only one of its mechanism": (len(dropped.too_few), tuple(dropped.too_few)),
    }
    for words, (count, names) in rows.items():
        table.add_row(str(count), words, Text(_few(names)))
    console.print(table)
    sizes = pd.Series(dict(report.classes)).value_counts().sort_index(ascending=False)
    console.print("Sizes: " + ", ".join(f"{times} of {size}" for size, times in sizes.items()) + " compounds.")
    if report.by_block:
        console.print(
            f"{len(report.by_block)} found by the first block of their InChIKey alone: {_few(report.by_block)}"
        )
    for shown, names in report.spellings.items():
        others = ", ".join(repr(name) for name in names if name != shown)
        console.print(f"Joined as {shown!r}: {others}.", soft_wrap=True)
    for told in cast("list[str]", report.options.get("written_as", [])):
        console.print(f"{told}.", soft_wrap=True)
    if report.solvents:
        console.print(f"Solvents by their names, taken as negative controls: {_few(report.solvents)}.")
    if not told_controls:
        console.print("No controls were named (--controls): a positive control is learned as any other compound.")
    console.print(f"Wrote {out} and {report_beside(str(out))} (digest {report.digest[:16]}).", soft_wrap=True)


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
