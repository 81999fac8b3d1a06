"""Quality statistics of one field of view: cheap numbers that tell a good picture from a bad one.

`field_statistics` is called once for every field while its raw pixels are in memory, so it must cost little beside
reading the files; all of it works on the whole stack of stains at once. The names of what it returns are
``<statistic>_<stain>`` (``p50_DNA``, ``focus_ER``), and ``corr_<stain>_<stain>`` and ``match_<stain>_<stain>`` for each
two stains (see `pair_name`); the field index carries them with the prefix ``QC_``.

====================  ============================================================================================
statistic             what it is
====================  ============================================================================================
p1 p5 p50 p95 p99     quantiles of the raw grey values (nearest sample, of a grid of at most 20,000 pixels)
mean                  mean of the raw grey values (of the reduced image)
saturation            share of pixels at the largest value the camera can deliver, in [0, 1]
near_black            share of pixels at or below 1/1024 of that value, in [0, 1]
dynamic_range         (p99 - p1) / the camera's largest value, in [0, 1]
contrast              (p99 - p5) / (p99 + p5), in [0, 1]; independent of gain and of exposure
snr                   (p99 - p5) / standard deviation of the noise (Immerkaer 1996)
focus                 slope of log power over log spatial frequency; -1 to -3 in focus, lower when blurred
foreground            share of pixels above Otsu's threshold of the reduced image, in [0, 1]
separability          Otsu's between-class share of the variance, in [0, 1]; near 1 for flat objects on a flat ground
compactness           share of the foreground whose four neighbours are foreground too, in [0, 1]
cells_<nuclei>        number of nuclei: components of the foreground of the channel with that role (`cells_DNA`), clumps
                      divided by the median area; absent where no channel has it
corr_<a>_<b>          Pearson correlation of two stains of the reduced image, evened (see `evened`), in [-1, 1]
match_<a>_<b>         how far that correlation stands out from those of shifted pictures (`coregistration`), in their
                      standard deviations: above 5 mostly for pictures of one field, -3 to 5 for those of different ones
====================  ============================================================================================

The focus measure is the power log-log slope of Bray et al. 2012 (J Biomol Screen 17, 266); Immerkaer's noise estimate
is in Computer Vision and Image Understanding 64, 300 (1996); Otsu's threshold in IEEE Trans. SMC 9, 62 (1979).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from coda.errors import ContractError, Problem
from coda.quality.coregistration import shrunk, zero_shift_scores

QC_PREFIX = "QC_"
"""What the columns of the field index put before the names of the statistics."""

STATISTICS = (
    "p1", "p5", "p50", "p95", "p99", "mean", "saturation", "near_black", "dynamic_range", "contrast", "snr", "focus",
    "foreground", "separability", "compactness",
)  # fmt: skip
"""Statistics of every stain, in the order they are returned."""

CELLS = "cells_"
"""What the number of nuclei begins with, before the channel that shows them."""

_COLUMN = re.compile(rf"{QC_PREFIX}(?P<statistic>{'|'.join(STATISTICS)})_(?P<channel>[A-Za-z0-9][A-Za-z0-9_-]*)")

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
TILE = 64
SAMPLE = 20_000
MIN_NUCLEUS_PX = 9
CLUMP = 1.75
MIN_STEP = 3.0
CLIP = 0.999
SPECKS = 0.99

Float = NDArray[np.float32]


def statistic_names(channels: tuple[str, ...], nuclei: str | None) -> tuple[str, ...]:
    """Return the names of all statistics for these stains, in the order `field_statistics` gives them."""
    names = [f"{statistic}_{stain}" for stain in channels for statistic in STATISTICS]
    names += [f"{CELLS}{nuclei}"] if nuclei in channels else []
    pairs = list(combinations(channels, 2))
    return (*names, *(pair_name(kind, a, b) for kind in ("corr", "match") for a, b in pairs))


def pair_name(kind: str, a: str, b: str) -> str:
    """Return the name of a statistic of two channels; names that hold a `_` are parted by a sign that no name holds."""
    return f"{kind}_{a}{':' if '_' in a + b else '_'}{b}"


def cells_column(columns: Iterable[object]) -> str | None:
    """Return the column of a field index that counts nuclei, None where no channel shows them."""
    return next((str(name) for name in columns if str(name).startswith(f"{QC_PREFIX}{CELLS}")), None)


def channel_of(column: str) -> tuple[str, str] | None:
    """Return (statistic, channel) of a column `QC_<statistic>_<channel>` of `STATISTICS`; None of another one."""
    found = _COLUMN.fullmatch(column)
    return (found["statistic"], found["channel"]) if found else None


def field_statistics(raw: Mapping[str, NDArray[np.uint16]], *, bit_depth: int, nuclei: str | None) -> dict[str, float]:
    """Return the quality statistics of one field of view.

    Args:
        raw: Stain -> raw grey values, uint8 or uint16, shape (height, width), the same for all stains, at least 16 px
            a side; before illumination correction.
        bit_depth: Bits the camera really delivers, 8 to 16; the largest grey value is ``2**bit_depth - 1``.
        nuclei: Channel whose nuclei are counted, if it is among them.

    Returns:
        Name -> number, as `statistic_names` lists them. All numbers are finite.

    Raises:
        ContractError: There is no stain, or the images have different shapes, or are too small.
    """
    _check(raw)
    channels = tuple(raw)
    images = list(raw.values())
    reduced = reduce_field(images)
    columns = _intensity(images, 2**bit_depth - 1)
    tiles = _tiles(images)
    span = columns["p99"] - columns["p5"]
    columns["snr"] = span / np.maximum(noise_sigma(tiles), 1e-3)
    columns["focus"] = focus_slope(tiles)
    thresholds, columns["separability"] = otsu(reduced)
    masks = reduced > thresholds[:, None, None]
    columns["mean"] = reduced.mean(axis=(1, 2), dtype=np.float64)
    columns["foreground"] = masks.mean(axis=(1, 2))
    columns["compactness"] = _compactness(masks)
    values = {f"{name}_{stain}": float(columns[name][row]) for row, stain in enumerate(channels) for name in STATISTICS}
    if nuclei in channels:
        row = channels.index(nuclei)
        values[f"{CELLS}{nuclei}"] = float(count_nuclei(reduced[row], float(thresholds[row])))
    correlation = _correlation(evened(reduced))
    for (i, a), (j, b) in combinations(enumerate(channels), 2):
        values[pair_name("corr", a, b)] = float(correlation[i, j])
    match = zero_shift_scores(evened(shrunk(reduced)))
    for (i, a), (j, b) in combinations(enumerate(channels), 2):
        values[pair_name("match", a, b)] = float(match[i, j])
    return values


def _check(raw: Mapping[str, NDArray[np.uint16]]) -> None:
    shapes = {stain: image.shape for stain, image in raw.items()}
    different = len(set(shapes.values())) != 1
    if different or any(len(shape) != 2 or min(shape) < 16 for shape in shapes.values()):
        problem = Problem(
            "the images of one field",
            str(shapes) if shapes else "no image",
            "one image a stain, all of one shape of at least 16 x 16 pixels",
            "Deliver the field again, or leave it out of load_data.",
        )
        raise ContractError("Quality statistics need images of one shape.", [problem])


def reduce_field(images: Sequence[NDArray[np.uint16]]) -> Float:
    """Average 2 x 2 pixels until nuclei are a few pixels wide: images of (height, width) -> one array, float32.

    Sides up to 160 px stay, up to 640 px are halved, up to 1400 px quartered, larger ones reduced by eight: a nucleus
    of 15 um then has a diameter of 5 to 12 pixels at the usual magnifications.
    """
    side = max(images[0].shape)
    step = 2 ** (int(side > 160) + int(side > 640) + int(side > 1400))
    height, width = (side // step for side in images[0].shape)
    reduced = np.empty((len(images), height, width), dtype=np.float32)
    for image, out in zip(images, reduced, strict=True):
        # one image at a time stays in the cache; whole numbers, so no order of adding gives another result
        rows = _added(image[: height * step, : width * step].astype(np.uint32), step)
        np.multiply(_added(rows.T, step).T, np.float32(1 / step**2), out=out)
    return reduced


def _added(image: NDArray[np.uint32], step: int) -> NDArray[np.uint32]:
    total = image[::step].copy()
    for row in range(1, step):
        total += image[row::step]
    return total


def _intensity(images: Sequence[NDArray[np.uint16]], full_scale: int) -> dict[str, NDArray[np.float64]]:
    height, width = images[0].shape
    stride = max(1, int(np.ceil(np.sqrt(height * width / SAMPLE))))
    ordered = np.sort([image[::stride, ::stride].ravel() for image in images], axis=1)
    places = np.rint(np.array(QUANTILES) * (ordered.shape[1] - 1)).astype(np.intp)
    p1, p5, p50, p95, p99 = ordered[:, places].T.astype(np.float64)
    pixels = height * width
    dark = full_scale // 1024
    return {
        "p1": p1, "p5": p5, "p50": p50, "p95": p95, "p99": p99,
        "saturation": np.array([np.count_nonzero(image >= full_scale) / pixels for image in images]),
        "near_black": np.array([np.count_nonzero(image <= dark) / pixels for image in images]),
        "dynamic_range": np.minimum((p99 - p1) / full_scale, 1.0),
        "contrast": (p99 - p5) / np.maximum(p99 + p5, 1.0),
    }  # fmt: skip


def _tiles(images: Sequence[NDArray[np.uint16]]) -> Float:
    """Return squares spread evenly over the field: (stains, tiles, side, side), float32.

    Four tiles of 64 px, or one in sixteen of those that fit in, but not more than sixteen.
    """
    height, width = images[0].shape
    side = min(TILE, height, width)
    corners = [(row * side, column * side) for row in range(height // side) for column in range(width // side)]
    wanted = min(len(corners), max(4, len(corners) // 16), 16)
    chosen = sorted({round(place) for place in np.linspace(0, len(corners) - 1, wanted)})
    places = [(slice(row, row + side), slice(column, column + side)) for row, column in (corners[k] for k in chosen)]
    return np.array([[image[place] for place in places] for image in images], dtype=np.float32)


def noise_sigma(tiles: Float) -> NDArray[np.float64]:
    """Estimate the standard deviation of the pixel noise by Immerkaer's operator, (stains, tiles, side, side).

    The operator is the outer product of (1, -2, 1) with itself: it is blind to slopes and curvature along one axis,
    and its response to white noise has six times the noise's deviation. Fine texture adds to the estimate.
    """
    second = tiles[..., 2:, :] - 2 * tiles[..., 1:-1, :] + tiles[..., :-2, :]
    response = second[..., 2:] - 2 * second[..., 1:-1] + second[..., :-2]
    mean: NDArray[np.float64] = np.abs(response).mean(axis=(-3, -2, -1), dtype=np.float64)
    return np.asarray(mean * np.sqrt(np.pi / 2) / 6)


def image_focus(image: NDArray[np.uint16]) -> float:
    """Return the focus figure of one image, (height, width): the statistic `focus` of a field's stain."""
    return float(focus_slope(_tiles([image]))[0])


