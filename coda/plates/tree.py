"""Tree: files below one folder, of this machine or in object storage, before anybody wrote a manifest for them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coda.contracts.manifest import MANIFEST_NAME, SMALLER
from coda.errors import ContractError, Problem
from coda.plates.junk import is_junk


@dataclass(frozen=True, order=True)
class TreeFile:
    """One file of a tree: its path below the tree's root (forward slashes), and its size in bytes."""

    path: str
    size_bytes: int


class Tree(Protocol):
    """Read access to a folder whose contents are not known beforehand."""

    @property
    def where(self) -> str:
        """The root as a person would name it: a folder, or an `s3://` prefix."""
        ...

    def files(self, under: str = "") -> list[TreeFile]:
        """Return all files at any depth below a folder of the tree, sorted by path; paths count from the root.

        Raises:
            TransientError: The storage is away.
        """
        ...

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            ContractError: There is no such file, or it is larger than `at_most` bytes.
            TransientError: The storage is away.
        """
        ...


MAX_LINKS = 8
"""Links to folders that are followed one inside the other; folders can be linked so that they never end."""


class LocalTree:
    """A folder of this machine. Links are followed where they stay inside; the others are kept in `not_followed`."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder; nothing is read yet."""
        self.folder = folder.resolve()
        self.not_followed: dict[str, str] = {}
        """Path of a link that was met and not followed -> why."""

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def files(self, under: str = "") -> list[TreeFile]:
        """Return the files below a folder of the tree; see `Tree.files`."""
        return sorted(self.walk(under))

    def walk(self, under: str = "") -> Iterator[TreeFile]:
        """Yield the files below a folder of the tree, in any order, without keeping them."""
        start = self.folder / under
        yield from self._list(start, (start.resolve(),), 0)

    def _list(self, folder: Path, above: tuple[Path, ...], links: int) -> Iterator[TreeFile]:
        """Yield the files of a folder and of those in it.

        Args:
            folder: Folder by the name it was reached by.
            above: Real places of this folder and of those that lead to it; none of them is entered again.
            links: Links on the way.
        """
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            place = folder / entry.name
            path = place.relative_to(self.folder).as_posix()
            if is_junk(path):
                continue
            linked = entry.is_symlink()
            try:
                real = place.resolve() if linked else above[-1] / entry.name
                is_folder, size = entry.is_dir(), entry.stat().st_size
            except (OSError, RuntimeError):
                self.not_followed[path] = "leads nowhere, or round in a circle"
                continue
            if linked and not real.is_relative_to(self.folder):
                self.not_followed[path] = f"leads to {real}"
            elif is_folder and (real in above or links + linked > MAX_LINKS):
                self.not_followed[path] = "leads round in a circle"
            elif is_folder:
                yield from self._list(place, (*above, real), links + linked)
            elif entry.is_file():
                yield TreeFile(path, size)

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `Tree.read`."""
        place = self.path(path)
        if place is None or not place.is_file():
            raise absent(self.where, path)
        if place.stat().st_size > at_most:
            raise too_large(self.where, path, place.stat().st_size, at_most)
        return place.read_bytes()

    def path(self, path: str) -> Path | None:
        """Return the place of a file on this machine; None when the name leads out of the tree."""
        try:
            place = (self.folder / path).resolve()
        except RuntimeError:  # links that lead round in a circle
            return None
        return place if place.is_relative_to(self.folder) else None


def absent(where: str, path: str) -> ContractError:
    """Return the error of a file that a tree does not hold."""
    problem = Problem(f"{where}: {path}", "no such file", "a file", "Check the name, and what the folder holds.")
    return ContractError(f"{path} cannot be read.", [problem])


def too_large(where: str, path: str, size: int, at_most: int) -> ContractError:
    """Return the error of a file that is larger than any of its kind."""
    manifest = path.rpartition("/")[2] == MANIFEST_NAME
    remedy = SMALLER if manifest else "Check what kind of file this is."
    problem = Problem(f"{where}: {path}", f"{size} bytes", f"at most {at_most} bytes", remedy)
    return ContractError(f"{path} is too large." if manifest else f"{path} cannot be read.", [problem])
