"""Reading plate maps: doses by their units, one content a well, and solvents that are no treatments."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from coda.errors import Problem
from coda.plates.layout import fits, parse_well, well_name
from coda.plates.load_data import shortened
from coda.plates.plate_map import COLUMNS, MAX_NAME, PERT_TYPES, WellRow
from coda.plates.solvents import Solvents, packaged
from coda.plates.tabular.dialect import DECIMAL_OPTION
from coda.plates.tabular.doses import dose_columns, read_doses
from coda.plates.tabular.table import Table
from coda.plates.tabular.typed_numbers import REWRITE, as_text
from coda.plates.tabular.wording import plain, shown

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEXTS = ("Metadata_Compound", "Metadata_Treatment", "Metadata_pert_type")


@dataclass(frozen=True)
class ReadMap:
    """A table of wells that was read.

    Attributes:
        plates: Plate -> its wells, in the order of rows and columns.
        problems: What is wrong with the table.
        remarks: What a person should know: equal rows, other units of dose.
    """

    plates: dict[str, list[WellRow]]
    problems: list[Problem]
    remarks: list[str]


def read_wells(
    table: Table, *, where: str, plate: str, wells: int, solvents: Solvents | None = None
) -> tuple[list[WellRow], list[Problem], list[str]]:
    """Read the wells of one plate.

    Args:
        table: The table, see `coda.plates.tabular.table.read`.
        where: Name of the table, for messages.
        plate: Plate that the rows must be about.
        wells: Wells of the plate format.
        solvents: Names that no treatment may have; the packaged ones when None.

    Returns:
        Wells in the order of rows and columns; all problems of the table; and remarks.
    """
    problems = column_problems(table, where)
    if problems:
        return [], problems, []
    named = [str(name) for name in table.rows["Metadata_Plate"].unique()]
    if plate not in named:
        others = ", ".join(repr(name) for name in named[:3]) + (" and others" if len(named) > 3 else "")
        remedy = "Deliver the plate map of this plate, or correct its column Metadata_Plate."
        return [], [Problem(where, f"the plate map of {others}", f"that of plate {plate!r}", remedy)], []
    remedy = "Correct the row of the plate map."
    strangers = [
        Problem(f"{where}, line {line}", f"plate {name!r}", f"plate {plate!r}", remedy)
        for line, name in zip(table.rows.index, table.rows["Metadata_Plate"], strict=True)
        if name != plate
    ]
    read = read_map(table, where=where, plates={plate}, wells=wells, solvents=solvents)
    problems = sorted([*strangers, *read.problems], key=lambda problem: _line_of(problem.where))
    return read.plates.get(plate, []), shortened(problems, where), read.remarks


def read_map(
    table: Table, *, where: str, plates: Collection[str], wells: int, solvents: Solvents | None = None,
    options: bool = False,
) -> ReadMap:  # fmt: skip
    """Read the wells of some plates of a table that has all columns (`column_problems`); the arguments are as above."""
    solvents = solvents or packaged()
    rows = table.rows[table.rows["Metadata_Plate"].isin(list(plates))]
    doses, problems, remarks = _doses(table, where, options=options)
    given = Table(rows, table.separator, table.decimal).without_nothing()
    read: dict[str, dict[tuple[int, int], tuple[int, WellRow]]] = {}
    equal: list[int] = []
    asked: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for line in rows.index:
        record = {name: str(given.at[line, name]) for name in _TEXTS}
        record |= {name: str(rows.at[line, name]) for name in ("Metadata_Plate", "Metadata_Well")}
        faults = _faults(record, wells)
        remedy = "Correct the row of the plate map."
        problems += [Problem(f"{where}, line {line}", found, expected, remedy) for found, expected in faults]
        place = parse_well(record["Metadata_Well"])
        if faults or place is None:
            continue
        row = _well(record, well_name(*place), doses.get(line))
        meaning = next(filter(None, map(solvents.meaning, (row.compound, row.treatment))), None)
        if meaning is not None and row.pert_type in {"trt", "poscon"}:
            asked.setdefault((row.compound or row.treatment, row.pert_type, meaning), []).append((line, row.well))
        before = read.setdefault(record["Metadata_Plate"], {}).setdefault(place, (line, row))
        if before[0] != line and before[1] == row:
            equal.append(line)
        elif before[0] != line:
            found = f"well {row.well} a second time: {_said(row)}, and in line {before[0]} {_said(before[1])}"
            remedy = "Remove the row that is wrong."
            problems.append(Problem(f"{where}, line {line}", found, "one content a well", remedy))
    problems += [_asked(where, *key, rows_, options=options) for key, rows_ in asked.items()]
    if equal:
        remarks.append(
            f"{where}: {len(equal)} row(s) say of a well what another row says (the first in line {equal[0]})."
        )
    wells_of = {plate: [of_plate[place][1] for place in sorted(of_plate)] for plate, of_plate in read.items()}
    return ReadMap(wells_of, problems, remarks)


def column_problems(table: Table, where: str) -> list[Problem]:
    """Return the problem of a table that lacks columns of a plate map."""
    absent = [name for name in COLUMNS[:-1] if name not in table.rows.columns]
    if not dose_columns(list(table.rows.columns)):
        absent.append(COLUMNS[-1])
    if not absent:
        return []
    held = ", ".join(plain(str(name), 40) for name in table.rows.columns[:12])
    remedy = "Write the plate map with all its columns (docs/data_contracts.md)."
    found = f"no column {', '.join(absent)} (but {held})"
    return [Problem(where, found, f"the columns {', '.join(COLUMNS)} (the dose may be in _nM or _mM)", remedy)]


def _doses(table: Table, where: str, *, options: bool) -> tuple[dict[int, Decimal], list[Problem], list[str]]:
    """Return line -> dose in micromolar, of all columns of doses together."""
    columns = dose_columns(list(table.rows.columns))
    doses: dict[int, Decimal] = {}
    problems, remarks = [], []
    for column in columns:
        found, faults = read_doses(table, column)
        expected = "a number of micromoles a litre, 0 or more, or nothing"
        problems += [
            Problem(
                f"{where}, line {fault.line}",
                fault.found,
                expected,
                fault.remedy if options or DECIMAL_OPTION not in fault.remedy else REWRITE,
            )
            for fault in faults
        ]
        for line, dose in found.items():
            if doses.setdefault(line, dose) != dose:
                both = f"doses of {as_text(doses[line])} and {as_text(dose)} uM in one row"
                problems.append(Problem(f"{where}, line {line}", both, "one dose", "Correct one, or leave one column."))
        if found and table.rows.loc[list(found), column.name].str.contains(",").any():
            remarks.append(f"{where}: doses are read with a decimal comma." if table.decimal != "." else
                           f"{where}: commas in doses part thousands.")  # fmt: skip
        if column.name != COLUMNS[-1]:
            remarks.append(f"{where}: doses are taken from the column {column.name}, as micromolar.")
    return doses, problems, remarks


def _asked(
    where: str, name: str, kind: str, meaning: str, rows: Sequence[tuple[int, str]], *, options: bool
) -> Problem:
    line, well = rows[0]
    found = f"{kind} in {len(rows)} well(s) of {shown(name)} (the first: {well})"
    if meaning == "unclear":
        remedy = "Write negcon or empty in Metadata_pert_type, or the name of the compound."
        return Problem(f"{where}, line {line}", found, "a name that says what the well holds", remedy)
    own = "give a list of solvents without it (--solvents FILE)" if options else "list the others in ingest.solvents"
    remedy = f"Write negcon in Metadata_pert_type; or, if it is a treatment here, {own}."
    return Problem(f"{where}, line {line}", found, "a solvent as negative control", remedy)


def _said(row: WellRow) -> str:
    dose = "" if row.dose_um is None else f" at {row.dose_um:g} uM"
    return f"{shown(row.compound)} ({row.pert_type}){dose}"


def _line_of(where: str) -> int:
    number = where.rpartition("line ")[2]
    return int(number) if number.isdigit() else 0


def _faults(record: dict[str, str], wells: int) -> list[tuple[str, str]]:
    faults = []
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
            held = f"{len(record[name])} characters, beginning {record[name][:20]!r}"
            faults.append((f"a {name} of {held}", f"a name of at most {MAX_NAME} characters on one line"))
    return faults


def _well(record: dict[str, str], well: str, dose: Decimal | None) -> WellRow:
    return WellRow(
        well,
        record["Metadata_Compound"],
        record["Metadata_Treatment"],
        record["Metadata_pert_type"],
        None if dose is None else float(dose),
    )
