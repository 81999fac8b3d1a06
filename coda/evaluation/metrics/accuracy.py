"""Accuracy and macro F1 against known labels: for sources with labels and for the demo's final comparison only."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def accuracy(probabilities: Matrix, truth: NDArray[np.intp]) -> MetricResult:
    """Return the share of rows whose most probable class is the true one.

    Args:
        probabilities: Shape (rows, classes).
        truth: Class of each row; rows below 0 have no label and are left out.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 0, -1]))  # the last has no label
        MetricResult(value=0.5, n=2, by_treatment={})
    """
    known = np.asarray(truth) >= 0
    if not known.any():
        return MetricResult(float("nan"), 0)
    return MetricResult(float((probabilities[known].argmax(axis=1) == truth[known]).mean()), int(known.sum()))


def macro_f1(probabilities: Matrix, truth: NDArray[np.intp]) -> MetricResult:
    """Return the mean F1 over the classes that occur among the truth or the predictions.

    Args:
        probabilities: Shape (rows, classes).
        truth: Class of each row; rows below 0 are left out.
    """
    known = np.asarray(truth) >= 0
    if not known.any():
        return MetricResult(float("nan"), 0)
    predicted, true = probabilities[known].argmax(axis=1), truth[known]
    values = []
    for label in np.union1d(predicted, true):
        hits = ((predicted == label) & (true == label)).sum()
        values.append(2 * hits / ((predicted == label).sum() + (true == label).sum()))
    return MetricResult(float(np.mean(values)), int(known.sum()))
