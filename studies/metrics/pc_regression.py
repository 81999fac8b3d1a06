"""Principal-component regression: the share of the features' variance that the batch explains."""

from collections.abc import Sequence

import numpy as np

from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def pc_regression(features: Matrix, groups: Sequence[str], *, components: int | None = None) -> MetricResult:
    """Return ``sum_i Var(PC_i) R2(PC_i ~ batch) / sum_i Var(PC_i)``, 0 to 1.

    0: the batch explains nothing; 1: it explains all. With all components it is the between-batch share of the total
    variance, whatever the rotation. An alignment by batch makes it 0 by construction.

    Args:
        features: Shape (wells, width), all wells.
        groups: Batch or plate of each well.
        components: Components counted, the largest first; all by default.

    Returns:
        `n` counts the wells; 0 with fewer than two groups, or features without variance.
    """
    x = np.asarray(features, dtype=np.float64)
    names, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2 or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    centred = x - x.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * singular)[:, :components]
    counts = np.bincount(number)
    sums = np.zeros((len(names), scores.shape[1]))
    np.add.at(sums, number, scores)
    total = (scores**2).sum()
    # what rounding leaves of constant features is no variance
    if total <= 1e-24 * max((x**2).sum(), 1e-300):
        return MetricResult(float("nan"), 0)
    return MetricResult(float((sums**2 / counts[:, None]).sum() / total), len(x))
