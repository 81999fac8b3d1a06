"""Drift: how far the batch lies from the source, before and after adaptation. Numbers for the report; none decides."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from coda.evaluation.frechet import frechet_distance
from coda.evaluation.levels import well_features
from coda.evaluation.measures import comparison_groups
from coda.evaluation.mmd import mmd
from coda.evaluation.score import Matrix
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
        "controls_between_groups": _controls_between_groups(rows, features),
    }


def _controls_between_groups(rows: pd.DataFrame, features: Matrix) -> float | None:
    controls = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    if not controls.any():
        return None
    own = rows[controls].reset_index(drop=True)
    _, labels = comparison_groups(own)
    wells, values = well_features(own.assign(_group=labels), np.asarray(features)[controls])
    parts = [values[(wells["_group"] == name).to_numpy()] for name in sorted(set(labels))]
    parts = [part for part in parts if len(part) > 1]
    # one kernel width for all pairs: else each comparison would be on its own scale
    distances = [
        mmd(parts[i], parts[j], bandwidth=_median_distance(values)).value
        for i in range(len(parts))
        for j in range(i + 1, len(parts))
    ]
    return float(np.mean(distances)) if distances else None


def _median_distance(values: Matrix) -> float:
    difference = values[:, None] - values[None]
    distances = np.sqrt((difference**2).sum(axis=2))[np.triu_indices(len(values), 1)]
    return float(np.median(distances))
