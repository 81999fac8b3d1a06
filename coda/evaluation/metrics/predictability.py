"""Batch predictability: can the batch of a well be read from its features, for compounds never seen by the reader?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.metric import NOT_COMPUTED, Metric, MetricInputs
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult
from coda.evaluation.predictions.prediction_levels import well_features

FOLDS = 5

PENALTY = 1.0
"""Ridge penalty on standardised features."""


def batch_predictability(features: Matrix, treatments: Sequence[str], groups: Sequence[str]) -> MetricResult:
    """Return how well a linear classifier names the batch (or plate) of wells whose treatments it never saw.

    Folds are whole treatments: sites or wells of one treatment in both halves would let the classifier recognise the
    treatment's own wells. Balanced accuracy, rescaled: 0 is chance, 1 is always right. Read it with `replicate_map`
    only: a collapsed extractor hides the batch, too.

    Args:
        features: Shape (wells, width).
        treatments: Treatment of each well.
        groups: Batch or plate of each well.

    Returns:
        `n` counts the wells; 0 with fewer than two groups or two treatments.
    """
    design = Grouping.of(treatments, groups)
    if design.groups < 2 or len(design.names) < 2:
        return MetricResult(float("nan"), 0)
    x = np.asarray(features, dtype=np.float64)
    fold = design.treatment % min(FOLDS, len(design.names))
    predicted = np.zeros(len(x), dtype=np.intp)
    for number in np.unique(fold):
        held_out = fold == number
        predicted[held_out] = _ridge_classifier(x[~held_out], design.group[~held_out], design.groups, x[held_out])
    recall = [float((predicted[design.group == k] == k).mean()) for k in range(design.groups)]
    chance = 1 / design.groups
    return MetricResult((float(np.mean(recall)) - chance) / (1 - chance), len(x))


def _ridge_classifier(x: Matrix, y: NDArray[np.intp], classes: int, new: Matrix) -> NDArray[np.intp]:
    """Return the classes that least squares on one-against-all targets, with a ridge penalty, gives to new rows."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    rows, targets = (x - mean) / scale, np.where(np.arange(classes) == y[:, None], 1.0, -1.0)
    centre = targets.mean(axis=0)
    weights = np.linalg.solve(rows.T @ rows + PENALTY * np.eye(x.shape[1]), rows.T @ (targets - centre))
    scores = ((new - mean) / scale) @ weights + centre
    return np.asarray(scores.argmax(axis=1), dtype=np.intp)


def _of_all_wells(batch: MetricInputs) -> MetricResult:
    if not batch.all_finite:
        return NOT_COMPUTED
    _, groups = comparison_groups(batch.table)
    features = np.asarray(batch.all_features, dtype=np.float64)
    wells, x = well_features(batch.table.assign(_group=groups), features)
    return batch_predictability(x, wells["Metadata_Treatment"].tolist(), wells["_group"].tolist())


BATCH_PREDICTABILITY = Metric(
    name="batch_predictability",
    says="how well the batch or plate of a well can be read from its features (1 is always, 0 is chance, below 0 where "
    "an alignment evened out the batches)",
    better=-1,
    of=_of_all_wells,
    wells="all wells, negative controls too",
    fitted_on="a ridge classifier on four fifths of the treatments, read on the other fifth, five times",
    aggregated="fields to wells; balanced accuracy over batches or plates, rescaled by chance",
)
