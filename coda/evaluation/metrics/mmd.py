"""Maximum mean discrepancy between two sets of features: has the control population moved?"""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def mmd(features: Matrix, reference: Matrix, *, bandwidth: float | None = None) -> MetricResult:
    """Return the unbiased squared maximum mean discrepancy with a Gaussian kernel.

    Use negative controls on both sides: else the composition of the plates is measured. About 0 for the same
    population (it may be slightly negative), towards 2 for disjoint ones.

    Args:
        features: Shape (wells, width), at least two rows.
        reference: Shape (reference wells, width), at least two rows.
        bandwidth: Width of the kernel in feature units; the median distance within the reference when not given,
            so that several models can be compared each on its own scale.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if len(x) < 2 or len(y) < 2:
        return MetricResult(float("nan"), 0)
    if bandwidth is None:
        within = _squared_distances(y, y)[np.triu_indices(len(y), 1)]
        bandwidth = float(np.sqrt(np.median(within)))
    width = 2.0 * max(bandwidth, 1e-12) ** 2
    inside_x, inside_y, between = (np.exp(-_squared_distances(a, b) / width) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    value = (inside_x.sum() - n) / (n * (n - 1)) + (inside_y.sum() - m) / (m * (m - 1)) - 2 * between.mean()
    return MetricResult(float(value), n)


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
    if x is y:
        np.fill_diagonal(squares, 0.0)
    return np.asarray(np.maximum(squares, 0.0), dtype=np.float64)
