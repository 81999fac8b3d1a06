"""Drift: how far the batch lies from the source, before and after adaptation. Numbers for the report; none decides."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from coda.evaluation.metrics.control_distance import control_distance
from coda.evaluation.metrics.frechet import frechet_distance
from coda.evaluation.metrics.metric_result import Matrix
from coda.networks.alignment import TokenStatistics

Drift = dict[str, float | dict[str, float] | None]


def drift_of(
    rows: pd.DataFrame, features: Matrix, groups: Mapping[str, TokenStatistics], source: TokenStatistics
) -> Drift:
    """Return the drift of one extractor's view of a batch.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width); pooled tokens of each field.
        groups: Token statistics of each batch or plate of the data.
        source: Statistics of the source's tokens that the head was trained on.

    Returns:
        ``to_source``: Frechet distance of each group's tokens to the source's, over the source's total variance (0:
        the same; 1: as far away as the source's own spread). ``controls_between_groups``: mean squared maximum mean
        discrepancy of negative-control wells between batches or plates (0: the same), None with fewer than two
        groups of two control wells. ``compared_by``: 'batch' or 'plate' is in `comparison_groups` of the rows.
    """
    between = control_distance(rows, features)
    total = max(float(source.covariance.diagonal().sum()), 1e-12)
    to_source = {
        name: frechet_distance(
            stats.mean.numpy(), stats.covariance.numpy(), source.mean.numpy(), source.covariance.numpy()
        )
        / total
        for name, stats in sorted(groups.items())
    }
    return {
        "to_source": to_source,
        "to_source_mean": float(np.mean(list(to_source.values()))),
        "controls_between_groups": between.value if between.n else None,
    }
