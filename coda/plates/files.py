"""BatchFiles: where the files of a batch are read from, whatever holds them."""

from pathlib import Path
from typing import Protocol

from coda.errors import TransientError, machine_error


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

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `BatchFiles.read`."""
        place = self._confined(path)
        try:
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
        place = self._confined(path)
        try:
            return place.stat().st_size if place.is_file() else None
        except OSError as error:
            raise _explained(error, path) from error

    def __repr__(self) -> str:
        return f"LocalFiles({str(self._folder)!r})"

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
