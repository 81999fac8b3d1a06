"""All label-free numbers of one candidate: the only thing the gate reads."""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from coda.contracts.base import Part
from coda.contracts.gate import Measure
from coda.evaluation.agreement import agreement
from coda.evaluation.bootstrap import measured
from coda.evaluation.confidence import mean_confidence
from coda.evaluation.levels import TREATED, probabilities_of, well_features
from coda.evaluation.marginal_entropy import marginal_entropy
from coda.evaluation.neighbour import neighbour_accuracy
from coda.evaluation.nuclear_norm import nuclear_norm
from coda.evaluation.rankme import rankme
from coda.evaluation.retrieval import replicate_map
from coda.evaluation.score import Design, Matrix, Score
from coda.evaluation.spread import feature_spread
from coda.evaluation.top_class import top_class_share

MEASURES = {
    "agreement": "agreement of one compound's predictions across batches or plates, minus that of other compounds",
    "replicate_map": "how well wells of one compound find each other across batches or plates (0 is chance)",
    "neighbour": "share of wells whose nearest neighbour on another batch or plate has the same compound",
    "marginal_entropy": "how evenly the mechanisms are predicted (1 is evenly, 0 is one mechanism only)",
    "top_class_share": "share of fields that receive the most popular mechanism",
    "feature_spread": "spread of the features (1 is spread, 0 is collapsed)",
    "rankme": "number of directions the features use",
    "nuclear_norm": "confidence and variety of the predictions in one number",
    "mean_confidence": "mean highest probability",
}
"""Name of each measure -> what it says, for reports."""

BY_TREATMENT = ("agreement", "replicate_map", "neighbour")
"""Measures that fall apart into treatments: one of them decides (`gate.deciding_measure`)."""


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


def comparison_groups(rows: pd.DataFrame) -> tuple[Literal["batch", "plate", "nothing"], list[str]]:
    """Return what replicates must differ in, and each row's group.

    Batches where there are two or more, else plates: a first batch has no other to be compared with.
    """
    batch = rows["Metadata_Source"].astype(str) + "/" + rows["Metadata_Batch"].astype(str)
    if len(set(batch)) > 1:
        return "batch", batch.tolist()
    plate = batch + "/" + rows["Metadata_Plate"].astype(str)
    return ("plate" if len(set(plate)) > 1 else "nothing"), plate.tolist()


def measure_candidate(
    name: str,
    predictions: pd.DataFrame,
    features: Matrix,
    *,
    complexity: int,
    samples: int,
    seed: int,
    alarms: tuple[str, ...] = (),
    incumbent: bool = False,
) -> CandidateMeasures:
    """Compute every label-free number of one candidate.

    Args:
        name: The candidate.
        predictions: Field-level prediction table (see `coda.evaluation.levels`); controls are left out here.
        features: Shape (fields, width), what the head reads, pooled over tokens; rows as in `predictions`.
        complexity: Place in the order from simple to involved.
        samples: Bootstrap samples over treatments.
        seed: Seed of the bootstrap.
        alarms: Alarms of the training that made the extractor.
        incumbent: Whether it serves the source already.
    """
    treated = predictions["Metadata_pert_type"].isin(TREATED).to_numpy()
    rows, x = predictions[treated].reset_index(drop=True), np.asarray(features, dtype=np.float64)[treated]
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
    scores = _scores(rows, p, x, groups)
    return CandidateMeasures.model_validate(
        {
            **shared,
            "finite": finite,
            "compared_by": compared_by,
            "measures": {
                key: measure
                for key, score in scores.items()
                if (measure := _measure(score, samples=samples, seed=seed)) is not None
            },
            "by_treatment": {key: dict(scores[key].by_treatment) for key in BY_TREATMENT},
        }
    )


def _scores(rows: pd.DataFrame, p: Matrix, x: Matrix, groups: list[str]) -> dict[str, Score]:
    wells, well_x = well_features(rows.assign(_group=groups), x)
    by_field = Design.of(rows["Metadata_Treatment"].tolist(), groups)
    by_well = Design.of(wells["Metadata_Treatment"].tolist(), wells["_group"].tolist())
    return {
        "agreement": agreement(p, by_field),
        "replicate_map": replicate_map(well_x, by_well),
        "neighbour": neighbour_accuracy(well_x, by_well),
        # a plate with fewer treatments than classes cannot use them all
        "marginal_entropy": marginal_entropy(p, at_most=len(by_field.names)),
        "top_class_share": top_class_share(p),
        "feature_spread": feature_spread(x),
        "rankme": rankme(x),
        "nuclear_norm": nuclear_norm(p),
        "mean_confidence": mean_confidence(p),
    }


def _measure(score: Score, *, samples: int, seed: int) -> Measure | None:
    if score.by_treatment:
        return measured(score.by_treatment, samples=samples, seed=seed)
    return Measure(value=score.value, n=score.n) if score.n and np.isfinite(score.value) else None
