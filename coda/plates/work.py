"""The two passes over the fields of a plate, as worker processes run them.

Pass 1 sums the raw images and their histograms; pass 2 corrects, reduces and encodes each field and computes its
quality statistics. Between them decoded fields lie on local disk as far as it is allowed, never in memory; the others
are read again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Ingest
from coda.plates.compress import compress_field, preview
from coda.plates.illumination import PlateIllumination, PlateSums
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, read_fields
from coda.plates.resample import resample
from coda.plates.scratch import Scratch
from coda.plates.store import checksum, encode
from coda.quality.stats import QC_PREFIX, field_statistics

PREVIEW_SIDE = 256


@dataclass(frozen=True)
class SumTask:
    """A share of a plate's fields for pass 1; its first `kept` fields are kept in the scratch folder."""

    plate: PlateJob
    jobs: tuple[FieldJob, ...]
    scratch: Scratch | None = None
    kept: int = 0


@dataclass(frozen=True)
class SumResult:
    """What pass 1 gives back; faults are (position in the task, reason)."""

    sums: PlateSums
    faults: tuple[tuple[int, SetAsideError], ...]


@dataclass(frozen=True)
class CompressTask:
    """A share of a plate's fields for pass 2.

    Attributes:
        plate: The plate.
        jobs: The fields.
        light: Its illumination and percentiles.
        gains: File (npy, float32, channels x height x width) with what images are multiplied by; None for nothing.
        params: Percentiles.
        factor: Scaling factor.
        bit_depth: Bits of the camera.
        nuclei: Channel whose nuclei are counted, None where there is none.
        shown: Positions in `jobs` of fields to make small pictures of.
        scratch: Where decoded fields may lie.
    """

    plate: PlateJob
    jobs: tuple[FieldJob, ...]
    light: PlateIllumination
    gains: Path | None
    params: Ingest
    factor: float
    bit_depth: int
    nuclei: str | None
    shown: frozenset[int]
    scratch: Scratch | None = None


@dataclass(frozen=True)
class Example:
    """One field before and after correction, uint8 (channels, height, width), at most 256 pixels a side."""

    raw: NDArray[np.uint8]
    corrected: NDArray[np.uint8]


@dataclass(frozen=True)
class CompressedField:
    """One field ready for the store."""

    chunk: bytes
    shape: tuple[int, int, int]
    sha256: str
    crc32c: int
    statistics: dict[str, float]
    example: Example | None


def sum_fields(task: SumTask) -> SumResult:
    """Run pass 1 over a share of fields; a field counts whole or not at all."""
    sums = PlateSums(len(task.plate.channels), task.plate.shape)
    faults = []
    for position, images in enumerate(read_fields(task.plate, task.jobs)):
        if isinstance(images, SetAsideError):
            faults.append((position, images))
            continue
        sums.add(images)
        if task.scratch is not None and position < task.kept:
            task.scratch.keep(task.jobs[position].name, images)
    return SumResult(sums, tuple(faults))


def compress_fields(task: CompressTask) -> list[CompressedField | SetAsideError]:
    """Run pass 2 over a share of fields; one result for each, in order."""
    gains = None if task.gains is None else np.load(task.gains, mmap_mode="r", allow_pickle=False)
    return [
        images if isinstance(images, SetAsideError) else _compress(task, position, images, gains)
        for position, images in enumerate(_decoded(task))
    ]


def _decoded(task: CompressTask) -> Iterator[list[NDArray[np.uint16]] | SetAsideError]:
    """Yield the fields from the scratch folder, and from the delivery those that are not there."""
    for kept, jobs in groupby(task.jobs, key=lambda job: task.scratch is not None and task.scratch.has(job.name)):
        group = list(jobs)
        if not kept or task.scratch is None:
            yield from read_fields(task.plate, group)
            continue
        for job in group:
            images = task.scratch.take(job.name)
            yield images if images is not None else next(read_fields(task.plate, [job]))


def _compress(
    task: CompressTask, position: int, images: list[NDArray[np.uint16]], gains: NDArray[np.float32] | None
) -> CompressedField:
    if task.plate.prepared:
        pixels = np.stack(images).astype(np.uint8)
    else:
        pixels = compress_field(images, gains, task.light.high, task.params, task.factor)
    raw = dict(zip(task.plate.channels, images, strict=True))
    statistics = field_statistics(raw, bit_depth=task.bit_depth, nuclei=task.nuclei)
    example = _example(images, pixels, task.light) if position in task.shown else None
    channels, height, width = pixels.shape
    chunk = encode(pixels)
    return CompressedField(
        chunk=chunk,
        shape=(channels, height, width),
        sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
        crc32c=checksum(chunk),
        statistics={f"{QC_PREFIX}{name}": value for name, value in statistics.items()},
        example=example,
    )


def _example(
    images: Sequence[NDArray[np.uint16]], pixels: NDArray[np.uint8], illumination: PlateIllumination
) -> Example:
    height, width = pixels.shape[1:]
    factor = min(1.0, PREVIEW_SIDE / max(height, width))
    shape = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = [np.rint(resample(plane.astype(np.float32), shape)).astype(np.uint8) for plane in pixels]
    return Example(preview(images, illumination.low, illumination.high, shape), np.stack(small))
