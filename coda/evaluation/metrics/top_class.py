"""Share of the most often predicted class: the plain sign of a collapse onto few classes."""

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def top_class_share(probabilities: Matrix) -> MetricResult:
    """Return the share of rows whose most probable class is the most popular one, 1/classes to 1.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not p.size:
        return MetricResult(float("nan"), 0)
    votes = np.bincount(p.argmax(axis=1), minlength=p.shape[1])
    return MetricResult(float(votes.max() / len(p)), len(p))


TOP_CLASS_SHARE = Metric(
    name="top_class_share",
    says="share of fields that receive the most popular mechanism",
    better=-1,
    of=lambda batch: top_class_share(batch.probabilities),
    computed_on=PREDICTIONS,
    has_limit=True,
    main=True,
)
