"""Plate maps in this project's columns, from the consortium's tables or from a batch's own `workspace/metadata`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.jump.tables import UNKNOWN, JumpTables, pert_type_of
from coda.plates.layout import parse_well, well_name
from coda.plates.plate_map import COLUMNS, UNKNOWN_TREATMENT
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read
from coda.plates.tree import Tree

MAX_MAP_BYTES = 16 * 2**20
BARCODES = "barcode_platemap.csv"

_BAD = "bad construct"
"""What ORF plate maps write where the reagent turned out to be another one."""


@dataclass(frozen=True)
class _Content:
    """What is in a well; `dose_um` as text, empty for none."""

    compound: str
    pert_type: str
    dose_um: str = ""


def maps_of_tables(
    tables: JumpTables, source: str, imaged: Mapping[str, Collection[tuple[int, int]]]
) -> tuple[dict[str, str], list[str]]:
    """Return the plate maps of plates by the consortium's tables.

    The compound is the JCP2022 id, and the treatment too: these tables give no dose. Wells whose content nobody knows,
    and imaged wells that the table lacks, are treatments of their own.

    Args:
        tables: The tables.
        source: Source of the plates.
        imaged: Plate -> imaged wells as (row, column) from 0.

    Returns:
        Plate -> CSV text with the columns of `coda.plates.plate_map.COLUMNS`; and remarks.

    Raises:
        ContractError: A table is not there or cannot be read, or does not have a plate; all such plates together.
    """
    known = tables.plates(source)
    wells = tables.wells(source, imaged)
    controls = tables.controls()
    remedy = "Leave the plate out (--plate names the others), or give its wells with --plate-map."
    problems = [
        Problem(f"{tables.where}, plate {plate}", f"no row of {source}", f"the plate in {table}", remedy)
        for plate in imaged
        for table, rows in (("plate.csv", known), ("well.csv", wells))
        if plate not in rows
    ]
    raise_if_any(ContractError, f"JUMP's tables lack plates of {source}.", problems)
    maps, remarks = {}, []
    for plate, places in imaged.items():
        modality = known[plate].modality
        contents = {
            _place(well, f"{tables.where}, plate {plate}"): _Content(jcp, pert_type_of(jcp, modality, controls))
            for well, jcp in wells[plate].items()
        }
        maps[plate], unknown = _map(plate, contents, places)
        remarks += _remark(plate, unknown)
    return maps, remarks


def maps_of_workspace(
    tree: Tree, imaged: Mapping[str, Collection[tuple[int, int]]], *, compounds: bytes | None = None,
    compound_column: str = "broad_sample",
) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Return the plate maps of plates by a `workspace/metadata/platemaps/<batch>` folder.

    A well without a sample is a negative control where the map names a solvent (it holds that and nothing else), and
    empty where it names none. `mmoles_per_liter`, where there is such a column, gives the dose.

    Args:
        tree: Folder with `barcode_platemap.csv` and `platemap/<name>.txt`.
        imaged: Plate -> imaged wells as (row, column) from 0.
        compounds: Table with a row for each `broad_sample`: `pert_type` and `control_type` tell the controls. Without
            it every sample is a treatment.
        compound_column: Column of that table that names the compound (broad_sample, InChIKey, pert_iname, ...).

    Returns:
        Plate -> CSV text with the columns of `coda.plates.plate_map.COLUMNS`; and remarks.

    Raises:
        ContractError: A table is not there or cannot be read, or does not have a plate or column; all of it together.
    """
    barcodes = _read(tree, BARCODES, ("Assay_Plate_Barcode", "Plate_Map_Name"))
    names = dict(zip(barcodes["Assay_Plate_Barcode"], barcodes["Plate_Map_Name"], strict=True))
    absent = [plate for plate in imaged if plate not in names]
    remedy = "Leave the plate out (--plate names the others), or take the folder of its batch."
    problems = [Problem(f"{tree.where}: {BARCODES}", f"no plate {plate}", "a row for it", remedy) for plate in absent]
    raise_if_any(ContractError, f"{tree.where} lacks plates.", problems)
    samples = _samples(compounds, compound_column) if compounds is not None else {}
    read: dict[str, dict[tuple[int, int], _Content]] = {}
    maps, remarks = {}, []
    for plate, places in imaged.items():
        name = names[plate]
        if name not in read:
            read[name] = _platemap(tree, name, samples)
        maps[plate], unknown = _map(plate, read[name], places)
        remarks += _remark(plate, unknown)
    return maps, remarks


