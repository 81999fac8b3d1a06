"""KID: distance of two sets of features by a cubic kernel, for few wells (Binkowski, 2018)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from coda.evaluation.predictions.prediction_levels import well_features


def kid(features: Matrix, reference: Matrix) -> MetricResult:
    """Return the squared maximum mean discrepancy with the kernel ``(x.y / width + 1)^3``, without its diagonal terms.

    Both sides are first put on the reference's scale (its mean, and its mean standard deviation over all directions),
    so that extractors of different scales can be compared. About 0 for the same population (it may be slightly
    negative), without an upper end.

    Args:
        features: Shape (wells, width), at least two rows.
        reference: Shape (reference wells, width), at least two rows.

    Returns:
        `n` counts the wells; 0 where a side has fewer than two, or the reference no variance.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if len(x) < 2 or len(y) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return MetricResult(float("nan"), 0)
    centre = y.mean(axis=0)
    scale = float(np.sqrt(((y - centre) ** 2).mean()))
    if scale <= 1e-12 * float(np.abs(y).max()):
        return MetricResult(float("nan"), 0)
    x, y = (x - centre) / scale, (y - centre) / scale
    n, m = len(x), len(y)
    own, theirs, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    value = (own.sum() - np.trace(own)) / (n * (n - 1)) + (theirs.sum() - np.trace(theirs)) / (m * (m - 1))
    return MetricResult(float(value - 2 * between.mean()), n)


def control_kid(rows: pd.DataFrame, features: Matrix, reference_rows: pd.DataFrame, reference: Matrix) -> MetricResult:
    """Return `kid` of negative-control wells against a reference's: only controls are the same everywhere.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width).
        reference_rows: Rows of the reference, for example the source's held-out batch.
        reference: Features of those fields.
    """
    sides = []
    for table, values in ((rows, features), (reference_rows, reference)):
        controls = (table["Metadata_pert_type"] == "negcon").to_numpy()
        if not controls.any():
            return MetricResult(float("nan"), 0)
        sides.append(well_features(table[controls].reset_index(drop=True), np.asarray(values)[controls])[1])
    return kid(*sides)


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel: NDArray[np.float64] = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel
