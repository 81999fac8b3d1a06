"""Expected calibration error: do probabilities mean what they say? Needs labels."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult

BINS = 15
"""Bins of equal width over 0 to 1 (Guo et al. 2017)."""


def expected_calibration_error(probabilities: Matrix, truth: NDArray[np.intp], bins: int = BINS) -> MetricResult:
    """Return the mean difference between confidence and accuracy, over bins of the highest probability.

    Args:
        probabilities: Shape (rows, classes); rows sum to 1.
        truth: Class of each row; rows below 0 have no label and are left out.
        bins: Number of bins of equal width.

    Returns:
        0 (a prediction of 0.8 is right in 80 % of the rows) to 1; bins weigh as many rows as they hold.
    """
    known = np.asarray(truth) >= 0
    if not known.any():
        return MetricResult(float("nan"), 0)
    found = np.asarray(probabilities, dtype=np.float64)[known]
    confidence, right = found.max(axis=1), found.argmax(axis=1) == truth[known]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    # a bin's share times the difference of its means is the difference of its sums over all rows
    differences = np.bincount(place, weights=right - confidence, minlength=bins)
    return MetricResult(float(np.abs(differences).sum() / known.sum()), int(known.sum()))
