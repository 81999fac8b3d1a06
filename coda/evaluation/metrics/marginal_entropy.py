"""Marginal entropy: does the model still use all classes?"""

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def marginal_entropy(probabilities: Matrix, *, at_most: int | None = None) -> MetricResult:
    """Return the entropy of the mean prediction over the logarithm of the number of classes, 0 to 1.

    1: all classes are predicted equally often; 0: one class takes everything. It ranks adapted models well where
    classes are about balanced, and is a floor only where they are not.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
        at_most: Number of classes that can occur at all, when fewer than the head has (as on a plate with three
            compounds); the value is cut at 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    classes = p.shape[1] if at_most is None else min(p.shape[1], at_most)
    if p.size == 0 or classes < 2:
        return MetricResult(float("nan"), 0)
    mean = p.mean(axis=0)
    positive = mean[mean > 0]
    return MetricResult(float(min(-(positive * np.log(positive)).sum() / np.log(classes), 1.0)), len(p))


MARGINAL_ENTROPY = Metric(
    name="marginal_entropy",
    says="how evenly the mechanisms are predicted (1 is evenly, 0 is one mechanism only)",
    better=1,
    of=lambda batch: marginal_entropy(batch.probabilities, at_most=batch.most_classes),
    computed_on=PREDICTIONS,
    has_limit=True,
    main=True,
)
