"""Tree: files below one folder, of this machine or in object storage, before anybody wrote a manifest for them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coda.errors import ContractError, Problem


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


class LocalTree:
    """A folder of this machine. Links that lead out of it are not followed."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder; nothing is read yet."""
        self.folder = folder.resolve()

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def files(self, under: str = "") -> list[TreeFile]:
        """Return the files below a folder of the tree; see `Tree.files`."""
        found = []
        for root, _, names in os.walk(self.folder / under):
            for name in names:
                place = Path(root) / name
                if place.is_file() and place.resolve().is_relative_to(self.folder):
                    found.append(TreeFile(place.relative_to(self.folder).as_posix(), place.stat().st_size))
        return sorted(found)

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
    found = f"{size} bytes"
    problem = Problem(f"{where}: {path}", found, f"at most {at_most} bytes", "Check what kind of file this is.")
    return ContractError(f"{path} cannot be read.", [problem])
