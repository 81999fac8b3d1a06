"""Plate map: what was done to each well. It never holds a mechanism of action."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from coda.contracts.fields import PertType
from coda.errors import Problem
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
"""Start of the treatments that an import gives to wells whose plate map is not known (``unknown:<plate>:<well>``)."""

MAX_NAME = 200
"""Longest name of a compound or treatment, in characters."""

PERT_TYPES: tuple[str, ...] = get_args(PertType)


@dataclass(frozen=True)
class WellRow:
    """One well of a plate map; `dose_um` is None where none was given (controls)."""

    well: str
    compound: str
    treatment: str
    pert_type: str
    dose_um: float | None


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
    fields: Sequence[FieldRow], wells: Sequence[WellRow], *, where: str, sites_per_well: int | None
) -> tuple[list[Problem], list[tuple[str, int]]]:
    """Hold load_data against the plate map and the manifest.

    Args:
        fields: Rows of load_data.
        wells: Rows of the plate map.
        where: Plate, for messages.
        sites_per_well: Fields a well that the manifest promises; None where load_data says it for each well.

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
    crowded = sorted(well for well, count in sites.items() if sites_per_well is not None and count > sites_per_well)
    if crowded:
        found = f"up to {max(sites.values())} sites in {len(crowded)} wells ({', '.join(crowded[:8])})"
        remedy = "Correct sites_per_well in the manifest, or load_data."
        problems.append(Problem(where, found, f"{sites_per_well} sites a well, as the manifest says", remedy))
    expected = expected_sites(fields, wells, sites_per_well)
    short = [(well, count - sites.get(well, 0)) for well, count in expected.items() if sites.get(well, 0) < count]
    return problems, short


def expected_sites(fields: Sequence[FieldRow], wells: Sequence[WellRow], sites_per_well: int | None) -> dict[str, int]:
    """Return how many fields each well that is not empty should have.

    Where the manifest gives no number, a well is expected to have the fields that load_data lists for it, whether their
    files arrived or not; a well that load_data does not know, the most usual number of the others.
    """
    sites = Counter(field.well for field in fields)
    usual = usual_sites(sites.values())
    filled = [row.well for row in wells if row.pert_type != "empty"]
    if sites_per_well is not None:
        return dict.fromkeys(filled, sites_per_well)
    return {well: sites.get(well, usual) for well in filled}


def usual_sites(counts: Iterable[int]) -> int:
    """Return the most frequent number of fields in a well, the smaller of two that are equally frequent; 0 of none."""
    times = Counter(counts)
    return min((number for number in times if times[number] == max(times.values())), default=0)
