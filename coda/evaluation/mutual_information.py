"""Mutual information of fields and predicted classes: confident on each field, varied over all of them."""

import numpy as np

from coda.evaluation.score import Matrix, Score


def mutual_information(probabilities: Matrix, *, at_most: int | None = None) -> Score:
    """Return ``H(mean p) - mean H(p)`` over the logarithm of the number of classes, 0 to 1.

    0 for a model that says the same of every field, whether sure or not; 1 where every prediction is certain and all
    classes occur equally often. Confidence alone raises it, right or wrong.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
        at_most: Number of classes that can occur at all, when fewer than the head has; the value is cut at 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    classes = p.shape[1] if at_most is None else min(p.shape[1], at_most)
    if p.size == 0 or classes < 2 or not np.isfinite(p).all():
        return Score(float("nan"), 0)
    each = float(_entropy(p).mean())
    return Score(float(min((_entropy(p.mean(axis=0)) - each) / np.log(classes), 1.0)), len(p))


def _entropy(p: Matrix) -> Matrix:
    terms: Matrix = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return terms
