"""Feature spread: whether an extractor still tells images apart; the same number in training and in the gate."""

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.05
"""Share of their length by which features differ, below which images begin to look alike: the spread falls with it.

Rounding to bfloat16 makes equal features differ by 0.002 to 0.004 of their length. Without this, directions of such
noise would look as varied as those of a healthy network.
"""

NOTHING = 1e-6
"""Share below which nothing is told apart at all."""

LIMIT = 0.2
"""Spread below which training says that features are the same for all images; the gate's policies have the same."""


def feature_spread(features: NDArray[np.floating]) -> float:
    """Return how far features spread around what all images have in common.

    The mean standard deviation of the centred, length-1 features, times the root of the width (after the indicator of
    Chen and He, 2021), and in proportion less where features differ by less than `ALIKE` of their length. They are
    centred first: pooled tokens share a large part, which would hide the spread of a healthy network.

    Args:
        features: Shape (images, width), at least two images.

    Returns:
        About 1 where directions are used evenly, 0 where all images look alike; NaN for fewer than two images.
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2:
        return float("nan")
    centred = x - x.mean(axis=0)
    length, scale = np.linalg.norm(centred, axis=1, keepdims=True), np.linalg.norm(x, axis=1).mean()
    if scale == 0 or length.mean() < NOTHING * scale:
        return 0.0
    rows = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    differing = float(length.mean() / scale)
    return float(rows.std(axis=0).mean() * np.sqrt(x.shape[1])) * min(1.0, differing / ALIKE)
