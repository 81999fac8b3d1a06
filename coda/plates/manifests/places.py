"""Place: a tree of files whose contents can be measured, and that may be written to."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from coda.durable import give_name
from coda.errors import ContractError, Problem
from coda.plates.batch_files import LargerFileError
from coda.plates.disk import writing
from coda.plates.name_forms import by_form, composed, only, plain_folder
from coda.plates.tree import LocalTree, Tree, TreeFile, absent

BLOCK_BYTES = 1024 * 1024


class Place(Tree, Protocol):
    """What building and checking a manifest needs of a folder or a prefix."""

    def walk(self, under: str = "") -> Iterator[TreeFile]:
        """Yield what `files` returns, in any order; nothing is kept, no marks either."""
        ...

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None when there is none; raises as `read` does."""
        ...

    def mark(self, path: str) -> str:
        """Return what changes whenever a listed file is replaced (entity tag, time of the last write)."""
        ...

    def stored_sha256(self, path: str) -> str | None:
        """Return the SHA-256 that the storage itself keeps of a listed file; None where it keeps none."""
        ...

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks of at most 1 MiB; raises as `read` does."""
        ...

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write a file whole or not at all, over whatever was there."""
        ...

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """Write a file unless there is one, and return whether it was written."""
        ...


class LocalPlace(LocalTree):
    """A folder of this machine; see `Place`."""

    def size(self, path: str) -> int | None:
        """Return the size of a file; see `Place.size`."""
        place = self.path(path)
        return place.stat().st_size if place is not None and place.is_file() else None

    def mark(self, path: str) -> str:
        """Return the time of the last write; see `Place.mark`."""
        place = self.path(path)
        return str(place.stat().st_mtime_ns) if place is not None and place.is_file() else ""

    def stored_sha256(self, path: str) -> str | None:
        """Return None: a disk keeps no digests; see `Place.stored_sha256`."""
        del path
        return None

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file; see `Place.blocks`."""
        place = self.path(path)
        if place is None or not place.is_file():
            raise absent(self.where, path)
        try:
            with place.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except OSError as error:
            problem = Problem(str(place), str(error.strerror), "a file that can be read", "Check disk and rights.")
            raise ContractError(f"{path} cannot be read.", [problem]) from error

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write a file; see `Place.put`."""
        del content_type
        with writing(self.folder):
            give_name(self._draft(path, data), self.folder / path)

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """Write a file unless there is one; see `Place.create`."""
        del content_type
        with writing(self.folder):
            draft = self._draft(path, data)
            try:
                os.link(draft, self.folder / path)
            except FileExistsError:
                return False
            except OSError:  # a disk without links
                if (self.folder / path).exists():
                    return False
                give_name(draft, self.folder / path)
            finally:
                draft.unlink(missing_ok=True)
        return True

    def _draft(self, path: str, data: bytes) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f"{place.name}.{os.getpid()}.part")
        draft.write_bytes(data)
        return draft


class PlaceFiles:
    """A place as the files of a delivery; see `coda.plates.batch_files.BatchFiles`."""

    def __init__(self, place: Place) -> None:
        """Keep the place."""
        self.place = place

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `coda.plates.batch_files.BatchFiles.read`."""
        stored = self._stored(path)
        size = self.place.size(stored)
        if size is None:
            raise FileNotFoundError(path)
        if size > at_most:
            raise LargerFileError(path, size)
        return self.place.read(stored, at_most=at_most)

    def size(self, path: str) -> int | None:
        """Return the size of a file; see `coda.plates.batch_files.BatchFiles.size`."""
        try:
            return self.place.size(self._stored(path))
        except FileNotFoundError:
            return None

    def _stored(self, path: str) -> str:
        """Return the name that a file is stored under (`coda.plates.name_forms`)."""
        if path.isascii() or self.place.size(path) is not None:
            return path
        forms = by_form(file.path for file in self.place.files(plain_folder(path)))
        return only(path, forms.get(composed(path), []))
