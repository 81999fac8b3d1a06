"""The two passes over the fields of a plate, as worker processes run them.

Pass 1 sums the raw images and their histograms; pass 2 corrects, reduces and encodes each field and computes its
quality statistics. Files are read in both passes: memory then does not grow with the plate.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Ingest
from coda.plates.compress import compress_field, preview
from coda.plates.illumination import PlateIllumination, PlateSums
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, read_field
from coda.plates.resample import resample
from coda.plates.store import encode
from coda.quality.stats import QC_PREFIX, field_statistics

PREVIEW_SIDE = 256


@dataclass(frozen=True)
class SumTask:
    """A share of a plate's fields for pass 1."""

    plate: PlateJob
    jobs: tuple[FieldJob, ...]


@dataclass(frozen=True)
class SumResult:
    """What pass 1 gives back; faults are (position in the task, reason)."""

    sums: PlateSums
    faults: tuple[tuple[int, SetAsideError], ...]


@dataclass(frozen=True)
class CompressTask:
    """A share of a plate's fields for pass 2; `shown` are positions in the task to make small pictures of."""

    plate: PlateJob
    jobs: tuple[FieldJob, ...]
    illumination: PlateIllumination
    params: Ingest
    bit_depth: int
    shown: frozenset[int]


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
    statistics: dict[str, float]
    example: Example | None


def sum_fields(task: SumTask) -> SumResult:
    """Run pass 1 over a share of fields; a field counts whole or not at all."""
    sums = PlateSums(len(task.plate.channels), task.plate.shape)
    faults = []
    for position, job in enumerate(task.jobs):
        try:
            sums.add(read_field(task.plate, job))
        except SetAsideError as fault:
            faults.append((position, fault))
    return SumResult(sums, tuple(faults))


def compress_fields(task: CompressTask) -> list[CompressedField | SetAsideError]:
    """Run pass 2 over a share of fields; one result for each, in order."""
    gains = None if task.illumination.origin != "estimated" else np.float32(1) / task.illumination.full()
    return [_compress(task, position, job, gains) for position, job in enumerate(task.jobs)]


def _compress(
    task: CompressTask, position: int, job: FieldJob, gains: NDArray[np.float32] | None
) -> CompressedField | SetAsideError:
    try:
        images = read_field(task.plate, job)
    except SetAsideError as fault:
        return fault
    pixels = compress_field(images, gains, task.illumination.high, task.params)
    raw = dict(zip(task.plate.channels, images, strict=True))
    statistics = field_statistics(raw, bit_depth=task.bit_depth)
    example = _example(images, pixels, task.illumination) if position in task.shown else None
    channels, height, width = pixels.shape
    return CompressedField(
        chunk=encode(pixels),
        shape=(channels, height, width),
        sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
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
