"""Plate map: what was done to each well. It never holds a mechanism of action."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import get_args

import pandas as pd

from coda.contracts.fields import PertType
from coda.errors import Problem
from coda.plates.layout import fits, parse_well, well_name
from coda.plates.load_data import FieldRow

COLUMNS = (
    "Metadata_Plate",
    "Metadata_Well",
    "Metadata_Compound",
    "Metadata_Treatment",
    "Metadata_pert_type",
    "Metadata_Dose_uM",
)
"""Columns of a plate map; others are not read, so that no label can enter here."""

UNKNOWN_TREATMENT = "unknown:"
"""Start of the treatments that adoption gives to wells whose plate map is not known (``unknown:<plate>:<well>``)."""

MAX_NAME = 200
"""Longest name of a compound or treatment, in characters."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

PERT_TYPES: tuple[str, ...] = get_args(PertType)


@dataclass(frozen=True)
class WellRow:
    """One well of a plate map; `dose_um` is None where none was given (controls)."""

    well: str
    compound: str
    treatment: str
    pert_type: str
    dose_um: float | None


def read_wells(table: pd.DataFrame, *, where: str, plate: str, wells: int) -> tuple[list[WellRow], list[Problem]]:
    """Read the wells of one plate.

    Args:
        table: The table as text, see `coda.plates.tables.read_table`.
        where: Name of the table, for messages.
        plate: Plate that the rows must be about.
        wells: Wells of the plate format.

    Returns:
        Wells in the order of rows and columns; and all problems of the table.
    """
    absent = [name for name in COLUMNS if name not in table.columns]
    if absent:
        remedy = "Write the plate map with all its columns (docs/data_contracts.md)."
        return [], [Problem(where, f"no column {', '.join(absent)}", f"the columns {', '.join(COLUMNS)}", remedy)]
    named = [str(name) for name in table["Metadata_Plate"].unique()]
    if plate not in named:
        others = ", ".join(repr(name) for name in named[:3]) + (" and others" if len(named) > 3 else "")
        remedy = "Deliver the plate map of this plate, or correct its column Metadata_Plate."
        return [], [Problem(where, f"the plate map of {others}", f"that of plate {plate!r}", remedy)]
    rows: dict[tuple[int, int], WellRow] = {}
    problems: list[Problem] = []
    for number, values in zip(table.index, table[list(COLUMNS)].to_dict("records"), strict=True):
        record = {str(name): str(value) for name, value in values.items()}
        line = f"{where}, line {number}"
        faults = _faults(record, plate, wells)
        problems += [Problem(line, found, expected, "Correct the row of the plate map.") for found, expected in faults]
        place = parse_well(record["Metadata_Well"])
        if faults or place is None:
            continue
        if place in rows:
            found = f"well {well_name(*place)} a second time"
            problems.append(Problem(line, found, "one row for each well", "Remove the row that is wrong."))
            continue
        rows[place] = _well(record, well_name(*place))
    return [rows[place] for place in sorted(rows)], problems[:20]


def _faults(record: dict[str, str], plate: str, wells: int) -> list[tuple[str, str]]:
    faults = []
    if record["Metadata_Plate"] != plate:
        faults.append((f"plate {record['Metadata_Plate']!r}", f"plate {plate!r}"))
    place = parse_well(record["Metadata_Well"])
    if place is None or not fits(place, wells):
        faults.append((f"well {record['Metadata_Well']!r}", f"a well of a {wells}-well plate"))
    if record["Metadata_pert_type"] not in PERT_TYPES:
        faults.append((f"pert_type {record['Metadata_pert_type']!r}", f"one of {', '.join(PERT_TYPES)}"))
    elif record["Metadata_pert_type"] != "empty":
        faults += [
            (f"an empty {name}", f"a value in {name} of a well that is not empty")
            for name in ("Metadata_Compound", "Metadata_Treatment")
            if not record[name]
        ]
    for name in ("Metadata_Compound", "Metadata_Treatment"):
        if len(record[name]) > MAX_NAME or _CONTROL.search(record[name]):
            shown = f"{len(record[name])} characters, beginning {record[name][:20]!r}"
            faults.append((f"a {name} of {shown}", f"a name of at most {MAX_NAME} characters on one line"))
    try:
        _dose(record["Metadata_Dose_uM"])
    except ValueError:
        faults.append((f"dose {record['Metadata_Dose_uM']!r}", "a number of micromoles a litre, 0 or more, or nothing"))
    return faults


