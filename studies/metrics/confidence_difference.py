"""DoC: an estimate of accuracy without labels, from how much confidence changed (Guillory and others, ICCV 2021)."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.confidence import mean_confidence
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def accuracy_by_confidence(probabilities: Matrix, source: Matrix, truth: NDArray[np.intp]) -> MetricResult:
    """Return the source's accuracy plus the change of mean confidence: what a head right as often as sure would have.

    Args:
        probabilities: Shape (fields, classes), of the new batch.
        source: The same of held-out fields of the source.
        truth: Class of each of these; rows below 0 have no label and are left out.

    Returns:
        Between 0 and 1; without a value (`n` is 0) where there is no labelled field or no number.
    """
    known = np.asarray(truth) >= 0
    p, q = (np.asarray(values, dtype=np.float64) for values in (probabilities, np.asarray(source)[known]))
    if not (p.size and q.size and np.isfinite(p).all() and np.isfinite(q).all()):
        return MetricResult(float("nan"), 0)
    right = float((q.argmax(axis=1) == np.asarray(truth)[known]).mean())
    changed = right + mean_confidence(p).value - mean_confidence(q).value
    return MetricResult(min(max(changed, 0.0), 1.0), len(p))
