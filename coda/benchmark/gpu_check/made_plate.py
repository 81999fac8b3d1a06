"""A plate to measure with: made in seconds from numbers, as hard to shrink as a real one, stored as ingest stores it.

Scenes of smooth light and camera noise are made once; a field is one of the scenes and one of the noises, each shifted
by its own amount. A stored field takes 0.81 of its pixels' bytes, one of a real plate 0.79 (decision 0048), and is
decoded about as fast; what it took on a machine is a part of the result.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.gpu_check.check_plan import Size
from coda.contracts.channels import STAINS
from coda.contracts.fields import METADATA_COLUMNS
from coda.durable import write_durably
from coda.plates.fieldset import FieldSet
from coda.plates.layout import FORMATS, well_name
from coda.plates.store import PlateStoreWriter, checksum, encode
from coda.plates.store import StoredField as Encoded
from coda.plates.stored import Place, StoredFields, crop_centre

Pixels = NDArray[np.uint8]

SCENES, BLUR_PX, DARK, BRIGHT, NOISE = 8, 12.0, 18.0, 22.0, 4.0
FORMAT = 384


class MadePlate:
    """The fields of one plate; the same numbers on every machine."""

    def __init__(self, size: Size, centre: int, folder: Path) -> None:
        """Keep what the plate is.

        Args:
            size: Wells, sites and edge of a field.
            centre: Edge of the square that training sees (``crops.centre``).
            folder: Where the plate store is written and found again.
        """
        self.size, self.centre = size, centre
        self._folder = folder / f"plate-{size.name}"
        self.threads = len(os.sched_getaffinity(0))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The field index: every sixth well a control, every compound in two wells."""
        rows = [self._row(number) for number in range(self.size.fields)]
        return pd.DataFrame(rows, columns=["image_id", *METADATA_COLUMNS.values()])

    @cached_property
    def memory(self) -> FieldSet:
        """The centres of all fields in memory."""
        pool = np.zeros((self.size.fields, len(STAINS), self.centre, self.centre), dtype=np.uint8)

        def fill(number: int) -> None:
            for stain, image in enumerate(self.field(number)):
                crop_centre(image, pool[number, stain])

        with ThreadPoolExecutor(self.threads) as workers:
            list(workers.map(fill, range(self.size.fields)))
        return FieldSet(pool, self.table, STAINS)

    @cached_property
    def stored(self) -> StoredFields:
        """The same fields in a plate store, which is written if it is not there."""
        path, listed = self._folder / "plate.ome.zarr.zip", self._folder / "places.json"
        if not listed.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            # its list is written last: a store without one was cut short
            write_durably(listed, json.dumps(list(self._write(path))).encode())
        shape = (len(STAINS), self.size.side, self.size.side)
        kept = json.loads(listed.read_bytes())
        places = [
            Place(path, array, shape, STAINS, sha256, crc32c, image_id)
            for (array, sha256, crc32c), image_id in zip(kept, self.table["image_id"], strict=True)
        ]
        return StoredFields(tuple(places), self.table, STAINS, self.centre)

    def field(self, number: int) -> Pixels:
        """Return a whole field, shape (stains, side, side)."""
        lights, noises = self._scenes
        shifts = np.random.default_rng([1, number]).integers(0, self.size.side, 4).tolist()
        light = np.roll(lights[number % SCENES], shifts[:2], axis=(1, 2))
        noise = np.roll(noises[number // SCENES % SCENES], shifts[2:], axis=(1, 2))
        return np.asarray(np.clip(light + noise, 0, 255), dtype=np.uint8)

    @cached_property
    def _scenes(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        side, rng = self.size.side, np.random.default_rng(0)
        frequency = np.hypot(np.fft.rfftfreq(side)[None, :], np.fft.fftfreq(side)[:, None])
        blur = np.exp(-2 * (np.pi * BLUR_PX * frequency) ** 2)
        white = rng.standard_normal((SCENES, len(STAINS), side, side))
        smooth = np.fft.irfft2(np.fft.rfft2(white) * blur, s=(side, side))
        smooth /= smooth.std(axis=(-2, -1), keepdims=True)
        lights = DARK + BRIGHT * np.exp(0.8 * smooth)
        noises = NOISE * rng.standard_normal(lights.shape)
        return np.rint(lights).astype(np.int16), np.rint(noises).astype(np.int16)

    def _row(self, number: int) -> dict[str, Any]:
        well, site = divmod(number, self.size.sites)
        control = well % 6 == 5
        name = "DMSO" if control else f"compound_{well // 12 * 5 + well % 6}"
        row = {
            "source": "made", "batch": "b1", "plate": "p1", "well": well_name(*_place(well)), "site": site,
            "treatment": name, "compound": name, "pert_type": "negcon" if control else "trt", "dose_um": 1.0,
            "pixel_size_um": 1.2, "instrument": "made",
        }  # fmt: skip
        values = {METADATA_COLUMNS[key]: value for key, value in row.items()}
        return {"image_id": f"made/b1/p1/{row['well']}/{site}", **values}

    def _write(self, path: Path) -> Iterator[tuple[str, str, int]]:
        """Write the store; yield array, SHA-256 and checksum of each field."""
        pixel = (1.2, 1.2)
        with (
            PlateStoreWriter(path, "p1", FORMAT, STAINS, pixel, {"made_for": "gpu_check"}) as writer,
            ThreadPoolExecutor(self.threads) as workers,
        ):
            # a few at a time: encoded fields must not pile up before the one that writes
            every = range(self.size.fields)
            for first in range(0, len(every), 4 * self.threads):
                for field, digest in workers.map(self._encoded, every[first : first + 4 * self.threads]):
                    yield writer.add(field), digest, checksum(field.chunk)

    def _encoded(self, number: int) -> tuple[Encoded, str]:
        pixels = self.field(number)
        well, site = divmod(number, self.size.sites)
        shape = (len(STAINS), self.size.side, self.size.side)
        return Encoded(_place(well), site, shape, encode(pixels)), hashlib.sha256(pixels.tobytes()).hexdigest()


def _place(well: int) -> tuple[int, int]:
    return divmod(well, FORMATS[FORMAT][1])