def focus_slope(tiles: Float) -> NDArray[np.float64]:
    """Return the slope of log10 power over log10 frequency for each stain, (stains, tiles, side, side) -> (stains,).

    Each tile, less its mean and under a Hann window, gives a power spectrum; the mean over tiles is averaged over rings
    of one cycle a tile from 2 cycles to half the sampling rate, and a line is fitted by least squares.
    """
    side = tiles.shape[-1]
    window, ring, counts, line = _spectrum_plan(side)
    centred = (tiles - tiles.mean(axis=(-2, -1), keepdims=True)) * window
    spectrum = fft.rfft2(centred)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1).reshape(len(tiles), -1)
    rings = np.stack([np.bincount(ring, weights=row, minlength=len(counts)) for row in power]) / counts
    logs = np.log10(np.maximum(rings[:, 2 : side // 2 + 1], 1e-12))
    return np.asarray(logs @ line)


@lru_cache(maxsize=8)
def _spectrum_plan(side: int) -> tuple[Float, NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    hann = np.hanning(side + 1)[:side].astype(np.float32)
    rows = np.fft.fftfreq(side) * side
    columns = np.arange(side // 2 + 1)
    ring = np.rint(np.hypot(rows[:, None], columns[None, :])).astype(np.intp).ravel()
    # rfft keeps one half of the plane; the columns it leaves out mirror the kept ones, so ring means need no weights
    # beyond equal ones: a mirrored pair has one radius and one power
    counts = np.maximum(np.bincount(ring), 1).astype(np.float64)
    x = np.log10(np.arange(2, side // 2 + 1))
    line = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return np.outer(hann, hann), ring, counts, line


def otsu(images: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Otsu's threshold and the separability of each image, (stains, height, width) -> twice (stains,).

    The histogram has 256 equal bins from the smallest grey value to the 99.9 % quantile; what is brighter counts in
    the last bin, so that a bright speck of dust does not take the threshold with it. Nuclei of a sparse field cover
    little more than that: a quantile of 99.5 % cut seven of ten off a real one. The threshold is the upper edge
    of the last bin of the ground. A constant image has its value as threshold and separability 0.
    """
    count = images[0].size
    flat = images.reshape(len(images), count)
    low = flat.min(axis=1)
    sample = np.sort(flat[:, :: max(1, count // 4096)], axis=1)
    high = np.maximum(sample[:, int(CLIP * (sample.shape[1] - 1))], low)
    width = np.where(high > low, (high - low) / 256, 1.0).astype(np.float32)
    bins = np.minimum((flat - low[:, None]) / width[:, None], 255).astype(np.intp)
    bins += np.arange(len(images))[:, None] * 256
    histogram = np.bincount(bins.ravel(), minlength=256 * len(images)).reshape(len(images), 256)
    below = histogram.cumsum(axis=1)[:, :-1].astype(np.float64)
    moment = histogram * np.arange(256.0)
    first = moment.cumsum(axis=1)[:, :-1]
    total = moment.sum(axis=1, keepdims=True)
    above = count - below
    between = (total * below / count - first) ** 2 / np.maximum(below * above, 1.0)
    best = between.argmax(axis=1)
    variance = (histogram * np.arange(256.0) ** 2).sum(axis=1) / count - (total[:, 0] / count) ** 2
    peak = between[np.arange(len(images)), best]
    separability = np.where(variance > 1e-9, peak / np.maximum(variance, 1e-9), 0.0)
    threshold = np.where(high > low, low + (best + 1) * width, high).astype(np.float64)
    return threshold, np.clip(separability, 0.0, 1.0)


def _compactness(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    inner = masks[:, 1:-1, 1:-1]
    core = inner & masks[:, :-2, 1:-1] & masks[:, 2:, 1:-1] & masks[:, 1:-1, :-2] & masks[:, 1:-1, 2:]
    area = inner.sum(axis=(1, 2))
    return np.asarray(np.where(area > 0, core.sum(axis=(1, 2)) / np.maximum(area, 1), 0.0))


def count_nuclei(reduced: Float, threshold: float) -> int:
    """Estimate the number of nuclei in a reduced DNA image, shape (height, width).

    Components (8 neighbours) of at least nine pixels above the threshold are nuclei; one larger than 1.75 times the
    median area counts as the number of median nuclei that fit in it. Otsu's threshold cuts even pure noise in two
    (with means 1.6 deviations of the noise apart), so a field whose foreground is not MIN_STEP deviations of the pixel
    noise above its ground has no nucleus.
    """
    mask = reduced > threshold
    inside = int(np.count_nonzero(mask))
    if inside in {0, mask.size}:
        return 0
    bright = float(reduced[mask].sum(dtype=np.float64))
    step = bright / inside - (float(reduced.sum(dtype=np.float64)) - bright) / (mask.size - inside)
    if step < MIN_STEP * float(noise_sigma(reduced[None, None])[0]):
        return 0
    labels, found = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    areas = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    areas = areas[areas >= MIN_NUCLEUS_PX]
    if len(areas) == 0:
        return 0
    parts = areas / np.median(areas)
    return int(np.where(parts > CLUMP, np.rint(parts), 1).sum())


def evened(reduced: Float) -> Float:
    """Take the uneven light and the brightest specks out of images, (stains, height, width) -> the same shape.

    The best-fitting surface of second degree is subtracted; pixels above the 99 % quantile of what is left (of a
    sample) count as that quantile; and since they had bent the surface, it is fitted and subtracted once more. Without
    it two empty pictures correlate, because lamp and lens darken the same corners: a real field without any
    mitochondrial stain had a correlation of 0.59 with ER as recorded, and has 0.08 evened.
    """
    surface = _surface(reduced.shape[1], reduced.shape[2])
    flat = reduced.reshape(len(reduced), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)  # float32 has few digits for large pedestals
    cut = _without_specks(centred - (centred @ surface) @ surface.T)
    return np.asarray(cut - (cut @ surface) @ surface.T, dtype=np.float32).reshape(reduced.shape)


def _without_specks(flat: NDArray[Any]) -> Float:
    sample = np.sort(flat[:, :: max(1, flat.shape[1] // 4096)], axis=1)
    return np.asarray(np.minimum(flat, sample[:, int(SPECKS * (sample.shape[1] - 1))][:, None]))


@lru_cache(maxsize=8)
def _surface(height: int, width: int) -> Float:
    """Return an orthonormal basis of the surfaces of second degree, (height * width, 6)."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    return np.asarray(np.linalg.qr(terms)[0], dtype=np.float32)


def _correlation(reduced: Float) -> NDArray[np.float64]:
    flat = reduced.reshape(len(reduced), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    covariance = (centred @ centred.T).astype(np.float64)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    return np.asarray(np.clip(covariance / np.outer(deviation, deviation), -1.0, 1.0))
