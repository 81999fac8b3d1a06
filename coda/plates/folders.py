"""Folders that hold a set of files: few listings instead of one question a file, or one listing of everything."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from coda.plates.name_forms import plain_folder

MOST_FOLDERS = 32
"""Folders of one plate that are listed one by one; with more, the folder above them is."""


def folders_of(paths: Iterable[str], most: int = MOST_FOLDERS) -> tuple[str, ...]:
    """Return folders that together hold all of the files, none inside another.

    Args:
        paths: Files, relative, with forward slashes.
        most: Number of folders above which those that share the folder above them are taken as one.

    Returns:
        Folders in alphabetical order; '' for the root. A folder whose name may be stored in another normal form is
        never named, the one above it is.
    """
    folders = {plain_folder(path) for path in paths}
    while len(folders) > max(1, most):
        deepest = max(_depth(folder) for folder in folders)
        folders = {_parent(folder) if _depth(folder) == deepest else folder for folder in folders}
    return tuple(sorted(folder for folder in folders if not _inside(folder, folders)))


def _parent(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _depth(folder: str) -> int:
    return len(PurePosixPath(folder).parts) if folder else 0


def _inside(folder: str, folders: set[str]) -> bool:
    if not folder:
        return False
    above = {"" if str(parent) == "." else str(parent) for parent in PurePosixPath(folder).parents}
    return bool(above & folders)
