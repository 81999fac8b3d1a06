"""Frechet distance between two Gaussian summaries: drift from statistics alone, without the reference's images."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix


def frechet_distance(mean: Matrix, covariance: Matrix, other_mean: Matrix, other_covariance: Matrix) -> float:
    """Return ``|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))``, at least 0.

    Args:
        mean: Shape (width,).
        covariance: Shape (width, width), symmetric and positive semidefinite.
        other_mean: Shape (width,).
        other_covariance: Shape (width, width).
    """
    m1, m2 = np.asarray(mean, dtype=np.float64), np.asarray(other_mean, dtype=np.float64)
    s1, s2 = np.asarray(covariance, dtype=np.float64), np.asarray(other_covariance, dtype=np.float64)
    root = _root(s1)
    # Tr (S1 S2)^(1/2) = Tr (S1^(1/2) S2 S1^(1/2))^(1/2), and the latter matrix is symmetric
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0.0)).sum()
    return float(max(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross, 0.0))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T, dtype=np.float64)
