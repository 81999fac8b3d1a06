"""Nearest neighbours of every well: what measures of local mixing start from."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix


def nearest(features: Matrix, count: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return Euclidean distances and rows of every row's nearest others, nearest first.

    Args:
        features: Shape (wells, width).
        count: Neighbours of each row, below the number of rows; a row is never its own.

    Returns:
        Distances and positions, each of shape (wells, count).
    """
    x = np.asarray(features, dtype=np.float64)
    squares = (x**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0.0))
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(distances, order, axis=1), order
