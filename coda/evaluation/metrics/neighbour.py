"""NSB: is a well's nearest neighbour in the other batches the same treatment? (Kim and others, 2025)."""

import numpy as np

from coda.evaluation.metrics.metric import BY_TREATMENT_FROM_WELLS, Metric
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, by_treatment, unit_rows


def neighbour_accuracy(features: Matrix, design: Grouping) -> MetricResult:
    """Return the not-same-batch 1-nearest-neighbour accuracy of treatments, by cosine similarity.

    Args:
        features: Shape (wells, width); well means of the extractor's features.
        design: Treatment and group of each well; neighbours are looked for in other groups only.

    Returns:
        Share of wells whose nearest neighbour has their treatment, for each treatment that other groups contain.
    """
    rows = unit_rows(features)
    hits = np.full(len(rows), np.nan)
    for group in range(design.groups):
        inside, outside = np.flatnonzero(design.group == group), np.flatnonzero(design.group != group)
        if not len(inside) or not len(outside):
            continue
        nearest = outside[(rows[inside] @ rows[outside].T).argmax(axis=1)]
        findable = np.isin(design.treatment[inside], design.treatment[outside])
        found = design.treatment[nearest] == design.treatment[inside]
        hits[inside[findable]] = found[findable]
    return MetricResult.over_treatments(by_treatment(hits, design))


NEIGHBOUR = Metric(
    name="neighbour",
    says="share of wells whose nearest neighbour on another batch or plate has the same compound",
    better=1,
    of=lambda batch: neighbour_accuracy(batch.well_features[1], batch.wells),
    quantity="share of wells whose nearest neighbour is the same compound",
    by_treatment=True,
    aggregated=BY_TREATMENT_FROM_WELLS,
    main=True,
    source="Kim et al. 2025 (not the same batch)",
)
