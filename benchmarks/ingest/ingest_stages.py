"""What each stage of ingest takes for a field, and what the codecs and the disk alone would take."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest.ingest_delivery import Delivered
from coda.config.params import Ingest
from coda.contracts.channels import STAINS
from coda.plates.batch_files import LocalFiles
from coda.plates.compress import compress_field
from coda.plates.illumination import PlateSums, estimate
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, read_fields
from coda.plates.scratch import Scratch
from coda.plates.store import PlateStoreWriter, StoredField, encode
from coda.quality.stats import field_statistics

Field = list[NDArray[np.uint16]]

OURS = ("read", "illumination", "scratch", "correct", "compress", "write", "statistics")
"""Stages: fetch, verify and decode; sums; to the scratch disk and back; divide, reduce, stretch; encode and hash; put
into the store; quality statistics."""

CODECS = ("LZW", "scratch lz4", "store lz4", "disk")


TICK_S = 1e-6
"""Shortest time that is reported: the clock of a process may not have moved at all."""


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one core for a field.

    Attributes:
        ours: By stage of `OURS`.
        codecs: By codec of `CODECS`, each alone on bytes in memory; 'disk' is the time to write a field's chunk and
            have it on the disk.
        pixels: uint8, (channels, height, width) of each field: what is stored.
        stored_bytes: Bytes of a field in the store, on average.
    """

    ours: dict[str, float]
    codecs: dict[str, float]
    pixels: list[NDArray[np.uint8]]
    stored_bytes: float


class _Clock:
    """Adds up CPU seconds of all threads of this process by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.spent = dict.fromkeys(names, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.spent[name] += time.process_time() - begin

    def each(self, count: int) -> dict[str, float]:
        return {name: max(spent, TICK_S) / count for name, spent in self.spent.items()}


def time_stages(delivered: Delivered, folder: Path, params: Ingest) -> StageTimes:
    """Take the delivery's different fields through all stages once, in this process.

    Args:
        delivered: What is measured on.
        folder: For scratch and store; on the disk that is meant.
        params: Ingest parameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock = _Clock(OURS)
    job, jobs = _jobs(delivered, params)
    with clock("read"):
        fields = [item for item in read_fields(job, jobs) if not isinstance(item, SetAsideError)]
    sums = PlateSums(len(STAINS), job.shape)
    scratch = Scratch(folder, (len(STAINS), *job.shape))
    for item, images in zip(jobs, fields, strict=True):
        with clock("illumination"):
            sums.add(images)
        with clock("scratch"):
            scratch.keep(item.name, images)
            scratch.take(item.name)
    light = estimate(sums, params.illumination, high_percentile=params.plate_high_percentile)
    gains = np.float32(1) / light.full()
    pixels, chunks = [], []
    with PlateStoreWriter(folder / "stages.ome.zarr.zip", "p1", 384, STAINS, (1.2, 1.2), {}) as writer:
        for item, images in zip(jobs, fields, strict=True):
            with clock("correct"):
                stored = compress_field(images, gains, light.high, params, params.scaling_factor)
            with clock("compress"):
                chunk = encode(stored)
                hashlib.sha256(stored.data).hexdigest()
            channels, height, width = stored.shape
            with clock("write"):
                writer.add(StoredField(item.place, item.site, (channels, height, width), chunk))
            with clock("statistics"):
                field_statistics(dict(zip(STAINS, images, strict=True)), bit_depth=16, nuclei="DNA")
            pixels.append(stored)
            chunks.append(chunk)
    codecs = _codecs(delivered, fields, pixels, chunks, folder)
    return StageTimes(clock.each(len(fields)), codecs, pixels, float(np.mean([len(chunk) for chunk in chunks])))


def _codecs(
    delivered: Delivered,
    fields: Sequence[Field],
    pixels: Sequence[NDArray[np.uint8]],
    chunks: Sequence[bytes],
    folder: Path,
) -> dict[str, float]:
    clock = _Clock(CODECS)
    for paths, images, stored in zip(delivered.fields, fields, pixels, strict=True):
        for data in [path.read_bytes() for path in paths]:
            with clock("LZW"):
                imagecodecs.tiff_decode(data)
        raw, flat = np.stack(images).tobytes(), stored.tobytes()
        with clock("scratch lz4"):
            kept = imagecodecs.blosc_encode(
                raw, level=1, compressor="lz4", shuffle="bitshuffle", typesize=2, numthreads=1
            )
            imagecodecs.blosc_decode(bytes(kept), numthreads=1)
        with clock("store lz4"):
            imagecodecs.blosc_encode(flat, level=5, compressor="lz4", shuffle="bitshuffle", typesize=1, numthreads=1)
    begin = time.perf_counter()
    with (folder / "disk").open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    clock.spent["disk"] = time.perf_counter() - begin
    (folder / "disk").unlink()
    return clock.each(len(fields))


def _jobs(delivered: Delivered, params: Ingest) -> tuple[PlateJob, list[FieldJob]]:
    entry = delivered.manifest.plates[0]
    files = {file.path: file for file in entry.files}
    images = [path for path in files if path.startswith("images/")]
    count = len(delivered.fields)
    grouped = [images[start : start + len(STAINS)] for start in range(0, count * len(STAINS), len(STAINS))]
    jobs = [
        FieldJob(divmod(number // 9, 24), f"F{number:04d}", number % 9 + 1, tuple(files[path] for path in paths))
        for number, paths in enumerate(grouped)
    ]
    shape = (delivered.side, delivered.side)
    return PlateJob(LocalFiles(delivered.folder), entry.plate, STAINS, shape, params.max_side_px), jobs
