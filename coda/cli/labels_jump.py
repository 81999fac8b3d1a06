"""The compounds of JUMP-Target-2 by the positions of plates, for `coda labels`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.jump.position import join_by_position
from coda.plates.jump.selection import PlateFilter
from coda.plates.layout import parse_well
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read
from coda.plates.tabular.unique import contradictions

TYPE = "TARGET2"
"""Plates that were made by the map of JUMP-Target-2."""

SHOWN = 8


@dataclass(frozen=True)
class ByPosition:
    """Which id is which compound: the compound table as CSV, and what a person should know of how it came about."""

    csv: bytes
    told: tuple[str, ...]


def joined_by_position(
    tables: JumpTables, sources: Sequence[str], chosen: PlateFilter, platemap: Path, metadata: Path
) -> ByPosition:
    """Join the wells of plates with the map that they were made by.

    Args:
        tables: The consortium's tables.
        sources: Sources whose plates are joined; all when empty.
        chosen: Plates; those of type TARGET2 when nothing is asked for.
        platemap: Table of `well_position` and `broad_sample`.
        metadata: Table of `broad_sample`, `InChIKey`, `pert_iname`, `control_type`.

    Raises:
        ConfigError: Plates are asked for that are not there, or a file cannot be read.
        ContractError: Tables cannot be read, contradict themselves or each other.
    """
    chosen = chosen or PlateFilter(types=(TYPE,))
    names = list(sources) or tables.sources()
    wanted = _wanted(tables, names, chosen)
    tables.keep(wanted)
    wells = {(source, plate): tables.wells(source, [plate]).get(plate) for source, plate in wanted}
    lacking = [f"{plate} ({source})" for (source, plate), found in wells.items() if found is None]
    known = [found for found in wells.values() if found is not None]
    if not known:
        problem = Problem(tables.where, f"no wells of {_few(lacking)}", "the plates in well.csv", "Name others.")
        raise ConfigError("These plates cannot be joined.", [problem])
    layout = _table(platemap, ("well_position", "broad_sample"))
    samples = _table(metadata, ("broad_sample", "InChIKey", "pert_iname", "control_type"))
    problems = contradictions(layout, "well_position", ["broad_sample"], str(platemap), parse_well)
    problems += contradictions(samples, "broad_sample", ["InChIKey"], str(metadata))
    raise_if_any(ContractError, "The tables of the map contradict themselves.", problems[:20])
    joined = join_by_position(known, dict(zip(layout["well_position"], layout["broad_sample"], strict=True)), samples)
    raise_if_any(ContractError, f"Wells of {', '.join(names)} and the plate map do not agree.", joined.conflicts)
    told = [f"{len(joined.table)} compounds by {joined.wells} wells of {len(known)} plate(s)"]
    if lacking:
        told.append(f"{len(lacking)} plate(s) are not in the table of wells, and were left out: {_few(lacking)}")
    if joined.unmatched:
        told.append(f"{len(joined.unmatched)} well(s) match no compound: {_few(joined.unmatched)}")
    if joined.replaced:
        some = [f"{well} on {count} plate(s)" for well, count in joined.replaced.items()]
        told.append(f"Solvent instead of a compound: {_few(some)}")
    return ByPosition(joined.table.to_csv(index=False, lineterminator="\n").encode(), tuple(told))


def _wanted(tables: JumpTables, sources: Sequence[str], chosen: PlateFilter) -> list[tuple[str, str]]:
    """Return source and name of the wanted plates; some plates have wells and no row in the table of plates."""
    kinds = {source: {plate.plate: plate.plate_type for plate in tables.plates(source).values()} for source in sources}
    every = {plate: kind for plates in kinds.values() for plate, kind in plates.items()}
    unlisted = sorted(chosen.names - set(every))
    PlateFilter(chosen.types, chosen.names - set(unlisted), chosen.patterns).require_used(every, ", ".join(sources))
    tables.keep([(source, plate) for source in sources for plate in unlisted])
    problems = [
        Problem(tables.where, f"no wells of {plate}", "the plate in well.csv", "Name others.")
        for plate in unlisted
        if not any(tables.wells(source, [plate]) for source in sources)
    ]
    raise_if_any(ConfigError, "These plates cannot be joined.", problems)
    return [
        (source, plate) for source in sources
        for plate in sorted({*(name for name, kind in kinds[source].items() if chosen.takes(name, kind)),
                             *(name for name in unlisted if tables.wells(source, [name]))})
    ]  # fmt: skip


def bytes_of(path: Path) -> bytes:
    """Return the bytes of a table that the command line names; raises `ConfigError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        problem = Problem(str(path), str(error.strerror), "a table", "Check the name.")
        raise ConfigError("A table cannot be read.", [problem]) from error


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = read(bytes_of(path)).without_nothing()
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


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
