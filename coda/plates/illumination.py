"""Illumination of a plate: sums over its fields, the correction function, and the plate's percentiles.

After DeepProfiler's `prepare`: the mean image of a plate and channel, reduced and median-filtered, is its illumination
function; floored at its own low percentile and divided by it, so that it is 1 or more everywhere. Sums and histograms
are whole numbers: the result does not depend on how the fields were shared among processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from coda.config.params import Illumination
from coda.plates.resample import resample, scaled_shape

LEVELS = 2**16
MOST_IN_32_BITS = (2**32 - 1) // (LEVELS - 1)
Origin = Literal["estimated", "given", "earlier", "off", "too_few_fields", "prepared"]
"""Where a plate's illumination function came from, or why its images were left as they are."""


class PlateSums:
    """Sums of raw images and histograms of grey values, by channel.

    Attributes:
        shape: Height and width of an image.
        count: Fields added.
        total: Sum of the images, shape (channels, height, width); uint32 while that is sure to hold it, then uint64.
            Empty, (channels, 0, 0), where nobody asked for it.
        histogram: Pixels of each grey value, int64, shape (channels, 65536).
    """

    def __init__(self, channels: int, shape: tuple[int, int], *, images: bool = True) -> None:
        """Start with nothing added; without `images` only grey values are counted."""
        self.shape = shape
        self.count = 0
        self.total: NDArray[np.uint32] | NDArray[np.uint64] = np.zeros(
            (channels, *(shape if images else (0, 0))), dtype=np.uint32
        )
        self.histogram: NDArray[np.int64] = np.zeros((channels, LEVELS), dtype=np.int64)

    def add(self, images: Sequence[NDArray[np.uint16]]) -> None:
        """Add one field: an image (height, width) for each channel, in order."""
        self._make_room(1)
        for channel, image in enumerate(images):
            if self.total.size:
                self.total[channel] += image
            self.histogram[channel] += np.bincount(image.ravel(), minlength=LEVELS)
        self.count += 1

    def merge(self, other: "PlateSums") -> None:
        """Add the fields that another process has summed."""
        self._make_room(other.count)
        self.count += other.count
        self.total += other.total
        self.histogram += other.histogram

    def _make_room(self, more: int) -> None:
        if self.count + more > MOST_IN_32_BITS and self.total.dtype == np.uint32:
            self.total = self.total.astype(np.uint64)


@dataclass(frozen=True)
class PlateIllumination:
    """What pass 2 needs to know about a plate.

    Attributes:
        function: Reduced illumination function divided by its floor, float32, shape (channels, rows, columns). Values
            under 1 occur; an estimated one is cut at 1 when it is used.
        low: Grey value under which 0.01 % of the plate's pixels lie, by channel, float64.
        high: The plate's high percentile, by channel, float64: no image is stretched beyond it.
        shape: Height and width of the raw images.
        fields: Number of fields it was estimated from.
        origin: Where the function came from.
    """

    function: NDArray[np.float32]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shape: tuple[int, int]
    fields: int
    origin: Origin

    @property
    def corrects(self) -> bool:
        """Whether images are divided by anything."""
        return self.origin in {"estimated", "given", "earlier"}

    def full(self) -> NDArray[np.float32]:
        """Return an estimated function at the size of raw images, (channels, height, width), 1 or more everywhere."""
        return enlarged(self.function, self.shape)


@dataclass(frozen=True)
class KnownLight:
    """What a plate's images are divided by, where that is known before any of them is read.

    Attributes:
        divisor: Function at the size of raw images, float32, (channels, height, width); None where nothing is divided.
        function: As `PlateIllumination.function`.
        origin: Where it came from.
    """

    divisor: NDArray[np.float32] | None
    function: NDArray[np.float32]
    origin: Origin


def enlarged(function: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an estimated function, (channels, rows, columns), at the size of raw images, 1 or more everywhere."""
    return np.stack([np.maximum(resample(plane, shape), np.float32(1)) for plane in function])


def estimate(sums: PlateSums, params: Illumination, *, high_percentile: float) -> PlateIllumination:
    """Return the illumination of a plate, estimated from its sums.

    Args:
        sums: All readable fields of the plate, at least one.
        params: Reduction, filter and floor; the function is 1 when it is not enabled or the fields are too few.
        high_percentile: The plate's high percentile, in [0, 100].
    """
    small = _reduced_shape(sums.shape, params)
    origin: Origin = (
        "off" if not params.enabled else "estimated" if sums.count >= params.min_fields else "too_few_fields"
    )
    function = np.ones((len(sums.total), *small), dtype=np.float32)
    if origin == "estimated":
        for channel, total in enumerate(sums.total):
            function[channel] = _function(total, sums.count, small, params)
    return described(sums, function, origin, high_percentile)


def taken(given: NDArray[np.float32], params: Illumination) -> KnownLight:
    """Return the light of a plate whose functions were delivered, (channels, height, width)."""
    small = _reduced_shape((int(given.shape[1]), int(given.shape[2])), params)
    return KnownLight(given, np.stack([resample(plane, small) for plane in given]), "given")


def untouched(channels: int, shape: tuple[int, int], params: Illumination, origin: Origin) -> KnownLight:
    """Return the light of a plate whose images are left as they come: it changes nothing."""
    return KnownLight(None, np.ones((channels, *_reduced_shape(shape, params)), dtype=np.float32), origin)


def _reduced_shape(shape: tuple[int, int], params: Illumination) -> tuple[int, int]:
    return scaled_shape(shape, 1 / params.down_scale_factor)


def described(
    sums: PlateSums, function: NDArray[np.float32], origin: Origin, high_percentile: float
) -> PlateIllumination:
    """Return a function with the percentiles of the plate's grey values."""
    return PlateIllumination(
        function=function,
        low=np.array([_percentile(row, 0.01) for row in sums.histogram]),
        high=np.array([_percentile(row, high_percentile) for row in sums.histogram]),
        shape=sums.shape,
        fields=sums.count,
        origin=origin,
    )


def _function(
    total: NDArray[np.uint32] | NDArray[np.uint64], count: int, small: tuple[int, int], params: Illumination
) -> NDArray[np.float32]:
    mean = resample((total / count).astype(np.float32), small)
    smooth = median_of_disk(mean.astype(np.uint16), params.median_filter_size // 2).astype(np.float32)
    shape = (int(total.shape[0]), int(total.shape[1]))
    floor = max(float(np.percentile(resample(smooth, shape), params.floor_percentile)), 1.0)
    return np.asarray(smooth / np.float32(floor))


def median_of_disk(image: NDArray[np.uint16], radius: int) -> NDArray[np.uint16]:
    """Return the median around each pixel of an image, (height, width), within a radius; the edge repeats outwards.

    It is what scipy's `median_filter` gives with mode "nearest", several times as fast: numpy selects the median of
    many windows at once with vector instructions.
    """
    axis = np.arange(-radius, radius + 1)
    disk = axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2
    windows = sliding_window_view(np.pad(image, radius, mode="edge"), disk.shape)
    middle = int(disk.sum()) // 2
    result = np.empty_like(image)
    for row, across in enumerate(windows):
        inside = across[:, disk]
        inside.partition(middle, axis=1)
        result[row] = inside[:, middle]
    return result


def _percentile(histogram: NDArray[np.int64], percent: float) -> float:
    """Return the first grey value whose cumulative share exceeds the percentage."""
    cumulative = np.cumsum(histogram)
    return float(min(np.searchsorted(cumulative, percent / 100 * cumulative[-1], side="right"), LEVELS - 1))
