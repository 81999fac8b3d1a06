"""All label-free numbers of one candidate: the only thing the gate reads."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from coda.contracts.base import Part
from coda.contracts.gate import Measure
from coda.evaluation.gate.definitions import BY_TREATMENT, METRICS
from coda.evaluation.metrics.bootstrap import measured
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.metric import MetricInputs
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


class CandidateMeasures(Part):
    """Numbers of one way of serving a batch.

    Attributes are plain numbers on purpose: who decides sees neither images nor compounds' mechanisms.
    """

    name: str
    complexity: int = Field(ge=0, description="Order of trying: simpler candidates come first and win ties.")
    finite: bool = Field(description="Whether every prediction and feature is a number.")
    classes: int = Field(ge=0, description="Classes of the head.")
    compared_by: Literal["batch", "plate", "nothing"] = Field(description="What must differ between compared wells.")
    measures: dict[str, Measure]
    by_treatment: dict[str, dict[str, float]] = Field(default_factory=dict)
    alarms: tuple[str, ...] = Field(default=(), description="Alarms of the training that made the extractor.")
    incumbent: bool = Field(default=False, description="Whether it serves the source already.")


def measure_candidate(
    name: str,
    predictions: pd.DataFrame,
    features: Matrix,
    *,
    complexity: int,
    samples: int,
    seed: int,
    baseline_features: Matrix | None = None,
    alarms: tuple[str, ...] = (),
    incumbent: bool = False,
) -> CandidateMeasures:
    """Compute every label-free number of one candidate.

    Args:
        name: The candidate.
        predictions: Field-level prediction table (see `coda.evaluation.predictions.prediction_levels`), all wells; each
            measure takes those that it is defined on (`coda.evaluation.gate.definitions`).
        features: Shape (fields, width), what the head reads, pooled over tokens; rows as in `predictions`.
        complexity: Place in the order from simple to involved.
        samples: Bootstrap samples over treatments.
        seed: Seed of the bootstrap.
        baseline_features: The baseline's features of the same fields, to compare with.
        alarms: Alarms of the training that made the extractor.
        incumbent: Whether it serves the source already.
    """
    batch = MetricInputs(predictions, np.asarray(features, dtype=np.float64), baseline_features)
    p = batch.probabilities
    finite = bool(np.isfinite(p).all() and np.isfinite(batch.features).all())
    shared: dict[str, object] = {
        "name": name, "complexity": complexity, "alarms": alarms, "classes": p.shape[1], "incumbent": incumbent,
        "finite": finite, "compared_by": comparison_groups(batch.rows)[0],
    }  # fmt: skip
    if not finite or not len(batch.rows):
        return CandidateMeasures.model_validate({**shared, "measures": {}, "by_treatment": {}})
    results = {metric.name: batch.result(metric) for metric in METRICS}
    return CandidateMeasures.model_validate(
        {
            **shared,
            "measures": measures_of(results, samples=samples, seed=seed),
            "by_treatment": {key: dict(results[key].by_treatment) for key in BY_TREATMENT},
        }
    )


def measures_of(scores: Mapping[str, MetricResult], *, samples: int, seed: int) -> dict[str, Measure]:
    """Return scores as measures with their intervals; what could not be computed is left out."""
    found = {name: _measure(score, samples=samples, seed=seed) for name, score in scores.items()}
    return {name: measure for name, measure in found.items() if measure is not None}


def _measure(score: MetricResult, *, samples: int, seed: int) -> Measure | None:
    if score.by_treatment:
        return measured(score.by_treatment, samples=samples, seed=seed)
    return Measure(value=score.value, n=score.n) if score.n and np.isfinite(score.value) else None