def _dose(text: str) -> float | None:
    if not text:
        return None
    dose = float(text)
    if not isfinite(dose) or dose < 0:
        raise ValueError(text)
    return dose


def _well(record: dict[str, str], well: str) -> WellRow:
    return WellRow(
        well,
        record["Metadata_Compound"],
        record["Metadata_Treatment"],
        record["Metadata_pert_type"],
        _dose(record["Metadata_Dose_uM"]),
    )


def shift_problem(fields: Sequence[FieldRow], wells: Sequence[WellRow], *, where: str, quorum: float) -> Problem | None:
    """Return the problem of a plate map whose filled wells are not the imaged ones, or None.

    Only a plate that would fail its quorum anyway is looked at: empty wells may be imaged, and some wells may be lost.

    Args:
        fields: Rows of load_data.
        wells: Rows of the plate map.
        where: Plate, for messages.
        quorum: Share of the expected fields that a plate must have.
    """
    imaged = {field.well for field in fields}
    filled = [row.well for row in wells if row.pert_type != "empty"]
    unimaged = [well for well in filled if well not in imaged]
    extra = [row.well for row in wells if row.pert_type == "empty" and row.well in imaged]
    if not extra or len(unimaged) <= (1 - quorum) * len(filled):
        return None
    found = (
        f"pictures of {len(extra)} wells that the plate map calls empty ({', '.join(extra[:4])}), and none of "
        f"{len(unimaged)} wells that it fills ({', '.join(unimaged[:4])})"
    )
    remedy = "Deliver the plate map of this plate; rows or columns of this one may be shifted."
    return Problem(where, found, "pictures of the wells that the plate map fills", remedy)


def fit_problems(
    fields: Sequence[FieldRow], wells: Sequence[WellRow], *, where: str, sites_per_well: int
) -> tuple[list[Problem], list[tuple[str, int]]]:
    """Hold load_data against the plate map and the manifest.

    Args:
        fields: Rows of load_data.
        wells: Rows of the plate map.
        where: Plate, for messages.
        sites_per_well: Fields a well that the manifest promises.

    Returns:
        Problems (fields in wells the map does not have, more sites than promised); and, for each well that is not
        empty and has fewer sites than promised, its name and how many are missing.
    """
    sites: dict[str, int] = {}
    for field in fields:
        sites[field.well] = sites.get(field.well, 0) + 1
    known = {row.well for row in wells}
    problems = []
    strangers = sorted(set(sites) - known)
    if strangers:
        found = f"fields of {len(strangers)} wells that the plate map lacks ({', '.join(strangers[:8])})"
        remedy = "Deliver the plate map of this plate, complete."
        problems.append(Problem(where, found, "a row of the plate map for each imaged well", remedy))
    crowded = sorted(well for well, count in sites.items() if count > sites_per_well)
    if crowded:
        found = f"up to {max(sites.values())} sites in {len(crowded)} wells ({', '.join(crowded[:8])})"
        remedy = "Correct sites_per_well in the manifest, or load_data."
        problems.append(Problem(where, found, f"{sites_per_well} sites a well, as the manifest says", remedy))
    short = [
        (row.well, sites_per_well - sites.get(row.well, 0))
        for row in wells
        if row.pert_type != "empty" and sites.get(row.well, 0) < sites_per_well
    ]
    return problems, short
