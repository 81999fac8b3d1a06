"""ATC: an estimate of accuracy without labels, from a threshold on confidence (Garg and others, 2022)."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def confidence_threshold(probabilities: Matrix, truth: NDArray[np.intp]) -> float:
    """Return the confidence below which as many labelled source fields lie as the head gets wrong there.

    Args:
        probabilities: Shape (fields, classes), of held-out source fields.
        truth: Class of each field; rows below 0 have no label and are left out.

    Returns:
        A threshold on the highest probability; NaN without a labelled row, infinite where everything is wrong.
    """
    known = np.asarray(truth) >= 0
    p = np.asarray(probabilities, dtype=np.float64)[known]
    if not len(p) or not np.isfinite(p).all():
        return float("nan")
    wrong = int((p.argmax(axis=1) != np.asarray(truth)[known]).sum())
    ordered = np.sort(p.max(axis=1))
    return float(ordered[wrong]) if wrong < len(ordered) else float("inf")


def predicted_accuracy(probabilities: Matrix, threshold: float) -> MetricResult:
    """Return the share of fields whose highest probability reaches the source's threshold: the accuracy it suggests.

    An estimate for the extractor that the threshold was fitted with. After adaptation confidence means something else,
    so it is a trend only; in general no such estimate can be right everywhere.

    Args:
        probabilities: Shape (fields, classes), of the new batch.
        threshold: From `confidence_threshold`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not p.size or np.isnan(threshold) or not np.isfinite(p).all():
        return MetricResult(float("nan"), 0)
    return MetricResult(float((p.max(axis=1) >= threshold).mean()), len(p))