def _platemap(tree: Tree, name: str, samples: Mapping[str, _Content]) -> dict[tuple[int, int], _Content]:
    path = f"platemap/{name}.txt"
    table = _read(tree, path, ("well_position", "broad_sample"))
    contents = {}
    for row in table.to_dict("records"):
        place = _place(str(row["well_position"]), f"{tree.where}: {path}")
        sample, solvent = str(row["broad_sample"]), str(row.get("solvent", ""))
        dose = _micromolar(str(row.get("mmoles_per_liter", "")), f"{tree.where}: {path}, well {row['well_position']}")
        if not sample:
            contents[place] = _Content(solvent, "negcon") if solvent else _Content("", "empty")
        elif sample.lower() == _BAD:
            contents[place] = _Content("", "trt")
        else:
            known = samples.get(sample, _Content(sample, "trt"))
            contents[place] = _Content(known.compound, known.pert_type, dose)
    return contents


def _samples(compounds: bytes, column: str) -> dict[str, _Content]:
    where = "compound metadata"
    try:
        table = read(compounds).without_nothing()
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", "a table with broad_sample", "Check the file.")
        raise ContractError("The compound metadata cannot be read.", [problem]) from error
    absent = [name for name in ("broad_sample", column) if name not in table.columns]
    found = f"the columns {', '.join(map(str, table.columns[:20]))}"
    problems = [Problem(where, found, f"a column {name}", "Name one of them (--compound-column).") for name in absent]
    raise_if_any(ContractError, "The compound metadata cannot be used.", problems)
    samples: dict[str, _Content] = {}
    for row in table.to_dict("records"):
        sample = str(row["broad_sample"])
        content = _Content(str(row[column]) or sample, _kind(row))
        if sample and samples.setdefault(sample, content) != content:
            problems.append(Problem(f"{where}, {sample}", f"{samples[sample]} and {content}", "one row, or equal ones",
                                    "Remove the row that is wrong."))  # fmt: skip
    raise_if_any(ContractError, "The compound metadata contradicts itself.", problems[:20])
    return samples


def _kind(row: Mapping[object, object]) -> str:
    for column in ("control_type", "pert_type"):
        for kind in ("negcon", "poscon", "empty"):
            if str(row.get(column, "")).lower().startswith(kind):
                return kind
    return "trt"


def _micromolar(text: str, where: str) -> str:
    if not text:
        return ""
    try:
        return f"{float(text) * 1000:g}"
    except ValueError as error:
        problem = Problem(where, f"mmoles_per_liter {text!r}", "a number or nothing", "Correct the plate map.")
        raise ContractError("A dose cannot be read.", [problem]) from error


def _read(tree: Tree, path: str, columns: Sequence[str]) -> pd.DataFrame:
    where = f"{tree.where}: {path}"
    try:
        table = read(tree.read(path, at_most=MAX_MAP_BYTES)).without_nothing()
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", "a plate map of JUMP's kind", "Download it again.")
        raise ContractError(f"{path} cannot be read.", [problem]) from error
    found = f"the columns {', '.join(map(str, table.columns[:20]))}"
    problems = [Problem(where, found, f"a column {name}", "Correct the table.") for name in columns
                if name not in table.columns]  # fmt: skip
    raise_if_any(ContractError, f"{path} cannot be used.", problems)
    return table


def _place(well: str, where: str) -> tuple[int, int]:
    place = parse_well(well)
    if place is None:
        raise ContractError(
            f"{where} cannot be used.", [Problem(where, f"well {well!r}", "a well", "Correct the table.")]
        )
    return place


def _map(
    plate: str, contents: Mapping[tuple[int, int], _Content], imaged: Collection[tuple[int, int]]
) -> tuple[str, list[str]]:
    """Return the CSV text of a map, and the wells whose content nobody knows."""
    rows, unknown = [], []
    for place in sorted({*contents, *imaged}):
        content, well = contents.get(place, _Content("", "trt")), well_name(*place)
        if content.pert_type == "empty":
            rows.append((plate, well, "", "", "empty", ""))
            continue
        if content.compound in UNKNOWN:
            unknown.append(well)
            name = f"{UNKNOWN_TREATMENT}{plate}:{well}"
            rows.append((plate, well, name, name, "trt", ""))
            continue
        treatment = f"{content.compound}@{content.dose_um}" if content.dose_um else content.compound
        rows.append((plate, well, content.compound, treatment, content.pert_type, content.dose_um))
    text = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")
    return text, unknown


def _remark(plate: str, unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    return [f"Plate {plate}: nobody knows what is in {len(unknown)} wells ({shown}); each is a treatment of its own."]
