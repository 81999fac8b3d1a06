"""How far estimates of accuracy that need no labels were off, where the truth is known."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from studies.gate_calibration.calibration_ranks import Entry, comparable, useful

ESTIMATES = {
    "predicted_accuracy": "ATC", "accuracy_by_confidence": "DoC", "mean_confidence": "mean confidence",
}  # fmt: skip
"""Metric -> name of the estimate of accuracy that it is."""

KINDS: Mapping[str, Callable[[Entry], bool]] = {
    "without adaptation": lambda entry: useful(entry) and not entry["adapted"],
    "adapted": lambda entry: useful(entry) and entry["adapted"],
    "broken": lambda entry: comparable(entry) and entry["broken"],
}
"""Which models a row is about."""


def estimate_table(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return by how much each estimate missed the true field accuracy of models.

    Args:
        runs: Results of `studies.gate_calibration.calibration_target.Target`.

    Returns:
        One row an estimate and kind of model: ``models``; ``accuracy`` (their mean); ``bias`` (mean of estimate less
        truth); ``error`` (mean of its size); ``error_90`` (nine of ten are nearer); ``constant`` (the error of always
        saying the models' mean accuracy: an estimate that is no nearer knows nothing of a single model).
    """
    rows = []
    for metric, name in ESTIMATES.items():
        for kind, wanted in KINDS.items():
            pairs = [
                (entry["metrics"][metric], entry["field_accuracy"])
                for run in runs
                for entry in run["models"]
                if wanted(entry) and metric in entry["metrics"]
            ]
            if not pairs:
                continue
            said, true = np.array(pairs).T
            missed = np.abs(said - true)
            rows.append(
                {
                    "estimate": name, "of": kind, "models": len(pairs), "accuracy": float(true.mean()),
                    "bias": float((said - true).mean()), "error": float(missed.mean()),
                    "error_90": float(np.quantile(missed, 0.9)), "constant": float(np.abs(true - true.mean()).mean()),
                }
            )  # fmt: skip
    columns = ["estimate", "of", "models", "accuracy", "bias", "error", "error_90", "constant"]
    return pd.DataFrame(rows, columns=columns)
