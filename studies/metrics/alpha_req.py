"""alpha-ReQ: how fast the eigenvalues of the features' covariance decay (Agrawal and others, 2022)."""

import numpy as np

from coda.evaluation.metrics.metric_result import Matrix, MetricResult

NEGLIGIBLE = 1e-10
"""Eigenvalues below this share of the largest are rounding."""


def alpha_req(features: Matrix) -> MetricResult:
    """Return the exponent of the power law ``eigenvalue ~ rank**-alpha``, by least squares on logarithms.

    Near 1 is called healthy; much larger: few directions hold everything; near 0: noise in all directions. It depends
    on the range that is fitted (all eigenvalues above rounding here), so compare the same fields and width only.

    Args:
        features: Shape (fields, width).

    Returns:
        `n` counts the fields; 0 with fewer than three eigenvalues.
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    values = values[values > NEGLIGIBLE * max(values[0], 1e-24 * (x**2).sum(), 1e-300)]
    if len(values) < 3:
        return MetricResult(float("nan"), 0)
    rank, size = np.log(np.arange(1, len(values) + 1)), np.log(values)
    rank = rank - rank.mean()
    return MetricResult(float(-(rank @ size) / (rank @ rank)), len(x))
