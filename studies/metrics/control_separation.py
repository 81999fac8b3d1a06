"""Separation of positive from negative controls on a plate: robust Z' and strictly standardised mean difference."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from coda.evaluation.predictions.prediction_levels import WELL, well_features

TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""

Values = NDArray[np.float64]


def robust_z_prime(rows: pd.DataFrame, features: Matrix) -> MetricResult:
    """Return ``1 - 3 (s_p + s_n) / |m_p - m_n|`` of distances to the negative controls: 1 perfect, below 0 overlapping.

    A well's value is its distance to the centroid of the negative controls of its plate; a control's, to that of the
    others, else it would pull the centroid towards itself. Medians and median absolute deviations stand for means and
    deviations. It tells a failed stain from a failed model: compare candidates on the same plates.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width).

    Returns:
        The median over plates with two positive and three negative control wells; `n` counts the plates.
    """
    return _over_plates(rows, features, lambda m_p, s_p, m_n, s_n: 1 - 3 * (s_p + s_n) / abs(m_p - m_n))


def robust_ssmd(rows: pd.DataFrame, features: Matrix) -> MetricResult:
    """Return ``(m_p - m_n) / sqrt(s_p^2 + s_n^2)`` of distances to the negative controls; 3 and more is strong.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width).

    Returns:
        The median over plates, as in `robust_z_prime`.
    """
    return _over_plates(rows, features, lambda m_p, s_p, m_n, s_n: (m_p - m_n) / np.hypot(s_p, s_n))


def _over_plates(
    rows: pd.DataFrame, features: Matrix, effect: Callable[[float, float, float, float], float]
) -> MetricResult:
    if not len(rows) or not np.isfinite(features).all():
        return MetricResult(float("nan"), 0)
    wells, x = well_features(rows, features)
    plates = wells[WELL[:-1]].astype(str).agg("/".join, axis=1)
    kind = wells["Metadata_pert_type"]
    values = []
    for plate in sorted(set(plates)):
        here = plates == plate
        distances = control_distances(
            x[(here & (kind == "negcon")).to_numpy()], x[(here & (kind == "poscon")).to_numpy()]
        )
        if distances is None:
            continue
        negative, positive = distances
        with np.errstate(divide="ignore", invalid="ignore"):
            value = effect(*_centre_and_spread(positive), *_centre_and_spread(negative))
        if np.isfinite(value):
            values.append(float(value))
    return MetricResult(float(np.median(values)), len(values)) if values else MetricResult(float("nan"), 0)


def control_distances(negative: Matrix, positive: Matrix) -> tuple[Values, Values] | None:
    """Return each control's distance to the centroid of (the other) negative controls; None where there are too few.

    Args:
        negative: Features of negative-control wells of one plate, shape (wells, width); three at least.
        positive: Those of positive controls; two at least.
    """
    count = len(negative)
    if count < 3 or len(positive) < 2:
        return None
    centre = negative.mean(axis=0)
    others = (centre * count - negative) / (count - 1)
    return np.linalg.norm(negative - others, axis=1), np.linalg.norm(positive - centre, axis=1)


def _centre_and_spread(values: Values) -> tuple[np.float64, np.float64]:
    centre = np.median(values)
    return np.float64(centre), np.float64(TO_DEVIATION * np.median(np.abs(values - centre)))
