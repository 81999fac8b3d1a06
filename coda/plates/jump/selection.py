"""Which batches and plates of a source are wanted: by the type of plates, by their names, by a pattern of names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.tree import Tree

LOAD_DATA = "workspace/load_data_csv"


@dataclass(frozen=True)
class PlateFilter:
    """What a plate must be to be taken; by default all are.

    Attributes:
        types: Plate types, in any letter case; a plate is of one of them.
        names: Names; a plate has one of them, or fits a pattern.
        patterns: Patterns of names with `*`, `?` and `[...]`.
    """

    types: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return bool(self.types or self.names or self.patterns)

    def takes(self, plate: str, plate_type: str = "") -> bool:
        """Return whether a plate is wanted."""
        if self.types and plate_type.casefold() not in {name.casefold() for name in self.types}:
            return False
        if not (self.names or self.patterns):
            return True
        return plate in self.names or any(fnmatchcase(plate, pattern) for pattern in self.patterns)

    def require_used(self, plates: Mapping[str, str], where: str) -> None:
        """Refuse names, patterns and types that no plate has: a slip would leave plates out in silence.

        Args:
            plates: Plate -> its type ('' where it is not known), of all sources together.
            where: What was looked through, for messages.

        Raises:
            ConfigError: Some are of no plate; all of them together.
        """
        kinds = sorted(set(plates.values()) - {""})
        shown = ", ".join(sorted(plates)[:20]) or "none"
        problems = [
            Problem("--plate-type", name, f"one of {', '.join(kinds[:30]) or 'none'} ({where})", "Correct the name.")
            for name in self.types
            if name.casefold() not in {kind.casefold() for kind in kinds}
        ]
        problems += [
            Problem("--plate", name, f"plates of {where}, such as {shown}", "Correct the name.")
            for name in sorted(self.names - set(plates))
        ][:20]
        problems += [
            Problem("--plate-pattern", pattern, f"a pattern of plates of {where}, such as {shown}", "Correct it.")
            for pattern in self.patterns
            if not any(fnmatchcase(plate, pattern) for plate in plates)
        ]
        raise_if_any(ConfigError, "Plates are asked for that are not there.", problems)


@dataclass(frozen=True)
class Source:
    """What is known of a source's plates before any is read: batch -> plate -> its type ('' if not known)."""

    name: str
    batches: Mapping[str, Mapping[str, str]]

    @property
    def plates(self) -> dict[str, str]:
        """Plate -> type, of all batches."""
        return {plate: kind for plates in self.batches.values() for plate, kind in plates.items()}

    def wanted(self, chosen: PlateFilter, batches: Sequence[str] = ()) -> dict[str, frozenset[str]]:
        """Return batch -> plates that are wanted, in the order of their names; batches without any are not in it."""
        found = {
            batch: frozenset(plate for plate, kind in plates.items() if chosen.takes(plate, kind))
            for batch, plates in sorted(self.batches.items())
            if not batches or batch in batches
        }
        return {batch: plates for batch, plates in found.items() if plates}


def source_of(name: str, tree: Tree, tables: JumpTables | None) -> Source:
    """Return the batches and plates of a source, by the consortium's tables, else by its folder of load_data tables.

    Raises:
        ContractError: A table cannot be read, or has no plate of this source.
        TransientError: The storage is away.
    """
    batches: dict[str, dict[str, str]] = defaultdict(dict)
    if tables is not None:
        for plate in tables.plates(name).values():
            batches[plate.batch][plate.plate] = plate.plate_type
        return Source(name, batches)
    for file in tree.files(LOAD_DATA):
        parts = file.path.split("/")
        if len(parts) == 5:
            batches[parts[2]][parts[3]] = ""
    return Source(name, batches)
