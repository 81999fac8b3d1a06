"""kBET: are the neighbours of a well a fair sample of all batches? (Buettner and others, 2019)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from studies.metrics.nearest import nearest

SIGNIFICANCE = 0.05


def kbet_acceptance(features: Matrix, groups: Sequence[str], *, neighbours: int | None = None) -> MetricResult:
    """Return the share of wells in whose neighbourhood the batches are mixed as in the whole, 0 to 1.

    Pearson's chi-squared test of every well's neighbourhood against the batches' shares; accepted where p is at least
    0.05. Like every measure of mixing it is perfect for a collapsed extractor: read it with `replicate_map`.

    Args:
        features: Shape (wells, width), all wells.
        groups: Batch or plate of each well.
        neighbours: Size of a neighbourhood; by default a quarter of the mean group, 10 to 70 (the usage of scIB).

    Returns:
        `n` counts the wells; 0 with fewer than two groups, or where there are no more wells than neighbours.
    """
    x = np.asarray(features, dtype=np.float64)
    names, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    size = neighbours or min(max(len(x) // (4 * max(len(names), 1)), 10), 70)
    if len(names) < 2 or len(x) <= size or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    _, rows = nearest(x, size)
    expected = np.bincount(number) / len(x) * size
    observed = np.stack([(number[rows] == k).sum(axis=1) for k in range(len(names))], axis=1)
    statistic = ((observed - expected) ** 2 / expected).sum(axis=1)
    return MetricResult(float((chi2.sf(statistic, len(names) - 1) >= SIGNIFICANCE).mean()), len(x))
