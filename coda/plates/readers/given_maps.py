"""Plate maps of found plates from the table that a person gave, or of unknown wells without one."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.layout import well_name
from coda.plates.load_data import shortened
from coda.plates.plate_map import COLUMNS, UNKNOWN_TREATMENT, WellRow
from coda.plates.plate_map_reading import column_problems, read_map
from coda.plates.readers.listing import PlateListing
from coda.plates.solvents import Solvents
from coda.plates.tabular.dialect import Dialects, UnreadableTableError
from coda.plates.tabular.table import Table, read
from coda.plates.tabular.typed_numbers import as_text

LARGEST_PLATE = 1536


def plate_maps(
    plates: Sequence[PlateListing], table: Path | None, dialects: Dialects, solvents: Solvents | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return the CSV text of each plate's map: its rows of the table, or wells of unknown treatments without one.

    Args:
        plates: The plates.
        table: Plate map of all of them.
        dialects: What a person says of how it is written.
        solvents: Names that no treatment may have; the packaged ones when None.

    Returns:
        Plate -> CSV text with the columns of `coda.plates.plate_map.COLUMNS`; and remarks.

    Raises:
        ContractError: The table cannot be read, lacks columns or a plate, or has rows that cannot be used or contradict
            each other; all of it together.
    """
    if table is None:
        return {plate.plate: _unknown_map(plate) for plate in plates}, []
    where = str(table)
    read_ = _read(table, where, dialects)
    raise_if_any(ContractError, f"{where} cannot be used.", column_problems(read_, where))
    read_ = _by_our_names(read_, plates)
    names = set(read_.rows["Metadata_Plate"])
    found = f"the plates {', '.join(sorted(names)[:5])}"
    problems = [
        Problem(where, found, f"rows of plate {plate.plate}", "Add the wells of this plate.")
        for plate in plates
        if plate.plate not in names
    ]
    wanted = {plate.plate for plate in plates}
    maps = read_map(read_, where=where, plates=wanted, wells=LARGEST_PLATE, solvents=solvents, options=True)
    raise_if_any(ContractError, f"{where} cannot be used.", shortened([*problems, *maps.problems], where))
    told = read_.told(where)
    return {name: map_text(name, maps.plates[name]) for name in wanted}, [
        *([f"{told}."] if told else []),
        *maps.remarks,
    ]


def _by_our_names(table: Table, plates: Sequence[PlateListing]) -> Table:
    """Return a plate map that calls plates as the delivery does; a laboratory writes its own names into it."""
    known = set(table.rows["Metadata_Plate"])
    ours = {plate.raw: plate.plate for plate in plates if plate.raw and plate.plate not in known}
    return replace(table, rows=table.rows.assign(Metadata_Plate=table.rows["Metadata_Plate"].replace(ours)))


def map_text(plate: str, wells: Sequence[WellRow]) -> str:
    """Return the CSV text of a plate map."""
    rows = [
        [plate, row.well, row.compound, row.treatment, row.pert_type,
         "" if row.dose_um is None else as_text(Decimal(repr(row.dose_um)))]
        for row in wells
    ]  # fmt: skip
    return csv_text(COLUMNS, rows)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as it is delivered: commas, line feeds, quotation marks where they are needed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _read(path: Path, where: str, dialects: Dialects) -> Table:
    try:
        return read(path.read_bytes(), dialects.of(path.name))
    except UnreadableTableError as error:
        remedy = error.remedy or "Give the plate map (docs/data_contracts.md)."
        problem = Problem(where, f"a table that {error}", "a plate map", remedy)
        raise ContractError(f"{where} cannot be used.", [problem]) from error
    except OSError as error:
        problem = Problem(where, str(error), "a plate map", "Give the plate map (docs/data_contracts.md).")
        raise ContractError(f"{where} cannot be used.", [problem]) from error


def _unknown_map(plate: PlateListing) -> str:
    """Return a map in which each well is its own unknown treatment, so that no two wells are taken for replicates."""
    rows = []
    for place in sorted({item.place for item in plate.fields}):
        well = well_name(*place)
        name = f"{UNKNOWN_TREATMENT}{plate.plate}:{well}"
        rows.append([plate.plate, well, name, name, "trt", ""])
    return csv_text(COLUMNS, rows)
