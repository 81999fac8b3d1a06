"""From raw counts to 8 bits: correct the illumination, reduce, clip the outliers, stretch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Ingest
from coda.plates.resample import resample, scaled_shape

SAMPLE = 4096
TAIL, MARGIN = 0.02, 0.005
"""Ranks within `TAIL` of an end are looked for beyond a bound, which lets pass twice their share and `MARGIN` more."""


def compress_field(
    images: Sequence[NDArray[np.uint16]],
    gains: NDArray[np.float32] | None,
    plate_high: NDArray[np.float64],
    params: Ingest,
    factor: float,
) -> NDArray[np.uint8]:
    """Return one field as it is stored, uint8; see `stretched`."""
    return stretched(images, gains, plate_high, params, factor)[0]


def stretched(
    images: Sequence[NDArray[np.uint16]],
    gains: NDArray[np.float32] | None,
    plate_high: NDArray[np.float64],
    params: Ingest,
    factor: float,
) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """Return one field as it is stored, and the high percentile of each of its images.

    Each image is divided by the illumination function, reduced, and stretched from its own low percentile (0) to its
    own high percentile or the plate's, whichever is lower (255); what lies outside is clipped.

    Args:
        images: Raw images, (height, width), one a channel.
        gains: Reciprocal of the full-size illumination function, (channels, height, width); None where it is 1.
        plate_high: The plate's high percentile of raw grey values, by channel; above that of the image, it changes
            nothing.
        params: Percentiles.
        factor: Scaling factor in (0, 1]; see `coda.plates.scaling`.

    Returns:
        uint8, shape (channels, scaled height, scaled width); grey values, one a channel.
    """
    height, width = images[0].shape
    shape = scaled_shape((height, width), factor)
    result = np.empty((len(images), *shape), dtype=np.uint8)
    raw = np.empty((height, width), dtype=np.float32)
    highs = []
    for channel, image in enumerate(images):
        np.multiply(image, np.float32(1) if gains is None else gains[channel], out=raw)
        reduced = resample(raw, shape)
        low, high = (percentile(reduced, percent) for percent in (params.low_percentile, params.high_percentile))
        result[channel] = stretch(reduced, low, min(high, float(plate_high[channel])))
        highs.append(high)
    return result, tuple(highs)


def percentile(image: NDArray[np.float32], percent: float) -> float:
    """Return a percentile of finite values, interpolated linearly, as `numpy.percentile` does.

    Near an end only the values beyond a bound are sorted. The bound comes from a sample, and it is known afterwards
    whether it let enough of them through; if not, all are sorted.
    """
    flat = image.ravel()
    place = percent / 100 * (flat.size - 1)
    rank = int(place)
    first, ordered = _sorted_around(flat, rank)
    below = float(ordered[rank - first])
    above = float(ordered[rank - first + 1]) if rank + 1 < flat.size else below
    return below + (above - below) * (place - rank)


def _sorted_around(flat: NDArray[np.float32], rank: int) -> tuple[int, NDArray[np.float32]]:
    """Return sorted values that hold this rank and the next (if there is one), and the rank of the first of them."""
    sample = np.sort(flat[:: max(1, flat.size // SAMPLE)])
    share = rank / flat.size
    if share < TAIL:
        beyond = np.sort(flat[flat <= sample[int((2 * share + MARGIN) * len(sample))]])
        if len(beyond) > rank + 1:
            return 0, beyond
    elif 1 - share < TAIL:
        beyond = np.sort(flat[flat >= sample[-1 - int((2 * (1 - share) + MARGIN) * len(sample))]])
        if len(beyond) >= flat.size - rank:
            return flat.size - len(beyond), beyond
    return 0, np.sort(flat)


def stretch(image: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Map [low, high] linearly to [0, 255], clipped and rounded; a range without width gives zeros."""
    if high <= low:
        return np.zeros(image.shape, dtype=np.uint8)
    scaled = image - np.float32(low)
    scaled *= np.float32(255 / (high - low))
    np.clip(scaled, 0, 255, out=scaled)
    return np.asarray(np.rint(scaled, out=scaled), dtype=np.uint8)


def preview(
    images: Sequence[NDArray[np.uint16]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.uint8]:
    """Return raw images as 8-bit pictures, all stretched over the plate's range, so that they can be compared."""
    return np.stack(
        [
            stretch(resample(image.astype(np.float32), shape), float(low[channel]), float(high[channel]))
            for channel, image in enumerate(images)
        ]
    )
