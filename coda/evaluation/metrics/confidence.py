"""Mean confidence: an advisory number, since a collapsed model is confident too."""

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def mean_confidence(probabilities: Matrix) -> MetricResult:
    """Return the mean of the highest probability of each row, 1/classes to 1.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return MetricResult(float(p.max(axis=1).mean()), len(p)) if p.size else MetricResult(float("nan"), 0)


MEAN_CONFIDENCE = Metric(
    name="mean_confidence",
    says="mean highest probability",
    better=1,
    of=lambda batch: mean_confidence(batch.probabilities),
    computed_on=PREDICTIONS,
)
