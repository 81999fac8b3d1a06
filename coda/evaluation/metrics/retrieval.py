"""Replicate retrieval: mean average precision across batches (Kalinin and others, 2025)."""

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric import BY_TREATMENT_FROM_WELLS, Metric
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, by_treatment, unit_rows


def replicate_map(features: Matrix, design: Grouping) -> MetricResult:
    """Return how well wells of one treatment are retrieved from other groups before wells of their own group.

    Positives of a well: same treatment, different group. Negatives: other treatments of the same group, so features
    that carry the batch instead of the treatment rank badly (copairs: ``pos_sameby=treatment, pos_diffby=group,
    neg_sameby=group, neg_diffby=treatment``). Average precision is normalised by what random ranking would give:
    0 is chance, 1 is perfect. It measures the features, not whether the frozen head can still read them.

    Args:
        features: Shape (wells, width).
        design: Treatment and group of each well, without negative controls.

    Returns:
        Mean normalised average precision of each treatment with a positive and a negative.
    """
    precision, positives, total = average_precisions(features, design)
    chance = expected_precision(positives, total)
    normal = np.where(np.isfinite(precision), (precision - chance) / np.maximum(1 - chance, 1e-12), np.nan)
    return MetricResult.over_treatments(by_treatment(normal, design))


def average_precisions(
    features: Matrix, design: Grouping
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Return each well's average precision (NaN without pairs), its number of positives, and of all ranked wells."""
    rows = unit_rows(features)
    wells = len(rows)
    precision = np.full(wells, np.nan)
    positives, total = np.zeros(wells, dtype=np.intp), np.zeros(wells, dtype=np.intp)
    for i in range(wells):
        same_treatment = design.treatment == design.treatment[i]
        same_group = design.group == design.group[i]
        relevant = same_treatment & ~same_group
        ranked = np.flatnonzero(relevant | (~same_treatment & same_group))
        positives[i], total[i] = relevant.sum(), len(ranked)
        if not positives[i] or positives[i] == total[i]:
            continue
        order = ranked[np.argsort(-(rows[ranked] @ rows[i]), kind="stable")]
        hits = relevant[order]
        places = np.flatnonzero(hits) + 1
        precision[i] = float(np.mean(np.arange(1, len(places) + 1) / places))
    return precision, positives, total


def expected_precision(positives: NDArray[np.intp], total: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the expected average precision of a random ranking (Bestgen, 2015).

    Args:
        positives: Number of relevant items, at least 1.
        total: Number of ranked items.
    """
    longest = int(total.max(initial=1))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, longest + 1))])
    length, relevant = np.maximum(total, 1).astype(float), positives.astype(float)
    h = harmonic[np.maximum(total, 1)]
    share = np.divide(relevant - 1, length - 1, out=np.ones_like(length), where=length > 1)
    return np.asarray((share * (length - h) + h) / length, dtype=np.float64)


REPLICATE_MAP = Metric(
    name="replicate_map",
    says="how well wells of one compound find each other across batches or plates (0 is chance)",
    better=1,
    of=lambda batch: replicate_map(batch.well_features[1], batch.wells),
    quantity="retrieval of a compound's replicates",
    by_treatment=True,
    aggregated=BY_TREATMENT_FROM_WELLS,
    main=True,
    source="Kalinin et al. 2025 (copairs)",
)
