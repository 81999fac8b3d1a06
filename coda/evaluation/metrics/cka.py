"""Linear CKA: how much of the features' geometry is left after adaptation (Kornblith and others, 2019)."""

import numpy as np

from coda.evaluation.metrics.metric import FEATURES, NOT_COMPUTED, Metric, MetricInputs
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def linear_cka(features: Matrix, before: Matrix) -> MetricResult:
    """Return the linear centred kernel alignment of two sets of features of the same fields, 0 to 1.

    1: the same up to rotation and scale (nothing was learned); near 0: everything moved. It says nothing about which
    of the two is better.

    Args:
        features: Shape (fields, width).
        before: Shape (fields, other width), rows in the same order.
    """
    x, y = (np.asarray(part, dtype=np.float64) for part in (features, before))
    if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return MetricResult(float("nan"), 0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    if scale == 0:
        return MetricResult(float("nan"), 0)
    return MetricResult(float(np.linalg.norm(y.T @ x) ** 2 / scale), len(x))


def _to_baseline(batch: MetricInputs) -> MetricResult:
    if batch.baseline_features is None:
        return NOT_COMPUTED
    return linear_cka(batch.features, np.asarray(batch.baseline_features)[batch.is_treated])


CKA_TO_BASELINE = Metric(
    name="cka_to_baseline",
    says="how much of the baseline's geometry of features is left (1: all of it, nothing was learned; 0: none)",
    better=-1,
    of=_to_baseline,
    computed_on=f"{FEATURES}, and the baseline's",
    source="Kornblith et al. 2019",
)
