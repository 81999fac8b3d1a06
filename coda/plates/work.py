"""The two passes over the fields of a plate, as worker processes run them.

Pass 1 sums the raw images and their histograms; pass 2 corrects, reduces and encodes each field and computes its
quality statistics. Between them decoded fields lie on local disk as far as it is allowed, never in memory; the others
are read again.

Where the light of a plate is known before, one pass does nearly all: it counts grey values and encodes each field as if
the plate's high percentile did not matter. It does for few: those with an image that is brighter are encoded once more.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Ingest
from coda.plates.compress import preview, stretched
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
class Making:
    """How the fields of a plate are made.

    Attributes:
        plate: The plate.
        gains: File (npy, float32, channels x height x width) with what images are multiplied by; None for nothing.
        params: Percentiles.
        factor: Scaling factor.
        bit_depth: Bits of the camera.
        nuclei: Channel whose nuclei are counted, None where there is none.
    """

    plate: PlateJob
    gains: Path | None
    params: Ingest
    factor: float
    bit_depth: int
    nuclei: str | None

    def opened(self) -> NDArray[np.float32] | None:
        """Return the gains; processes share the memory they lie in."""
        return None if self.gains is None else np.load(self.gains, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class DraftTask:
    """A share of fields for the pass over a plate whose light is known; its first `kept` fields are kept as drafts."""

    making: Making
    jobs: tuple[FieldJob, ...]
    scratch: Scratch | None
    kept: int


@dataclass(frozen=True)
class CompressTask:
    """A share of a plate's fields for pass 2.

    Attributes:
        making: How they are made.
        jobs: The fields.
        light: Illumination and percentiles of the plate.
        shown: Positions in `jobs` of fields to make small pictures of.
        scratch: Where decoded fields may lie.
    """

    making: Making
    jobs: tuple[FieldJob, ...]
    light: PlateIllumination
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
    example: Example | None = None


@dataclass(frozen=True)
class Draft:
    """A field that was encoded before the plate's high percentile was known.

    Attributes:
        field: The field; its chunk lies in the scratch folder.
        highs: Grey value up to which each image was stretched; empty where none was.
    """

    field: CompressedField
    highs: tuple[float, ...]

    def stands(self, light: PlateIllumination) -> bool:
        """Return whether the plate's percentiles, known now, change nothing about it."""
        return all(high <= limit for high, limit in zip(self.highs, light.high if self.highs else (), strict=True))


@dataclass(frozen=True)
class DraftResult:
    """What the pass gives back: grey values, faults as in pass 1, and by position the drafts that were kept."""

    sums: PlateSums
    faults: tuple[tuple[int, SetAsideError], ...]
    drafts: dict[int, Draft]


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
    gains = task.making.opened()
    results: list[CompressedField | SetAsideError] = []
    for position, images in enumerate(_decoded(task)):
        if isinstance(images, SetAsideError):
            results.append(images)
            continue
        made, pixels, _ = _make(task.making, images, gains, task.light.high)
        shown = position in task.shown
        results.append(replace(made, example=_example(images, pixels, task.light)) if shown else made)
    return results


def draft_name(job: FieldJob) -> str:
    """Return the name of a field's draft in the scratch folder."""
    return f"{job.name}.draft"


def draft_fields(task: DraftTask) -> DraftResult:
    """Run the one pass over a share of fields of a plate whose light is known; a field counts whole or not at all."""
    plate = task.making.plate
    gains = task.making.opened()
    sums = PlateSums(len(plate.channels), plate.shape, images=False)
    faults, drafts = [], {}
    for position, images in enumerate(read_fields(plate, task.jobs)):
        if isinstance(images, SetAsideError):
            faults.append((position, images))
            continue
        sums.add(images)
        if task.scratch is None or position >= task.kept:
            continue
        made, _, highs = _make(task.making, images, gains, np.full(len(images), np.inf))
        if task.scratch.put(draft_name(task.jobs[position]), made.chunk):
            drafts[position] = Draft(replace(made, chunk=b""), highs)
    return DraftResult(sums, tuple(faults), drafts)


def _decoded(task: CompressTask) -> Iterator[list[NDArray[np.uint16]] | SetAsideError]:
    """Yield the fields from the scratch folder, and from the delivery those that are not there."""
    for kept, jobs in groupby(task.jobs, key=lambda job: task.scratch is not None and task.scratch.has(job.name)):
        group = list(jobs)
        if not kept or task.scratch is None:
            yield from read_fields(task.making.plate, group)
            continue
        for job in group:
            images = task.scratch.take(job.name)
            yield images if images is not None else next(read_fields(task.making.plate, [job]))


def _make(
    making: Making, images: list[NDArray[np.uint16]], gains: NDArray[np.float32] | None, high: NDArray[np.float64]
) -> tuple[CompressedField, NDArray[np.uint8], tuple[float, ...]]:
    """Return a field for the store, its pixels, and the grey values up to which its images were stretched."""
    highs: tuple[float, ...] = ()
    if making.plate.prepared:
        pixels = np.stack(images).astype(np.uint8)
    else:
        pixels, highs = stretched(images, gains, high, making.params, making.factor)
    raw = dict(zip(making.plate.channels, images, strict=True))
    statistics = field_statistics(raw, bit_depth=making.bit_depth, nuclei=making.nuclei)
    channels, height, width = pixels.shape
    chunk = encode(pixels)
    made = CompressedField(
        chunk=chunk,
        shape=(channels, height, width),
        sha256=hashlib.sha256(pixels.data).hexdigest(),
        crc32c=checksum(chunk),
        statistics={f"{QC_PREFIX}{name}": value for name, value in statistics.items()},
    )
    return made, pixels, highs


def _example(
    images: Sequence[NDArray[np.uint16]], pixels: NDArray[np.uint8], illumination: PlateIllumination
) -> Example:
    height, width = pixels.shape[1:]
    factor = min(1.0, PREVIEW_SIDE / max(height, width))
    shape = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = [np.rint(resample(plane.astype(np.float32), shape)).astype(np.uint8) for plane in pixels]
    return Example(preview(images, illumination.low, illumination.high, shape), np.stack(small))
