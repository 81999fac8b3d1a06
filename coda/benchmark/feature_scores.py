"""Scores of features, whatever a head makes of them: retrieval of replicates, and mechanisms of nearest neighbours."""

from typing import Any

import numpy as np
import pandas as pd

from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.mechanism_neighbour import mechanism_neighbour_accuracy
from coda.evaluation.metrics.metric_result import Grouping, Matrix
from coda.evaluation.metrics.retrieval import replicate_map
from coda.evaluation.metrics.retrieval_null import retrieved_share
from coda.evaluation.predictions.prediction_levels import TREATED, well_features
from coda.training.labels import LabelList

FEATURES = "features"
"""Level of these scores."""


def score_features(rows: pd.DataFrame, features: Matrix, labels: LabelList) -> list[dict[str, Any]]:
    """Return the scores of one laboratory's features.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width).
        labels: Compound -> mechanism.

    Returns:
        Rows with ``level`` ('features'), ``metric``, ``value`` and ``n``: ``replicate_map`` and ``retrieved`` (share of
        treatments that are retrieved, at a false discovery rate of 5 %), over wells; ``nsc`` and ``nscb``, over mean
        profiles of a treatment in a batch. Where something cannot be compared, ``n`` is 0 and the value NaN.
    """
    wells, means = well_features(rows, features)
    treated = wells["Metadata_pert_type"].isin(TREATED).to_numpy(bool)
    wells, means = wells[treated].reset_index(drop=True), means[treated]
    _, groups = comparison_groups(wells)
    design = Grouping.of(wells["Metadata_Treatment"].tolist(), groups)
    known = wells["Metadata_Compound"].isin(list(labels.compounds)).to_numpy(bool)
    named, profiles = wells[known], pd.DataFrame(means[known])
    keys = [named[f"Metadata_{name}"].to_numpy(str) for name in ("Compound", "Treatment", "Batch")]
    mean = profiles.groupby(keys).mean()
    compounds, batches = (mean.index.get_level_values(level).astype(str) for level in (0, 2))
    neighbours = (mean.to_numpy(), [labels.compounds[name] for name in compounds], list(compounds))
    scores = {
        "replicate_map": replicate_map(means, design),
        "retrieved": retrieved_share(means, design),
        "nsc": mechanism_neighbour_accuracy(*neighbours),
        "nscb": mechanism_neighbour_accuracy(*neighbours, list(batches)),
    }
    return [
        {"level": FEATURES, "metric": name, "value": float(np.float64(score.value)), "n": score.n}
        for name, score in scores.items()
    ]
