"""`coda labels`: the label table that a head is trained with, from the user's own annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coda.cli.options import SolventsFile, TableDecimal, TableEncoding, TableSeparator, table_dialects
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.local.offline import storage_settings
from coda.plates.disk import writing
from coda.plates.jump.position import join_by_position
from coda.plates.jump.tables import JumpTables
from coda.plates.layout import parse_well
from coda.plates.solvents import Solvents, packaged, read_solvents
from coda.plates.tabular.dialect import Dialect, UnreadableTableError
from coda.plates.tabular.table import read
from coda.plates.tabular.unique import contradictions
from coda.storage.places import place_at
from coda.training.annotations import KEY_COLUMNS, By, KeyedTable, annotate, read_keyed
from coda.training.annotations import Annotated as Joined
from coda.training.label_rule import (
    LEAST_COMPOUNDS,
    LabelReport,
    report_beside,
    report_of,
    single_mechanism,
    table_of,
)
from coda.training.labels import MECHANISM
from coda.training.mechanism_names import SEPARATORS

app = typer.Typer(no_args_is_help=True, help="The label table that a head is trained with, from your own annotations.")

SHOWN = 8
"""Names of a list that are printed; the report has all."""

CONTROL_KINDS = ("negcon", "poscon", "empty")


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
    mechanism: Annotated[str, typer.Option(help="Column with the mechanisms, several parted by '|'.")] = MECHANISM,
    mechanism_separator: Annotated[
        list[str] | None,
        typer.Option(help=f"What else parts mechanisms in a cell: {', '.join(SEPARATORS)} (bar: nothing); may repeat."),
    ] = None,
    controls: Annotated[
        Path | None, typer.Option(help="Table of controls: compound and Metadata_pert_type (a plate map will do).")
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="Compounds that a mechanism needs.")] = LEAST_COMPOUNDS,
    solvents: SolventsFile = None,
    table_separator: TableSeparator = None,
    table_encoding: TableEncoding = None,
    table_decimal: TableDecimal = None,
    *,
    keep_poscon: Annotated[bool, typer.Option("--keep-poscon", help="Learn positive controls too.")] = False,
) -> None:
    """Join annotations with compounds, keep those of one mechanism, and report what was joined, missed and dropped."""
    if out.suffix != ".csv":
        problem = Problem("--out", str(out), "a file that ends in .csv", "Name it so.")
        raise ConfigError("The label table is a CSV.", [problem])
    files = {path.name: _bytes(path) for path in (annotations, compounds, controls) if path is not None}
    dialects = table_dialects(table_separator, table_encoding, table_decimal, [annotations, compounds, controls], [])
    separators = _separators(mechanism_separator or ())
    of = dialects.of
    right = read_keyed(files[annotations.name], str(annotations), by, annotation_key, of(annotations.name))
    left = right
    if compounds is not None:
        left = read_keyed(files[compounds.name], str(compounds), by, compound_key, of(compounds.name))
    joined = annotate(left, right, by, mechanism, separators)
    kinds: dict[str, str] = {}
    if controls is not None:
        kinds = _controls(files[controls.name], str(controls), of(controls.name))
    by_name = _solvents(joined, left, kinds, read_solvents(solvents) if solvents is not None else packaged())
    kinds |= dict.fromkeys(by_name, "negcon")
    labels, dropped, counts = single_mechanism(joined, kinds, keep_poscon=keep_poscon, least=least)
    options = {
        "joined_by": by, "annotation_column": right.key, "compound_column": left.key, "mechanism_column": mechanism,
        "positive_controls_kept": keep_poscon, "least_compounds": least,
        "mechanism_separators": ["|", *(one for one in separators if one != "|")],
        "written_as": sorted({table.told for table in (left, right) if table.told}),
    }  # fmt: skip
    report = report_of(labels, dropped, counts, joined, options=options, inputs=files, solvents=by_name)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(table_of(labels))
        Path(report_beside(str(out))).write_bytes(report.to_bytes())
    _print(report, out, told_controls=controls is not None)


@app.command()
def positions(
    platemap: Annotated[Path, typer.Option(help="JUMP-Target-2_compound_platemap.txt: well_position, broad_sample.")],
    metadata: Annotated[Path, typer.Option(help="JUMP-Target-2_compound_metadata.tsv: broad_sample, InChIKey, names.")],
    jump_tables: Annotated[str, typer.Option(help="Folder or prefix with JUMP's plate.csv.gz and well.csv.gz.")],
    out: Annotated[Path, typer.Option(help="Compound table to write (.csv), for `coda labels build --compounds`.")],
    source: Annotated[str, typer.Option(help="Source whose plates are joined.")] = "source_4",
    plate: Annotated[
        list[str] | None, typer.Option(help="Plate; all TARGET2 plates of the source if not given.")
    ] = None,
) -> None:
    """Tell which JCP2022 id is which compound, by the positions of JUMP-Target-2 plates."""
    tables = JumpTables(place_at(jump_tables, storage_settings()))
    known = tables.plates(source)
    names = plate or [item.plate for item in known.values() if item.plate_type == "TARGET2"]
    wells = tables.wells(source, names)
    absent = [name for name in names if name not in wells]
    problems = [
        Problem(tables.where, f"no wells of {name}", "the plate in well.csv", "Name others.") for name in absent
    ]
    if not names:
        problems = [Problem(source, "no TARGET2 plate", "at least one", "Name the plates (--plate).")]
    raise_if_any(ConfigError, "These plates cannot be joined.", problems)
    layout = _table(platemap, ("well_position", "broad_sample"))
    samples = _table(metadata, ("broad_sample", "InChIKey", "pert_iname", "control_type"))
    problems = contradictions(layout, "well_position", ["broad_sample"], str(platemap), parse_well)
    problems += contradictions(samples, "broad_sample", ["InChIKey"], str(metadata))
    raise_if_any(ContractError, "The tables of the map contradict themselves.", problems[:20])
    by_well = dict(zip(layout["well_position"], layout["broad_sample"], strict=True))
    joined = join_by_position([wells[name] for name in names], by_well, samples)
    raise_if_any(ContractError, f"Wells of {source} and the plate map do not agree.", joined.conflicts)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        joined.table.to_csv(out, index=False, lineterminator="\n")
    typer.echo(f"{len(joined.table)} compounds by {joined.wells} wells of {len(names)} plate(s); wrote {out}")
    if joined.unmatched:
        typer.echo(f"{len(joined.unmatched)} well(s) match no compound: {_few(joined.unmatched)}")
    if joined.replaced:
        told = [f"{well} on {count} plate(s)" for well, count in joined.replaced.items()]
        typer.echo(f"Solvent instead of a compound: {_few(told)}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problem = Problem(str(path), str(error.strerror), "a table", "Check the name.")
        raise ConfigError("A table cannot be read.", [problem]) from error


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = read(_bytes(path)).without_nothing()
    except UnreadableTableError as error:
        problem = Problem(str(path), f"a table that {error}", "CSV or tabs", "Check the file.")
        raise ContractError(f"{path} cannot be read.", [problem]) from error
    found = ", ".join(map(str, table.columns[:30]))
    problems = [
        Problem(str(path), f"the columns {found}", f"a column {name}", "Check the file.")
        for name in columns
        if name not in table.columns
    ]
    raise_if_any(ContractError, f"{path} lacks columns.", problems)
    return table


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
