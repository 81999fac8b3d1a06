"""A user's options about a tree before it is read, and the errors about them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from coda.errors import ContractError, Problem
from coda.plates.file_references import Moved
from coda.plates.tabular.dialect import Dialects
from coda.plates.tree import Tree

MAX_SHOWN = 600
"""Most characters of a stranger's text in a message."""

EXPORT_AGAIN = "Export the measurement again, or name the files in a load_data table."


@dataclass(frozen=True)
class ReadOptions:
    """How a tree is to be read.

    Attributes:
        channels: Channel, as the instrument's files call it -> stain; stronger than what a layout knows by itself.
        pattern: Regular expression of image paths with named groups, for the layouts that need one.
        batch: Batch of the tree, where it holds several.
        plates: Plates to take; all of them when there are no names and no patterns.
        patterns: Patterns of names (`*`, `?`, `[...]`) of further plates to take.
        plane: Plane to take of stains that were imaged in several (a z-stack), as the instrument numbers it; or
            'maximum', 'mean' or 'best-focus' to project them, or 'projection' for one that the instrument made.
        planes: The same for single stains.
        made_planes: Numbers under which the instrument keeps projections (a layout knows).
        time: Time point to take of fields that were imaged at several, as the instrument numbers it.
        acquisition: Id or name of the acquisition to take, where fields were acquired several times.
        join: Whether acquisitions are stainings of the same fields, to be put together.
        image: Which of several images of a field to take, by the name of one of them; 'all' for fields of their own.
        sparse: Whether chunks of arrays that are not there were never written, and stand for the fill value.
        renames: Plate as the tree calls it -> name in the delivery.
        moved: Where folders went that tables name; it replaces what would be learned.
        tables: What a person says of how tables are written.
    """

    channels: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None
    batch: str | None = None
    plates: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    plane: int | str | None = None
    planes: Mapping[str, int | str] = field(default_factory=dict)
    made_planes: tuple[int, ...] = ()
    time: int | None = None
    acquisition: str | None = None
    join: bool = False
    image: str | None = None
    sparse: bool = False
    renames: Mapping[str, str] = field(default_factory=dict)
    moved: tuple[Moved, ...] = ()
    tables: Dialects = field(default_factory=Dialects)

    def takes(self, plate: str) -> bool:
        """Return whether a plate of this name is wanted."""
        if not (self.plates or self.patterns):
            return True
        return plate in self.plates or any(fnmatchcase(plate, pattern) for pattern in self.patterns)


class Present:
    """Paths of a tree, found as an index names them: exactly, else in any letter case where one file alone fits."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Keep the paths."""
        self._paths = frozenset(paths)
        self._folded: dict[str, str | None] = {}
        for path in self._paths:
            key = path.casefold()
            self._folded[key] = None if key in self._folded else path

    def __contains__(self, path: object) -> bool:
        return path in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, path: str) -> str | None:
        """Return the path of a file by its name in an index; None when there is none, or two differ by case alone."""
        return path if path in self._paths else self._folded.get(path.casefold())


def links_told(tree: Tree) -> list[str]:
    """Return a remark on links that were met and not followed; what they lead to is not part of the tree."""
    links: Mapping[str, str] = getattr(tree, "not_followed", {})
    if not links:
        return []
    first, why = min(links.items())
    said = (
        f"{len(links)} link(s) were not followed (the first: {plain(first, MAX_SHOWN)}, which {plain(why, MAX_SHOWN)})"
    )
    return [f"{said}; to have what they lead to, copy the folder with its links resolved (cp -rL)."]


def at(tree: Tree, path: str) -> str:
    """Return the name of a file of a tree, for messages."""
    return f"{tree.where.rstrip('/')}/{plain(path, MAX_SHOWN)}" if path else tree.where


def refusal(where: str, found: str, expected: str, remedy: str = EXPORT_AGAIN) -> ContractError:
    """Return the error of a tree (or one of its files) that cannot be imported for one reason."""
    return ContractError(f"{where} cannot be imported.", [Problem(where, plain(found, MAX_SHOWN), expected, remedy)])


def plain(text: str, most: int = 100) -> str:
    """Return a text of a stranger's file as it may be shown: printable characters on one line, and not too many."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1]).strip()
    return shown if len(text) <= most else f"{shown[:most]}..."


def few(problems: list[Problem], where: str, most: int = 20) -> list[Problem]:
    """Return the first problems, and the number of the others: a wrong column would give one for each of thousands."""
    if len(problems) <= most:
        return problems
    rest = Problem(where, f"{len(problems) - most} more problems", "none", "Correct those above first.")
    return [*problems[:most], rest]


def child(folder: str, name: str) -> str | None:
    """Return the path of a file that an index beside it names; None when the name leads out of the tree.

    Args:
        folder: Folder of the index in the tree, empty for its root.
        name: Name as the index writes it, with either kind of slash.
    """
    text = name.replace("\\", "/")
    if not text or text.startswith("/") or re.match(r"[A-Za-z]:", text) or re.search(r"[\x00-\x1f\x7f]", text):
        return None
    parts: list[str] = folder.split("/") if folder else []
    for part in text.split("/"):
        if part == "..":
            return None
        if part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)
