"""Plate stores in the data store, under the keys at which DVC keeps content: written once, read by range."""

import hashlib
import os
import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from coda.contracts.placement import StoreReference
from coda.errors import IntegrityError, Problem
from coda.settings import Settings
from coda.storage.clone import object_key
from coda.storage.failures import ObjectNotFoundError, disk_explained
from coda.storage.objects import ObjectStore, store_for

TAIL_BYTES = 2**16
"""Bytes at the end of a store that are held in memory: the directory of a small one, read by several readers."""


class DataStore:
    """The data store behind the data registry, as the place of plate stores."""

    def __init__(self, settings: Settings) -> None:
        """Name the place; nothing is asked yet."""
        self._settings = settings
        self._known: dict[StoreReference, DataObject] = {}

    @cached_property
    def _store(self) -> ObjectStore:
        # steps on local folders have no data store, and none is looked for before a reference is met
        return store_for(self._settings.data_remote, self._settings)

    def at(self, reference: StoreReference) -> "DataObject":
        """Return the address of a store; whoever asks again gets the same, with what it holds in memory."""
        return self._known.setdefault(reference, DataObject(self._store, reference))

    def keep(self, path: Path) -> StoreReference:
        """Write a plate store to its key, unless its content lies there already.

        Returns:
            The reference with which it is found again.

        Raises:
            TransientError: The storage is away; the file is still there.
        """
        reference = StoreReference(store=path.name, md5=md5_of(path), size_bytes=path.stat().st_size)
        if not self.holds(reference):
            self._store.upload(path, object_key(reference.md5), "application/zip")
        return reference

    def holds(self, reference: StoreReference) -> bool:
        """Return whether the data store has an object of this size under the key of this content."""
        return self._store.size(object_key(reference.md5)) == reference.size_bytes

    def __repr__(self) -> str:
        return f"DataStore({self._settings.data_remote!r})"


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal: DVC's name for its content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class DataObject:
    """Address of one plate store in the data store."""

    store: ObjectStore = field(compare=False)
    reference: StoreReference
    _held: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def open(self, keep: Path | None) -> "ObjectSource":
        """Open it; see `coda.plates.store_source.RemoteStore.open`."""
        return ObjectSource(self, keep)

    @property
    def key(self) -> str:
        """Key in the data store."""
        return object_key(self.reference.md5)

    def range(self, start: int, length: int) -> bytes:
        """Return bytes of the object; those of its end come from memory after the first time.

        Raises:
            IntegrityError: It is not there, or has another size than was recorded.
            TransientError: The storage is away.
        """
        first = max(0, self.reference.size_bytes - TAIL_BYTES)
        if start < first:
            return self._asked(start, length)
        if "tail" not in self._held:
            self._held["tail"] = self._asked(first, self.reference.size_bytes - first)
        return self._held["tail"][start - first : start - first + length]

    def _asked(self, start: int, length: int) -> bytes:
        wanted = min(length, self.reference.size_bytes - start)
        if wanted <= 0:
            return b""
        try:
            data = self.store.get(self.key, span=(start, wanted))
        except ObjectNotFoundError as error:
            raise self._lost("nothing") from error
        if len(data) != wanted:
            raise self._lost(f"an object that ends before byte {start + wanted}")
        return data

    def _lost(self, found: str) -> IntegrityError:
        remedy = "Restore the object from a backup, or ingest the batch again; find out who deleted or changed it."
        expected = f"{self.reference.size_bytes} bytes with the MD5 {self.reference.md5}"
        problem = Problem(f"{self.reference.store} at {self.store.url(self.key)}", found, expected, remedy)
        return IntegrityError("The data store does not hold a plate store that a batch names.", [problem])

    def __str__(self) -> str:
        return f"{self.reference.store} at {self.store.url(self.key)}"


class ObjectSource:
    """A plate store in the data store, open for reading; see `coda.plates.store_source.StoreSource`."""

    def __init__(self, place: DataObject, keep: Path | None) -> None:
        """Open it; with `keep`, what is read lies in a sparse file there until nobody refers to this any more."""
        self.size = place.reference.size_bytes
        self._place = place
        self._kept: dict[int, int] = {}
        self._lock = threading.Lock()
        self._folder = keep or Path()
        self._file: int | None = None
        if keep is not None:
            with disk_explained(keep):
                keep.mkdir(parents=True, exist_ok=True)
                self._file, name = tempfile.mkstemp(prefix=place.reference.md5, dir=keep)
                Path(name).unlink()  # it lives as long as it is open, also when this process is killed
            weakref.finalize(self, os.close, self._file)

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer; see `coda.plates.store_source.StoreSource.read_into`."""
        if self._file is not None and self._kept.get(start, 0) >= len(buffer):
            return os.preadv(self._file, [buffer], start)
        data = self._place.range(start, len(buffer))
        buffer[: len(data)] = data
        if self._file is not None and len(data) == len(buffer):
            with disk_explained(self._folder):
                os.pwrite(self._file, data, start)
            with self._lock:
                self._kept[start] = max(len(data), self._kept.get(start, 0))
        return len(data)
