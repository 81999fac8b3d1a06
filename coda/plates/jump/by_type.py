"""Wells of a plate that the consortium's table lacks, by other plates of its type: some types hold one set."""

from collections import Counter, defaultdict

from coda.errors import ContractError, Problem
from coda.plates.jump.consortium_tables import UNKNOWN, JumpPlate, JumpTables
from coda.plates.layout import parse_well, well_name

LEAST_PLATES = 3
"""Other plates of the type that must be known before anything is taken from them."""

LEAST_SHARE = 0.9
"""Share of the wells in which all of them must agree; plates of a screened library agree in their controls alone."""


def wells_by_type(tables: JumpTables, plate: JumpPlate) -> tuple[dict[str, str], str]:
    """Return what all known plates of a plate's type hold, well for well.

    A well in which two of them differ is not in the result: nobody knows what this plate has there. A plate whose rows
    lack a well says nothing of it.

    Returns:
        Well -> JCP2022 id; and what was done, in words.

    Raises:
        ContractError: Too few other plates are known, or they differ in more than a tenth of their wells.
    """
    others = set(tables.plates_of_type(plate.plate_type)) - {(plate.source, plate.plate)}
    tables.keep(others)
    held: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    known: list[tuple[str, str]] = []
    for source, name in sorted(others):
        wells = tables.wells(source, [name]).get(name)
        if wells is None:
            continue
        known.append((source, name))
        for well, jcp in wells.items():
            place = parse_well(well)
            if place is not None:
                held[place][jcp] += 1
    agreed = {
        place: next(iter(contents)) for place, contents in held.items()
        if contents.total() >= LEAST_PLATES and len(contents) == 1 and not UNKNOWN & set(contents)
    }  # fmt: skip
    where = f"{tables.where}, plate {plate.plate} of {plate.source}"
    if len(known) < LEAST_PLATES or len(agreed) < LEAST_SHARE * len(held):
        found = f"{len(known)} other {plate.plate_type} plates, which agree in {len(agreed)} of {len(held)} wells"
        expected = f"at least {LEAST_PLATES}, which agree in {LEAST_SHARE:.0%} of their wells"
        remedy = "Leave the plate out, or give its wells with --plate-map and a build of its own."
        problem = Problem(where, found, expected, remedy)
        raise ContractError(f"The wells of {plate.plate} cannot be derived from its type.", [problem])
    sources = ", ".join(sorted({source for source, _ in known}))
    said = (
        f"Plate {plate.plate}: the table of wells lacks it; it was given what all {len(known)} known "
        f"{plate.plate_type} plates ({sources}) hold, in the {len(agreed)} of {len(held)} wells in which they agree."
    )
    return {well_name(*place): jcp for place, jcp in sorted(agreed.items())}, said
