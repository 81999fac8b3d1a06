"""Fields that stay in their plate stores and are read one by one, for data that no memory holds."""

import hashlib
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.errors import IntegrityError, Problem, raise_if_any
from coda.plates.store import damaged, read_chunk

REMEDY = "Fetch this batch again from the data registry, and find out who changed the file."
OPEN_STORES = 64
"""Plate stores held open at once; opening one reads its directory of thousands of entries."""


@dataclass(frozen=True)
class Place:
    """Where one field is stored: its store, array, shape, stains along the first axis, SHA-256 of its pixels, name."""

    store: Path
    array: str
    shape: tuple[int, int, int]
    stains: tuple[str, ...]
    sha256: str
    image_id: str


class _OpenStores:
    """Plate stores that are open, the least recently used closed first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, zipfile.ZipFile] = OrderedDict()

    def read(self, place: Place) -> NDArray[np.uint8]:
        with damaged(place.store):
            return read_chunk(self._store(place.store), place.array, place.shape)

    def _store(self, path: Path) -> zipfile.ZipFile:
        with self._lock:
            if path not in self._open:
                self._open[path] = zipfile.ZipFile(path)
            self._open.move_to_end(path)
            while len(self._open) > OPEN_STORES:
                # another thread may be reading from it; it is closed when that one lets go of it
                self._open.popitem(last=False)
            return self._open[path]


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

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "StoredFields":
        """Return the fields at these rows (mask or positions), in the order given; nothing is read."""
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        places = tuple(self.places[position] for position in positions.tolist())
        table = self.table.iloc[positions].reset_index(drop=True)
        return StoredFields(places, table, self.channels, self.centre, self._stores)

    def read_one(self, row: int) -> NDArray[np.uint8]:
        """Read one field, verifying its digest; safe to call from several threads.

        Returns:
            uint8, shape (channels, centre, centre).

        Raises:
            IntegrityError: The store is absent or damaged, or the pixels are not the ones that were recorded.
        """
        image = self._verified(row)
        if image is None:
            raise IntegrityError("A field is not the one that was ingested.", [_other_pixels(self.places[row])])
        return image

    def read(self, rows: Sequence[int], *, threads: int) -> NDArray[np.uint8]:
        """Read fields in parallel.

        Args:
            rows: Fields, in the order wanted.
            threads: Threads that read; decoding and hashing release the interpreter lock.

        Returns:
            uint8, shape (rows, channels, centre, centre).

        Raises:
            IntegrityError: A store is absent or damaged, or fields are not the ones that were recorded: all of them
                together.
        """
        images = np.zeros((len(rows), *self.shape[1:]), dtype=np.uint8)

        def fill(number: int) -> Problem | None:
            image = self._verified(rows[number])
            if image is None:
                return _other_pixels(self.places[rows[number]])
            images[number] = image
            return None

        with ThreadPoolExecutor(threads) as pool:
            problems = [problem for problem in pool.map(fill, range(len(rows))) if problem is not None]
        raise_if_any(IntegrityError, f"{len(problems)} fields are not the ones that were ingested.", problems[:20])
        return images

    def _verified(self, row: int) -> NDArray[np.uint8] | None:
        place = self.places[row]
        pixels = self._stores.read(place)
        if hashlib.sha256(pixels.data).hexdigest() != place.sha256:
            return None
        image = np.zeros(self.shape[1:], dtype=np.uint8)
        for channel, stain in enumerate(self.channels):
            crop_centre(pixels[place.stains.index(stain)], image[channel])
        return image


def _other_pixels(place: Place) -> Problem:
    """Return the problem of a field whose pixels are not the ones that were recorded."""
    where = f"{place.store}, field {place.image_id}"
    return Problem(where, "other pixels", f"pixels with the SHA-256 {place.sha256}", REMEDY)


def crop_centre(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Copy the middle of an image into the middle of a square target; what it does not cover stays as it is."""
    source, place = [], []
    for have, want in zip(image.shape, target.shape, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        place.append(slice((want - size) // 2, (want - size) // 2 + size))
    target[tuple(place)] = image[tuple(source)]
