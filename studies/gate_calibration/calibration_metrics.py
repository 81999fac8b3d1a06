"""Every label-free number of one model on one target: the gate's own, and those that are only calibrated so far."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.gate.definitions import METRICS
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from coda.evaluation.metrics.mmd import mmd
from coda.evaluation.predictions.prediction_levels import TREATED, well_features
from studies.metrics.alpha_req import alpha_req
from studies.metrics.atc import confidence_threshold, predicted_accuracy
from studies.metrics.bras import bras
from studies.metrics.confidence_difference import accuracy_by_confidence
from studies.metrics.control_separation import robust_ssmd, robust_z_prime
from studies.metrics.ilisi import ilisi
from studies.metrics.kbet import kbet_acceptance
from studies.metrics.kid import control_kid
from studies.metrics.lidar import lidar
from studies.metrics.pc_regression import pc_regression
from studies.metrics.replicating import percent_replicating
from studies.metrics.retention import source_retention

BETTER: Mapping[str, int] = {
    **{metric.name: metric.better for metric in METRICS},
    "percent_replicating": 1, "predicted_accuracy": 1, "accuracy_by_confidence": 1, "alpha_req": -1, "lidar": 1,
    "kbet": 1, "ilisi": 1, "bras": 1, "pc_regression": -1, "control_mmd_to_source": -1, "control_kid_to_source": -1,
    "robust_z_prime": 1, "robust_ssmd": 1, "source_retention": 1,
}  # fmt: skip
"""Metric -> 1 where more should be better, -1 where less should be; fixed before any figure was looked at."""


@dataclass(frozen=True)
class SourceSide:
    """The labelled, held-out fields of the source, as one model and one alignment see them.

    Attributes:
        rows: Field index.
        truth: Class of each field, -1 without a label.
        features: Shape (fields, width).
        probabilities: Shape (fields, classes).
        before: The same of the unadapted model with the same head and alignment.
    """

    rows: pd.DataFrame
    truth: NDArray[np.int64]
    features: Matrix
    probabilities: Matrix
    before: Matrix


def all_metrics(
    measured: CandidateMeasures, rows: pd.DataFrame, features: Matrix, probabilities: Matrix, source: SourceSide,
    *, seed: int,
) -> dict[str, float]:  # fmt: skip
    """Return every label-free metric by name; what cannot be computed is left out.

    Args:
        measured: The gate's own numbers of this model.
        rows: Field index of the target, all wells.
        features: Shape (fields, width), after the alignment.
        probabilities: Shape (fields, classes).
        source: The source's held-out fields under the same model.
        seed: Of the null of `percent_replicating`.
    """
    scores = {**_replicates(rows, features, seed), **_mixing(rows, features), **_against_source(rows, features, source)}
    treated = rows["Metadata_pert_type"].isin(TREATED).to_numpy()
    threshold = confidence_threshold(source.before, source.truth)
    scores |= {
        "predicted_accuracy": predicted_accuracy(probabilities[treated], threshold),
        "accuracy_by_confidence": accuracy_by_confidence(probabilities[treated], source.before, source.truth),
        "alpha_req": alpha_req(features[treated]),
        "source_retention": source_retention(source.probabilities, source.before, source.truth),
    }
    values = {name: measure.value for name, measure in measured.measures.items()}
    values |= {name: score.value for name, score in scores.items() if score.n}
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _replicates(rows: pd.DataFrame, features: Matrix, seed: int) -> dict[str, MetricResult]:
    treated = rows["Metadata_pert_type"].isin(TREATED).to_numpy()
    own = rows[treated].reset_index(drop=True)
    _, groups = comparison_groups(own)
    wells, x = well_features(own.assign(_group=groups), features[treated])
    treatments, labels = wells["Metadata_Treatment"].tolist(), wells["_group"].tolist()
    return {
        "percent_replicating": percent_replicating(x, treatments, labels, seed=seed),
        "lidar": lidar(x, treatments),
        "bras": bras(x, treatments, labels),
    }


def _mixing(rows: pd.DataFrame, features: Matrix) -> dict[str, MetricResult]:
    _, groups = comparison_groups(rows)
    wells, x = well_features(rows.assign(_group=groups), features)
    labels = wells["_group"].tolist()
    return {
        "kbet": kbet_acceptance(x, labels),
        "ilisi": ilisi(x, labels),
        "pc_regression": pc_regression(x, labels),
        "robust_z_prime": robust_z_prime(rows, features),
        "robust_ssmd": robust_ssmd(rows, features),
    }


def _against_source(rows: pd.DataFrame, features: Matrix, source: SourceSide) -> dict[str, MetricResult]:
    sides = [_controls(rows, features), _controls(source.rows, source.features)]
    return {
        "control_mmd_to_source": mmd(np.asarray(sides[0]), np.asarray(sides[1])),
        "control_kid_to_source": control_kid(rows, features, source.rows, source.features),
    }


def _controls(rows: pd.DataFrame, features: Matrix) -> Matrix:
    """Return the features of negative-control wells; an empty array without any."""
    controls = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    if not controls.any():
        return np.asarray(features)[:0]
    return well_features(rows[controls].reset_index(drop=True), np.asarray(features)[controls])[1]
