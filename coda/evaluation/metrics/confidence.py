"""Mean confidence: an advisory number, since a collapsed model is confident too."""

import numpy as np

from coda.evaluation.metrics.score import Matrix, Score


def mean_confidence(probabilities: Matrix) -> Score:
    """Return the mean of the highest probability of each row, 1/classes to 1.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return Score(float(p.max(axis=1).mean()), len(p)) if p.size else Score(float("nan"), 0)
