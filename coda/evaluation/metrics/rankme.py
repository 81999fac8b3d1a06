"""RankMe: how many directions the features really use (Garrido and others, 2023)."""

import numpy as np

from coda.evaluation.metrics.metric import Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def rankme(features: Matrix) -> MetricResult:
    """Return the exponential of the entropy of the normalised singular values, 1 to min(fields, width).

    A floor against dimensional collapse when models of one method are compared, not a score: more is not better.
    Features are centred first, so that their common mean does not count as a direction.

    Args:
        features: Shape (fields, width).
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2:
        return MetricResult(float("nan"), 0)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    total = values.sum()
    if total <= 0:
        return MetricResult(1.0, len(x))
    share = values[values > 0] / total
    return MetricResult(float(np.exp(-(share * np.log(share)).sum())), len(x))


RANKME = Metric(
    name="rankme",
    says="number of directions the features use",
    better=1,
    of=lambda batch: rankme(batch.features),
    has_limit=True,
    source="Garrido et al. 2023",
)
