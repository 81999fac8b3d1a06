"""The classical profile of a field: intensity, texture, granularity, shape, and correlation between its stains.

What image cytometry has measured for decades, of whole fields and without a weight that was learned (decision 0046). It
stands where a network's tokens stand: a field has one crop (all of it) with one token (its profile).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VERSION = "profile-1"
"""Name of what is measured and in which order; heads record it, and whoever changes a number below changes it."""

PERCENTILES = (5, 25, 50, 75, 95, 99)
DISTANCES = (1, 4)
"""Pixels between the two of a pair whose grey levels are compared."""

LEVELS = 16
"""Grey levels of textures: 256 of a stored pixel, 16 to each."""

SCALES = 4
"""Halvings of a picture whose share of the variance is told: structures of about 2, 4, 8 and 16 pixels."""

SMALLEST = 4
"""Pixels of the halved picture that an object has at least; what is smaller counts as noise."""

INTENSITY = ("mean", "sd", "skewness", *(f"p{number}" for number in PERCENTILES))
TEXTURE = ("contrast", "correlation", "energy", "homogeneity", "entropy")
SHAPE = ("foreground", "objects", "object_area", "object_area_sd", "elongation", "object_contrast")
BETWEEN = ("correlation", "coarse_correlation")

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def feature_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a profile's numbers, in order: those of each stain, then those of each pair of stains."""
    own = (
        *INTENSITY,
        *(f"{name}_{distance}px" for distance in DISTANCES for name in TEXTURE),
        *(f"granularity_{2 ** (scale + 1)}px" for scale in range(SCALES)),
        *SHAPE,
    )
    single = [f"{channel}: {name}" for channel in channels for name in own]
    return (*single, *(f"{one} and {other}: {name}" for one, other in combinations(channels, 2) for name in BETWEEN))


class Profile:
    """Stands where an extractor stands, and gives a field's profile as its only token.

    Attributes:
        config: Config of the extractor of the same release: its stains, crops and preparation are the profile's too.
    """

    pool: Literal["mean"] = "mean"

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take over what an extractor's folder records of the fields; its weights are not used."""
        self.config = dict(config)

    @property
    def channels(self) -> tuple[str, ...]:
        """Stains along the channel axis of the input."""
        return tuple(self.config["channels"])

    @property
    def width(self) -> int:
        """Numbers of a profile."""
        return len(feature_names(self.channels))


def profile_of(image: Pixels) -> Floats:
    """Measure one field.

    Args:
        image: Stored pixels, shape (channels, height, width); any number of stains and any size, constant pictures too.

    Returns:
        Finite numbers, in the order of `feature_names`. What cannot be told of a picture (objects where nothing stands
        out, pairs of pixels where there is one pixel) is the value that a constant picture has.
    """
    own, pyramids = [], []
    for channel in image:
        pyramid = _halvings(channel)
        own += [*_intensity(channel), *_textures(channel), *_granularity(pyramid), *_shape(channel)]
        pyramids.append(pyramid)
    pairs = [
        _correlation(pyramids[one][depth], pyramids[other][depth])
        for one, other in combinations(range(len(image)), 2)
        for depth in (0, min(2, len(pyramids[one]) - 1))
    ]
    return np.array([*own, *pairs], dtype=np.float64)


def _intensity(channel: Pixels) -> list[float]:
    # 256 counts hold all that is asked for, whatever the size of the picture
    share = np.bincount(channel.reshape(-1), minlength=256) / channel.size
    levels = np.arange(256.0)
    mean = float(share @ levels)
    sd = float(np.sqrt(share @ (levels - mean) ** 2))
    skewness = float(share @ ((levels - mean) / sd) ** 3) if sd > 0 else 0.0
    places = np.searchsorted(np.cumsum(share) + 1e-12, np.asarray(PERCENTILES) / 100)
    return [mean, sd, skewness, *np.minimum(places, 255).astype(np.float64).tolist()]


