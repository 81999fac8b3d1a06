"""iLISI: how many batches a well meets in its neighbourhood (Korsunsky and others, 2019)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from studies.metrics.nearest import nearest

PERPLEXITY = 30.0
TOLERANCE = 1e-8
ROUNDS = 200


def ilisi(features: Matrix, groups: Sequence[str], *, perplexity: float = PERPLEXITY) -> MetricResult:
    """Return the median inverse Simpson index of batches in a soft neighbourhood, rescaled: 0 one batch, 1 all.

    Neighbours are weighted by ``exp(-beta distance)``, with `beta` of each well such that the weights' entropy is the
    logarithm of the perplexity. Values depend on the perplexity: compare only what has the same number of wells.

    Args:
        features: Shape (wells, width), all wells.
        groups: Batch or plate of each well.
        perplexity: Effective number of neighbours; lowered to a third of the other wells where there are few.

    Returns:
        `n` counts the wells; 0 with fewer than two groups or fewer than seven wells.
    """
    x = np.asarray(features, dtype=np.float64)
    names, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    effective = min(perplexity, (len(x) - 1) / 3)
    if len(names) < 2 or effective < 2 or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    distances, rows = nearest(x, round(3 * effective))
    weights = _weights(distances, effective)
    shares = np.stack([(weights * (number[rows] == k)).sum(axis=1) for k in range(len(names))], axis=1)
    index = 1 / (shares**2).sum(axis=1)
    return MetricResult(float((np.median(index) - 1) / (len(names) - 1)), len(x))


def _weights(distances: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Return weights of neighbours, rows summing to 1, found by bisection on the logarithm of beta."""
    # in units of each row's mean distance beyond its nearest, so that one bracket fits every scale
    beyond = distances - distances[:, :1]
    unit = beyond.mean(axis=1, keepdims=True)
    beyond = np.divide(beyond, unit, out=np.zeros_like(beyond), where=unit > 0)
    low, high = np.full((len(beyond), 1), -15.0), np.full((len(beyond), 1), 15.0)
    weights: NDArray[np.float64] = np.ones_like(beyond)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        weights = np.exp(-np.exp(middle) * beyond)
        weights /= weights.sum(axis=1, keepdims=True)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
        if (high - low).max() < TOLERANCE:
            break
    return weights
