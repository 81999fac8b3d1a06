"""Features that need no training, measured like a candidate's: what they retrieve is no merit of a model."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from coda.config.policy import Reference
from coda.contracts.base import Part
from coda.contracts.gate import Measure
from coda.evaluation.gate.definitions import METRICS
from coda.evaluation.gate.measures import measures_of
from coda.evaluation.metrics.metric import MetricInputs
from coda.evaluation.metrics.metric_result import Matrix
from coda.evaluation.predictions.prediction_levels import TREATED

SAYS: Mapping[Reference, str] = {
    "pixels": "mean, SD and percentiles of the brightness of each stain in the centre of the stored fields",
    "untrained": "features of an extractor of the same architecture with random weights",
}
"""Reference -> what its features are."""


class ReferenceMeasures(Part):
    """Numbers of one reference, on the same wells as the candidates'."""

    name: Reference
    says: str
    measures: dict[str, Measure]
    by_treatment: dict[str, dict[str, float]] = Field(default_factory=dict)


def measure_reference(
    name: Reference, rows: pd.DataFrame, features: Matrix, groups: NDArray[np.str_], fitted: NDArray[np.bool_],
    *, samples: int, seed: int,
) -> ReferenceMeasures:  # fmt: skip
    """Measure one reference. Its features are standardised as an alignment would, so that it is no easy opponent.

    Args:
        name: The reference.
        rows: Fields of the batch and of archived batches.
        features: Shape (fields, width).
        groups: Shape (fields,), the group on which alignments are fitted: batch or plate.
        fitted: Shape (fields,), the wells they are fitted on.
        samples: Bootstrap samples over treatments.
        seed: Seed of the bootstrap.
    """
    treated = rows["Metadata_pert_type"].isin(TREATED).to_numpy()
    scores = {}
    if treated.any():
        batch = MetricInputs(rows, standardised_by(features, groups, fitted))
        scores = {metric.name: batch.result(metric) for metric in METRICS if metric.needs_no_model}
    return ReferenceMeasures(
        name=name,
        says=f"{SAYS[name]}, standardised within each group that alignments are fitted on",
        measures=measures_of(scores, samples=samples, seed=seed),
        by_treatment={key: dict(score.by_treatment) for key, score in scores.items()},
    )


def standardised_by(features: Matrix, groups: NDArray[np.str_], fitted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return features of mean 0 and SD 1 over the fitted rows of each group; constant columns become 0.

    Args:
        features: Shape (rows, width).
        groups: Shape (rows,).
        fitted: Shape (rows,); a group without such rows uses all of its own.
    """
    x = np.asarray(features, dtype=np.float64)
    result = np.empty_like(x)
    for name in np.unique(groups):
        own = groups == name
        used = own & fitted if (own & fitted).any() else own
        scale = x[used].std(axis=0)
        result[own] = (x[own] - x[used].mean(axis=0)) / np.where(scale > 1e-9, scale, 1.0)
    return result
