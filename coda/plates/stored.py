"""Fields that stay in their plate stores and are read one by one, for data that no memory holds."""

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.errors import IntegrityError, Problem, raise_if_any
from coda.plates.fieldset import FieldSet
from coda.plates.store_reading import StoreFile
from coda.plates.store_source import RemoteStore

READERS = 16
"""Threads that read fields, at most: one a core, or all of them where a store lies behind a network."""

OPEN_STORES = 64
"""Plate stores held open at once; opening one reads its directory of thousands of entries."""


@dataclass(frozen=True)
class Place:
    """Where one field is stored: its store, array, shape, stains along the first axis, checksums, name."""

    store: Path | RemoteStore
    array: str
    shape: tuple[int, int, int]
    stains: tuple[str, ...]
    sha256: str
    crc32c: int
    image_id: str


class _OpenStores:
    """Plate stores that are open, the least recently used closed first."""

    def __init__(self, keep: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._opening: dict[Path | RemoteStore, threading.Lock] = defaultdict(threading.Lock)
        self._open: OrderedDict[Path | RemoteStore, StoreFile] = OrderedDict()
        self._keep = keep

    def read(self, place: Place, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        store = self._store(place.store)
        try:
            return store.read(place.array, place.shape, place.crc32c, out)
        except IntegrityError as error:
            named = [replace(item, where=f"{item.where}, field {place.image_id}") for item in error.problems]
            raise IntegrityError("A plate store is damaged, or not the one that was ingested.", named) from error

    def _store(self, path: Path | RemoteStore) -> StoreFile:
        # a directory that has to be fetched holds up only those who want a field of the same store
        with self._lock:
            opening = self._opening[path]
        with opening:
            with self._lock:
                known = self._open.get(path)
            store = known if known is not None else StoreFile(path, self._keep)
            with self._lock:
                self._open[path] = store
                self._open.move_to_end(path)
                while len(self._open) > OPEN_STORES:
                    # another thread may be reading from it; it is closed when that one lets go of it
                    self._open.popitem(last=False)
        return store


@dataclass(frozen=True)
class StoredFields:
    """Fields of view in plate stores, and their rows of the field index, in one order.

    Attributes:
        places: Where each field is.
        table: One row a field, as in `coda.plates.fieldset.FieldSet`.
        channels: Stains that are read, in this order.
        centre: Side of the square that is cut from the middle of each field, in stored pixels; a smaller field is
            padded with zeros.
    """

    places: tuple[Place, ...]
    table: pd.DataFrame
    channels: tuple[str, ...]
    centre: int
    _stores: _OpenStores = field(default_factory=_OpenStores, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Fields, channels, height and width, as they come out."""
        return len(self.places), len(self.channels), self.centre, self.centre

    @property
    def readers(self) -> int:
        """Return how many threads to read with: decoding needs a core, waiting for an object store does not."""
        here = all(isinstance(place.store, Path) for place in self.places)
        return min(READERS, os.cpu_count() or 1) if here else READERS

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "StoredFields":
        """Return the fields at these rows (mask or positions), in the order given; nothing is read."""
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        places = tuple(self.places[position] for position in positions.tolist())
        table = self.table.iloc[positions].reset_index(drop=True)
        return StoredFields(places, table, self.channels, self.centre, self._stores)

    def kept_in(self, folder: Path) -> "StoredFields":
        """Return the same fields; what is read of stores that lie elsewhere is kept in a folder and fetched once."""
        return StoredFields(self.places, self.table, self.channels, self.centre, _OpenStores(folder))

    def read_one(self, row: int) -> NDArray[np.uint8]:
        """Read one field, verifying its checksum; safe to call from several threads.

        Returns:
            uint8, shape (channels, centre, centre).

        Raises:
            IntegrityError: The store is absent or damaged, or the pixels are not the ones that were recorded.
        """
        image = np.zeros(self.shape[1:], dtype=np.uint8)
        self._fill(row, image)
        return image

    def read(self, rows: Sequence[int], *, threads: int) -> NDArray[np.uint8]:
        """Read fields in parallel.

        Args:
            rows: Fields, in the order wanted.
            threads: Threads that read; reading and decoding release the interpreter lock.

        Returns:
            uint8, shape (rows, channels, centre, centre).

        Raises:
            IntegrityError: A store is absent or damaged, or fields are not the ones that were recorded: all of them
                together.
        """
        images = np.zeros((len(rows), *self.shape[1:]), dtype=np.uint8)

        def fill(number: int) -> Sequence[Problem]:
            try:
                self._fill(rows[number], images[number])
            except IntegrityError as error:
                return error.problems
            return ()

        if threads == 1:
            problems = dict.fromkeys(problem for number in range(len(rows)) for problem in fill(number))
        else:
            with ThreadPoolExecutor(threads) as pool:
                problems = dict.fromkeys(problem for found in pool.map(fill, range(len(rows))) for problem in found)
        raise_if_any(IntegrityError, "Plate stores are damaged, or not the ones ingested.", list(problems)[:20])
        return images

    def _fill(self, row: int, image: NDArray[np.uint8]) -> None:
        """Read one field into an array of zeros."""
        place = self.places[row]
        if place.stains == self.channels and place.shape == image.shape:
            self._stores.read(place, image)
            return
        pixels = self._stores.read(place, None)
        for channel, stain in enumerate(self.channels):
            crop_centre(pixels[place.stains.index(stain)], image[channel])


Fields: TypeAlias = FieldSet | StoredFields
"""Fields of view, in memory or in their plate stores."""


def read_fields(stored: StoredFields) -> FieldSet:
    """Read fields into memory, verifying each field's checksum; see `StoredFields.read` for the errors."""
    images = stored.read(range(len(stored)), threads=stored.readers)
    return FieldSet(images, stored.table, stored.channels)


def crop_centre(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Copy the middle of an image into the middle of a square target; what it does not cover stays as it is."""
    source, place = [], []
    for have, want in zip(image.shape, target.shape, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        place.append(slice((want - size) // 2, (want - size) // 2 + size))
    target[tuple(place)] = image[tuple(source)]
