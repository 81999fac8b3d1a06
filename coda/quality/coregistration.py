"""Do two stains show the same cells? Their pictures then agree best where they lie on each other.

The correlation of two pictures alone does not tell: it depends on how full the field is and on what the stains mark
(0.06 to 0.97 on unmodified real fields). Its *place* does. The cross-correlation over all shifts has its peak at no
shift when both pictures show one field, and nowhere in particular when one of them is empty or was taken elsewhere.
So the correlation at no shift is stated in standard deviations of the correlations at distant shifts: a number without
unit, the same for any intensity, density and stain. Which rates of false alarms and of detections that gives is in
decision 0049; the idea is that of image registration by cross-correlation (Guizar-Sicairos et al. 2008, Optics
Letters 33, 156).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float = NDArray[np.float32]

SIDE = 160
"""Longest side in pixels of the pictures that are compared: finer detail changes the numbers little and costs time."""

NEAR = 16
"""Shifts up to one in so many of the side are near: cells are that large, so the peak is as wide."""


def zero_shift_scores(evened: Float) -> NDArray[np.float64]:
    """Return how far the agreement of each two stains at no shift stands out from that at other shifts.

    Args:
        evened: Pictures of one field without uneven light and specks, shape (stains, height, width), see
            `coda.quality.stats.evened`; sides as `shrunk` leaves them.

    Returns:
        Shape (stains, stains), symmetric: the correlation at no shift less the mean over distant cyclic shifts, in
        their standard deviations. About -3 to 5 for pictures of different fields, mostly 5 to 40 for those of one
        field; 0 where a picture is flat.
    """
    count, height, width = evened.shape
    window, far = _plan(height, width)
    pictures = (evened - evened.mean(axis=(1, 2), keepdims=True)) * window
    spectra = fft.rfft2(pictures)
    scores = np.zeros((count, count))
    for a in range(count):
        for b in range(a + 1, count):
            agreement = fft.irfft2(spectra[a] * spectra[b].conj(), s=(height, width))
            distant = agreement[far].astype(np.float64)
            spread = float(distant.std())
            if spread > 0:
                scores[a, b] = scores[b, a] = (float(agreement[0, 0]) - float(distant.mean())) / spread
    return scores


def shrunk(reduced: Float) -> Float:
    """Average squares of pixels until no side is longer than `SIDE`, (stains, height, width) -> the same, smaller."""
    step = -(-max(reduced.shape[1:]) // SIDE)
    count, height, width = len(reduced), reduced.shape[1] // step, reduced.shape[2] // step
    if step == 1:
        return reduced
    cut = reduced[:, : height * step, : width * step].reshape(count, height, step, width, step)
    if step == 2:  # four of these numbers have an exact sum, so it may be added in the fastest order
        total = cut[:, :, 0, :, 0] + cut[:, :, 0, :, 1]
        total += cut[:, :, 1, :, 0]
        total += cut[:, :, 1, :, 1]
        total *= np.float32(0.25)
        return total
    return np.asarray(cut.mean(axis=(2, 4)), dtype=np.float32)


@lru_cache(maxsize=8)
def _plan(height: int, width: int) -> tuple[Float, NDArray[np.bool_]]:
    # the window keeps opposite edges, which a cyclic shift brings together, from correlating
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    down, right = (np.minimum(np.arange(side), side - np.arange(side)) for side in (height, width))
    near = max(3, max(height, width) // NEAR)
    return window, (down[:, None] > near) | (right[None, :] > near)
