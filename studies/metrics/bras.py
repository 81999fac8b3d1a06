"""BRAS: batch silhouette within treatments, sound where batches are nested (Rautenstrauch and Ohler, 2025)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, unit_rows


def bras(features: Matrix, treatments: Sequence[str], groups: Sequence[str]) -> MetricResult:
    """Return how little wells of one treatment stick to their batch: 1 not at all, 0 entirely.

    For every well, the mean cosine distance to wells of its treatment in *all other* groups (not in the nearest one,
    which is what makes the ordinary silhouette unreliable) is compared with that to wells of its own group; the value
    is 1 minus the absolute silhouette.

    Args:
        features: Shape (wells, width).
        treatments: Treatment of each well.
        groups: Batch or plate of each well.

    Returns:
        One value for each treatment with two groups or more, one of them with two wells or more.
    """
    x = np.asarray(features, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    design, rows = Grouping.of(treatments, groups), unit_rows(x)
    values = {}
    for number, name in enumerate(design.names):
        own = design.treatment == number
        count = len(np.unique(design.group[own]))
        if 1 < count < own.sum():
            values[name] = float(1 - np.abs(_silhouettes(rows[own], design.group[own])).mean())
    return MetricResult.over_treatments(values)


def _silhouettes(rows: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    distances = np.maximum(1 - rows @ rows.T, 0.0)
    np.fill_diagonal(distances, 0.0)
    same = group[:, None] == group[None]
    others = same.sum(axis=1) - 1
    inside = np.divide((distances * same).sum(axis=1), others, out=np.zeros(len(rows)), where=others > 0)
    outside = (distances * ~same).sum(axis=1) / (~same).sum(axis=1)
    largest = np.maximum(inside, outside)
    # a well alone in its group has no silhouette: 0, as everywhere
    known = (others > 0) & (largest > 0)
    return np.asarray(np.divide(outside - inside, largest, out=np.zeros(len(rows)), where=known), dtype=np.float64)
