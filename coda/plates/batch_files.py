"""BatchFiles: where the files of a batch are read from, whatever holds them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from coda.errors import TransientError, machine_error
from coda.plates.name_forms import by_form, composed, only


class OutsideBatchError(Exception):
    """A path leads out of the folder of its batch, or nowhere: links in a circle."""


class LargerFileError(Exception):
    """A file has more bytes than the caller would read; `size_bytes` is what it has."""

    def __init__(self, path: str, size_bytes: int) -> None:
        """Keep path and size."""
        super().__init__(path)
        self.size_bytes = size_bytes


class BatchFiles(Protocol):
    """Read access to one delivery. Implementations can be pickled: worker processes read through their own copy."""

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file.

        Args:
            path: Relative to the manifest, with forward slashes.
            at_most: Largest size, in bytes, that is read into memory.

        Raises:
            FileNotFoundError: There is no such file.
            LargerFileError: It has more bytes.
            OutsideBatchError: The path leads out of the delivery.
            TransientError: The storage is away; the same call may succeed later.
        """
        ...

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None when there is no such file; raises as `read` does."""
        ...


class LocalFiles:
    """A delivery in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder; nothing is read yet."""
        self._folder = folder.resolve()
        self._forms: dict[Path, Mapping[str, list[str]]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out the names that were listed: a worker process lists what it needs."""
        return {**self.__dict__, "_forms": {}}

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `BatchFiles.read`."""
        try:
            place = self._place(path)
            size = place.stat().st_size
            if place.is_file() and size > at_most:
                raise LargerFileError(path, size)
            return place.read_bytes()
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except OSError as error:
            raise _explained(error, path) from error

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None; see `BatchFiles.size`."""
        try:
            place = self._place(path)
            return place.stat().st_size if place.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _explained(error, path) from error

    def __repr__(self) -> str:
        return f"LocalFiles({str(self._folder)!r})"

    def _place(self, path: str) -> Path:
        """Return the place of a file, under the name that it is stored by (`coda.plates.name_forms`).

        Raises:
            FileNotFoundError: Nothing is there.
            OutsideBatchError: The path leads out of the delivery.
        """
        place = self._confined(path)
        if path.isascii() or place.exists():
            return place
        return self._confined(only(path, self._alike(self._folder, path.split("/"))))

    def _alike(self, folder: Path, parts: list[str]) -> list[str]:
        """Return the files below a folder whose names, part by part, are the same in NFC."""
        if not parts:
            return [folder.relative_to(self._folder).as_posix()]
        part, *rest = parts
        if folder not in self._forms:
            self._forms[folder] = by_form(entry.name for entry in folder.iterdir()) if folder.is_dir() else {}
        names = self._forms[folder].get(composed(part), [])
        return [path for name in names for path in self._alike(folder / name, rest)]

    def _confined(self, path: str) -> Path:
        try:
            place = (self._folder / path).resolve()
        except RuntimeError as error:  # links that lead round in a circle
            raise OutsideBatchError(path) from error
        if not place.is_relative_to(self._folder):
            raise OutsideBatchError(path)
        return place


def _explained(error: OSError, path: str) -> Exception:
    """Return what a failed read means: a file that is away for good, or a machine that may answer later."""
    machine = machine_error(error)
    if isinstance(machine, TransientError):
        return TransientError(f"{path} could not be read now: {error.strerror}.", machine.problems)
    return error
