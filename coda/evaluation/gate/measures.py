"""All label-free numbers of one candidate: the only thing the gate reads."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from coda.contracts.base import Part
from coda.contracts.gate import Measure
from coda.evaluation.gate.definitions import BY_TREATMENT
from coda.evaluation.metrics.agreement import agreement
from coda.evaluation.metrics.bootstrap import measured
from coda.evaluation.metrics.cka import linear_cka
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.confidence import mean_confidence
from coda.evaluation.metrics.control_distance import control_distance
from coda.evaluation.metrics.controls import control_accuracy, control_map
from coda.evaluation.metrics.field_spread import feature_spread
from coda.evaluation.metrics.marginal_entropy import marginal_entropy
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult
from coda.evaluation.metrics.mutual_information import mutual_information
from coda.evaluation.metrics.neighbour import neighbour_accuracy
from coda.evaluation.metrics.nuclear_norm import nuclear_norm
from coda.evaluation.metrics.predictability import batch_predictability
from coda.evaluation.metrics.rankme import rankme
from coda.evaluation.metrics.retrieval import replicate_map
from coda.evaluation.metrics.top_class import top_class_share
from coda.evaluation.predictions.prediction_levels import TREATED, probabilities_of, well_features


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
    treated = predictions["Metadata_pert_type"].isin(TREATED).to_numpy()
    every = np.asarray(features, dtype=np.float64)
    rows, x = predictions[treated].reset_index(drop=True), every[treated]
    p = probabilities_of(rows)
    finite = bool(np.isfinite(p).all() and np.isfinite(x).all())
    compared_by, groups = comparison_groups(rows)
    shared: dict[str, object] = {
        "name": name, "complexity": complexity, "alarms": alarms, "classes": p.shape[1], "incumbent": incumbent,
    }  # fmt: skip
    if not finite or not len(rows):
        return CandidateMeasures.model_validate(
            {**shared, "finite": finite, "compared_by": compared_by, "measures": {}, "by_treatment": {}}
        )
    scores = {**retrieval_scores(rows, x), **_scores(rows, p, x, groups), **_shifts(predictions, every)}
    if baseline_features is not None:
        scores["cka_to_baseline"] = linear_cka(x, np.asarray(baseline_features)[treated])
    return CandidateMeasures.model_validate(
        {
            **shared,
            "finite": finite,
            "compared_by": compared_by,
            "measures": measures_of(scores, samples=samples, seed=seed),
            "by_treatment": {key: dict(scores[key].by_treatment) for key in BY_TREATMENT},
        }
    )


def retrieval_scores(rows: pd.DataFrame, features: Matrix) -> dict[str, MetricResult]:
    """Return the measures that need features alone, no head.

    Args:
        rows: Treated fields.
        features: Shape (fields, width).
    """
    _, groups = comparison_groups(rows)
    wells, x = well_features(rows.assign(_group=groups), features)
    design = Grouping.of(wells["Metadata_Treatment"].tolist(), wells["_group"].tolist())
    controls = (wells["Metadata_pert_type"] == "poscon").to_numpy()
    retrieval = replicate_map(x, design)
    return {
        "replicate_map": retrieval,
        "neighbour": neighbour_accuracy(x, design),
        "control_map": control_map(retrieval, set(wells["Metadata_Treatment"][controls])),
        "control_accuracy": control_accuracy(x, design, controls),
    }


def _scores(rows: pd.DataFrame, p: Matrix, x: Matrix, groups: list[str]) -> dict[str, MetricResult]:
    design = Grouping.of(rows["Metadata_Treatment"].tolist(), groups)
    return {
        "agreement": agreement(p, design),
        # a plate with fewer treatments than classes cannot use them all
        "marginal_entropy": marginal_entropy(p, at_most=len(design.names)),
        "top_class_share": top_class_share(p),
        "feature_spread": feature_spread(x),
        "rankme": rankme(x),
        "mutual_information": mutual_information(p, rows["Metadata_Treatment"].tolist(), at_most=len(design.names)),
        "nuclear_norm": nuclear_norm(p),
        "mean_confidence": mean_confidence(p),
    }


def _shifts(rows: pd.DataFrame, features: Matrix) -> dict[str, MetricResult]:
    """Return what is left of the batch in the features, over all wells; nothing where some of them are no numbers."""
    if not np.isfinite(features).all():
        return {}
    _, groups = comparison_groups(rows)
    wells, x = well_features(rows.assign(_group=groups), features)
    return {
        "batch_predictability": batch_predictability(x, wells["Metadata_Treatment"].tolist(), wells["_group"].tolist()),
        "control_distance": control_distance(rows, features),
    }


def measures_of(scores: Mapping[str, MetricResult], *, samples: int, seed: int) -> dict[str, Measure]:
    """Return scores as measures with their intervals; what could not be computed is left out."""
    found = {name: _measure(score, samples=samples, seed=seed) for name, score in scores.items()}
    return {name: measure for name, measure in found.items() if measure is not None}


def _measure(score: MetricResult, *, samples: int, seed: int) -> Measure | None:
    if score.by_treatment:
        return measured(score.by_treatment, samples=samples, seed=seed)
    return Measure(value=score.value, n=score.n) if score.n and np.isfinite(score.value) else None
