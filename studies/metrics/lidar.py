"""LiDAR: how many directions tell treatments apart, not merely vary (Thilak and others, 2024)."""

from collections.abc import Sequence

import numpy as np

from coda.evaluation.metrics.metric_result import Matrix, MetricResult

RIDGE = 1e-4
"""Added to the variance within treatments, as a share of its mean over directions."""


def lidar(features: Matrix, treatments: Sequence[str]) -> MetricResult:
    """Return the effective rank of ``S_w^-1/2 S_b S_w^-1/2``, with the treatment as the class.

    The rank of features can be noise; this counts directions in which treatments differ by more than their own
    replicates do. 1 to the smaller of width and treatments - 1.

    Args:
        features: Shape (wells or fields, width), without negative controls.
        treatments: Treatment of each row.

    Returns:
        `n` counts the treatments; 0 with fewer than two, where no treatment has two rows, or without any difference.
    """
    x = np.asarray(features, dtype=np.float64)
    names, number = np.unique(np.asarray(treatments, dtype=str), return_inverse=True)
    if len(names) < 2 or len(x) == len(names) or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    counts = np.bincount(number)[:, None]
    means = np.zeros((len(names), x.shape[1]))
    np.add.at(means, number, x)
    means /= counts
    inside, between = x - means[number], means - means.mean(axis=0)
    # classes count alike, as in the original: neither covariance is weighted by a treatment's number of rows
    within = (inside / counts[number]).T @ inside / len(names)
    mean = np.trace(within) / x.shape[1]
    if mean <= 0 or not between.any():
        return MetricResult(float("nan"), 0)
    values, vectors = np.linalg.eigh(within + RIDGE * mean * np.eye(x.shape[1]))
    whitened = between @ (vectors / np.sqrt(values))
    spectrum = np.linalg.svd(whitened, compute_uv=False) ** 2
    share = spectrum[spectrum > 0] / spectrum.sum()
    return MetricResult(float(np.exp(-(share * np.log(share)).sum())), len(names))
