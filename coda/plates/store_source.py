"""Bytes of a plate store, wherever it lies: a file of this machine, or an object that is read by range."""

import io
import os
import weakref
from pathlib import Path
from typing import Protocol

from coda.contracts.placement import StoreReference


class StoreSource(Protocol):
    """A plate store whose bytes can be read anywhere; threads may share it."""

    size: int

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer with the bytes from `start`, and return how many there were: fewer only at the end."""
        ...


class RemoteStore(Protocol):
    """Address of a plate store that lies elsewhere: hashable, and its text names it in messages."""

    def open(self, keep: Path | None) -> StoreSource:
        """Open it for reading.

        Args:
            keep: Folder of this machine for a copy of what is read, so that it is fetched once; None to keep nothing.
        """
        ...


class Stores(Protocol):
    """The place where plate stores lie by content."""

    def at(self, reference: StoreReference) -> RemoteStore:
        """Return the address of a store; nothing is asked yet."""
        ...


class FileSource:
    """A file of this machine; it is closed when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer; see `StoreSource.read_into`."""
        return os.preadv(self._file.fileno(), [buffer], start)


class Seekable(io.RawIOBase):
    """A store as a file object, for the zip module to read the directory with."""

    def __init__(self, source: StoreSource) -> None:
        """Begin at the start."""
        self._source, self._at = source, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any place can be gone to."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; see `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            message = f"place {base + offset} before the start of the file"
            raise OSError(message)
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill a buffer from the place on."""
        view = memoryview(buffer).cast("B")[: max(0, self._source.size - self._at)]
        count = self._source.read_into(view, self._at) if len(view) else 0
        self._at += count
        return count
