"""Source retention: what an adapted extractor still knows of the laboratory it comes from."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.accuracy import accuracy
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def source_retention(adapted: Matrix, unadapted: Matrix, truth: NDArray[np.intp]) -> MetricResult:
    """Return the adapted accuracy on the source's held-out fields over the unadapted one: 1 nothing was forgotten.

    Labels are legal here: they are the source's. A diagnosis and no test: adaptation may rightly trade the source for
    the target.

    Args:
        adapted: Probabilities of the adapted extractor and the frozen head, shape (fields, classes).
        unadapted: Those of the source release, rows in the same order.
        truth: Class of each field; rows below 0 have no label and are left out.

    Returns:
        `n` counts the labelled fields; 0 without any, or where the source release is never right.
    """
    if not (np.isfinite(adapted).all() and np.isfinite(unadapted).all()):
        return MetricResult(float("nan"), 0)
    before, after = accuracy(unadapted, truth), accuracy(adapted, truth)
    if not before.n or before.value == 0:
        return MetricResult(float("nan"), 0)
    return MetricResult(after.value / before.value, before.n)
