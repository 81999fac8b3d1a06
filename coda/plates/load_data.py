"""load_data: which file holds which stain of which field.

Two generations of the table are in use: `FileName_Orig<Stain>` with `PathName_Orig<Stain>`, and one `URL_Orig<Stain>`.
The stains come from the column names, never from channel numbers, which differ between laboratories.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from coda.contracts.channels import is_transmitted
from coda.errors import Problem
from coda.plates.file_references import FileResolver, Resolved
from coda.plates.layout import fits, parse_well, well_name
from coda.plates.tabular.typed_numbers import whole_number
from coda.plates.tabular.wording import NOTHING

MAX_SITE = 9999
"""Largest number of a field in a well."""

_COLUMN = re.compile(r"^(?:FileName|URL)_Orig(.+)$")


@dataclass(frozen=True)
class FieldRow:
    """One field of view as load_data names it.

    Attributes:
        well: Well name, 'B03'.
        site: Number of the field in the well, as the instrument counts (from 0 or from 1).
        files: Channel -> path in the manifest, for the channels whose file was found there.
        missing: Channel -> why there is no file for it.
    """

    well: str
    site: int
    files: dict[str, str]
    missing: dict[str, str]

    def renamed(self, names: Mapping[str, str]) -> "FieldRow":
        """Return the field with some channels under other names (old -> new)."""
        if not names:
            return self
        files = {names.get(channel, channel): path for channel, path in self.files.items()}
        missing = {names.get(channel, channel): why for channel, why in self.missing.items()}
        return replace(self, files=files, missing=missing)


def stains_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the channels a table names, in the order of its columns, fluorescent or not."""
    found = (_COLUMN.match(column) for column in columns)
    return tuple(dict.fromkeys(match.group(1) for match in found if match))


def read_fields(
    table: pd.DataFrame, *, where: str, plate: str, declared: Collection[str], wells: int, resolver: FileResolver
) -> tuple[list[FieldRow], list[Problem]]:
    """Read the fields of one plate.

    Returns:
        Fields in the order of rows, columns and sites; and all problems of the table.
    """
    problems = _column_problems(table, where, declared)
    needed = [name for name in ("Metadata_Well", "Metadata_Site") if name in table.columns]
    if len(needed) < 2:
        return [], problems
    rows: dict[tuple[int, int, int], FieldRow] = {}
    stains = [stain for stain in stains_of(list(table.columns)) if stain in set(declared)]
    records = [{str(name): str(value) for name, value in values.items()} for values in table.to_dict("records")]
    own = [record for record in records if record.get("Metadata_Plate", plate) == plate]
    resolved = resolver.learn(plate, {stain: [_reference(record, stain) for record in own] for stain in stains})
    for number, record in zip(table.index, records, strict=True):
        line = f"{where}, line {number}"
        if record.get("Metadata_Plate", plate) != plate:
            found = f"plate {record['Metadata_Plate']!r}"
            problems.append(Problem(line, found, f"plate {plate!r}", "Give each plate its own load_data."))
            continue
        place, site = parse_well(record["Metadata_Well"]), whole_number(record["Metadata_Site"])
        if place is None or not fits(place, wells) or site is None or site > MAX_SITE:
            found = f"well {record['Metadata_Well']!r}, site {record['Metadata_Site']!r}"
            expected = f"a well of a {wells}-well plate and a whole number"
            problems.append(Problem(line, found, expected, "Correct the row, or the manifest's plate_wells."))
            continue
        key = (*place, site)
        if key in rows:
            found = f"well {well_name(*place)}, site {site} a second time"
            problems.append(Problem(line, found, "one row for each field", "Remove the row that is wrong."))
            continue
        rows[key] = _field(record, well_name(*place), site, stains, resolved)
    return [rows[key] for key in sorted(rows)], shortened(problems, where)


def _column_problems(table: pd.DataFrame, where: str, declared: Collection[str]) -> list[Problem]:
    problems = [
        Problem(where, f"no column {name}", f"the column {name}", "Write load_data again with all its columns.")
        for name in ("Metadata_Well", "Metadata_Site")
        if name not in table.columns
    ]
    present = stains_of(list(table.columns))
    expected = f"the channels of the manifest ({', '.join(declared)})"
    for stain in present:
        if stain in declared:
            continue
        meant = next((name for name in declared if name.casefold() == stain.casefold()), None)
        if meant is not None:
            problems.append(Problem(where, f"channel {stain!r}", expected, f"Write it as the manifest does: {meant}."))
        elif not is_transmitted(stain):  # instruments add brightfield and phase contrast; whoever wants them lists them
            remedy = "Add it to the manifest's channels, rename the column to the channel it holds, or remove it."
            problems.append(Problem(where, f"unknown channel {stain!r}", expected, remedy))
    for stain in declared:
        if stain not in present:
            remedy = "Add the columns of this stain, or take it out of the manifest's channels."
            found = f"no column FileName_Orig{stain} or URL_Orig{stain}"
            problems.append(Problem(where, found, f"the files of the stain {stain}", remedy))
    return problems


def _field(record: dict[str, str], well: str, site: int, stains: Sequence[str], resolved: Resolved) -> FieldRow:
    files: dict[str, str] = {}
    missing: dict[str, str] = {}
    for stain in stains:
        reference = _reference(record, stain)
        if not reference:
            missing[stain] = "load_data names no file for this stain"
            continue
        try:
            files[stain] = resolved.resolve(reference)
        except LookupError as error:
            missing[stain] = f"the file {error.args[0]}"
    return FieldRow(well, site, files, missing)


def _reference(record: dict[str, str], stain: str) -> str:
    name = record.get(f"FileName_Orig{stain}", "")
    if name.lower() not in NOTHING:
        folder = record.get(f"PathName_Orig{stain}", "")
        return f"{folder.rstrip('/')}/{name}" if folder else name
    address = record.get(f"URL_Orig{stain}", "")
    return "" if address.lower() in NOTHING else address


def shortened(problems: list[Problem], where: str, most: int = 20) -> list[Problem]:
    """Keep the first problems of a table; a wrong column would otherwise give one for each of thousands of rows."""
    if len(problems) <= most:
        return problems
    rest = Problem(where, f"{len(problems) - most} more problems of this table", "none", "Correct those above first.")
    return [*problems[:most], rest]