def _textures(channel: Pixels) -> list[float]:
    """Return Haralick's features of the co-occurrence of grey levels, right and down together."""
    levels = (channel // (256 // LEVELS)).astype(np.intp)
    numbers: list[float] = []
    for distance in DISTANCES:
        codes = [
            (one * LEVELS + other).reshape(-1)
            for one, other in (
                (levels[:, :-distance], levels[:, distance:]),
                (levels[:-distance], levels[distance:]),
            )
        ]
        counts = np.bincount(np.concatenate(codes), minlength=LEVELS**2).reshape(LEVELS, LEVELS)
        numbers += _haralick((counts + counts.T).astype(np.float64))
    return numbers


def _haralick(counts: Floats) -> list[float]:
    if not counts.any():
        return [0.0, 1.0, 1.0, 1.0, 0.0]
    share = counts / counts.sum()
    rows, columns = np.indices(share.shape)
    apart = (rows - columns) ** 2.0
    level = np.arange(float(LEVELS))
    mean = float(share.sum(axis=1) @ level)
    variance = float(share.sum(axis=1) @ (level - mean) ** 2)
    together = float(np.sum(share * (rows - mean) * (columns - mean)))
    some = share[share > 0]
    return [
        float(np.sum(share * apart)),
        together / variance if variance > 0 else 1.0,
        float(np.sum(share**2)),
        float(np.sum(share / (1 + apart))),
        float(-np.sum(some * np.log2(some))) + 0.0,
    ]


def _halvings(channel: Pixels) -> list[Floats]:
    """Return the picture and its halvings, means of two by two pixels, as long as there is a pixel."""
    found = [channel.astype(np.float64)]
    while len(found) <= SCALES and min(found[-1].shape) > 1:
        last = found[-1]
        even = last[: len(last) // 2 * 2, : last.shape[1] // 2 * 2]
        found.append((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)
    return found


def _granularity(pyramid: Sequence[Floats]) -> list[float]:
    """Return the share of the picture's variance that each halving takes away; 0 where nothing is left to halve."""
    variances = [float(part.var()) for part in pyramid]
    total = variances[0]
    lost = [(one - other) / total if total > 0 else 0.0 for one, other in pairwise(variances)]
    return [*lost, *[0.0] * (SCALES - len(lost))]


def _shape(channel: Pixels) -> list[float]:
    """Return what stands out of the background by Otsu's threshold on the halved picture."""
    from scipy import ndimage  # not with the module: a GPU is checked on few packages

    small = _halved(channel)
    threshold = otsu(np.bincount(small.reshape(-1), minlength=256))
    mask = small > threshold
    if not mask.any():
        return [0.0] * len(SHAPE)
    contrast = float(small[mask].mean() - small[~mask].mean())
    labels, count = ndimage.label(mask)
    flat = labels.reshape(-1)
    area = np.bincount(flat, minlength=count + 1)[1:].astype(np.float64)
    kept = area >= SMALLEST
    if not kept.any():
        return [float(mask.mean()), 0.0, 0.0, 0.0, 0.0, contrast]
    logarithm = np.log(area[kept])
    elongation = _elongations(labels, area)[kept]
    return [
        float(mask.mean()),
        float(kept.sum()) / small.size * 1e4,
        float(logarithm.mean()),
        float(logarithm.std()),
        float(elongation.mean()),
        contrast,
    ]


def _halved(channel: Pixels) -> Pixels:
    if min(channel.shape) < 2:
        return channel
    even = channel[: len(channel) // 2 * 2, : channel.shape[1] // 2 * 2].astype(np.uint16)
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) // 4).astype(np.uint8)


def _elongations(labels: NDArray[np.int32], area: Floats) -> Floats:
    """Return 1 - minor/major axis of each object (0 round, towards 1 a line), from its second moments."""
    rows, columns = np.indices(labels.shape)
    flat, y, x = labels.reshape(-1), rows.reshape(-1).astype(np.float64), columns.reshape(-1).astype(np.float64)

    def mean(values: Floats) -> Floats:
        return np.bincount(flat, weights=values, minlength=len(area) + 1)[1:] / area

    cy, cx = mean(y), mean(x)
    dy, dx = y - np.append(0.0, cy)[flat], x - np.append(0.0, cx)[flat]
    # a pixel is a square, not a point: its own second moment keeps a line of pixels from having no width
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dx * dy)
    half, spread = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return np.asarray(1 - np.sqrt(np.maximum(half - spread, 0) / (half + spread)))


def otsu(counts: NDArray[np.int64]) -> int:
    """Return the grey level above which pixels stand out (Otsu 1979): the largest variance between the two sides.

    Returns:
        The smallest of the best levels; the highest level of a constant picture, above which nothing is.
    """
    some = np.flatnonzero(counts)
    if len(some) < 2:
        return int(some[-1]) if len(some) else 0
    levels = np.arange(len(counts), dtype=np.float64)
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    weighted = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weighted / below - (weighted[-1] - weighted) / above) ** 2
    return int(np.argmax(np.where((below > 0) & (above > 0), between, -1.0)))


def _correlation(one: Floats, other: Floats) -> float:
    """Return Pearson's correlation of the pixels of two stains; 0 where one of them is constant."""
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else 0.0
