"""How well each label-free metric ranks models by true accuracy: Spearman's correlation, bootstrapped over runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.gate_calibration.calibration_metrics import BETTER
from studies.gate_calibration.calibration_models import AS_THEY_ARE, SHUFFLED_MAP

Run = Mapping[str, Any]
Entry = Mapping[str, Any]

LEAST_MODELS = 4
"""Models of a run that must have a value, for a correlation within it."""

SAMPLES = 300


def useful(entry: Entry) -> bool:
    """Return whether a model was made as it should be, on plates as they are."""
    return entry["view"] == AS_THEY_ARE and not entry["broken"]


def comparable(entry: Entry) -> bool:
    """Return whether a model was judged on the same wells and compounds as the others of its run, broken or not."""
    return bool(entry["view"] != SHUFFLED_MAP)


def rank_table(runs: Sequence[Run], *, seed: int = 0) -> pd.DataFrame:
    """Return the correlation of every metric with true field accuracy.

    A metric of which less is better has its sign turned, so that 1 always means: ranks the models as the truth does.

    Args:
        runs: Results of `studies.gate_calibration.calibration_target.Target`.
        seed: Of the bootstrap over runs.

    Returns:
        One row a metric, best first, with ``better`` (what was expected: 'more' or 'less') and, each with ``_low`` and
        ``_high`` (95 %):
        ``within``: mean over runs of the correlation among the models of a run that are not broken;
        ``with_broken``: the same with the broken models among them;
        ``change``: correlation over all runs of the change against the unadapted model with the change in accuracy;
        ``adaptation``: the same against the unadapted model with the same alignment: what training alone changed.
    """
    rows = []
    for metric, sign in BETTER.items():
        row: dict[str, Any] = {"metric": metric, "better": "more" if sign > 0 else "less"}
        for column, pairs in (
            ("within", [_pairs(run, metric, sign, useful) for run in runs]),
            ("with_broken", [_pairs(run, metric, sign, comparable) for run in runs]),
        ):
            values = np.array([rho for own in pairs if np.isfinite(rho := spearman(*own))])
            row |= _with_interval(column, len(values), _mean_of(values), seed)
            if column == "within":
                row["runs"] = len(values)
        for column, same_way in (("change", False), ("adaptation", True)):
            changes = [change for run in runs if len((change := _changes(run, metric, sign, same_way=same_way))[0])]
            row |= _with_interval(column, len(changes), _pooled(changes), seed)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("within", ascending=False, kind="stable", na_position="last").reset_index(drop=True)


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation, ties averaged; NaN with too few values or where one side never differs."""
    if len(x) < LEAST_MODELS:
        return float("nan")
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # several times faster than scipy's for short arrays, and there are tens of thousands of them
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def _pairs(run: Run, metric: str, sign: int, wanted: Callable[[Entry], bool]) -> Pair:
    kept = [entry for entry in run["models"] if wanted(entry) and metric in entry["metrics"]]
    found = np.array([sign * entry["metrics"][metric] for entry in kept])
    return found, np.array([entry["field_accuracy"] for entry in kept])


def _changes(run: Run, metric: str, sign: int, *, same_way: bool) -> Pair:
    kept = [entry for entry in run["models"] if useful(entry) and metric in entry["metrics"]]
    before = {entry["way"]: entry for entry in kept if not entry["adapted"]}
    found = [
        (
            sign * (entry["metrics"][metric] - start["metrics"][metric]),
            entry["field_accuracy"] - start["field_accuracy"],
        )
        for entry in kept
        if (start := before.get(entry["way"] if same_way else "none")) is not None and start is not entry
        if entry["adapted"] or not same_way
    ]
    return np.array([a for a, _ in found]), np.array([b for _, b in found])


def _mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], float]:
    def value(drawn: NDArray[np.intp]) -> float:
        return float(values[drawn].mean())

    return value


def _pooled(changes: Sequence[Pair]) -> Callable[[NDArray[np.intp]], float]:
    def value(drawn: NDArray[np.intp]) -> float:
        return spearman(*(np.concatenate([changes[k][side] for k in drawn]) for side in (0, 1)))

    return value


def _with_interval(name: str, runs: int, value: Callable[[NDArray[np.intp]], float], seed: int) -> dict[str, float]:
    if not runs:
        return {name: float("nan"), f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    rng = np.random.default_rng(seed)
    drawn = [value(rng.integers(0, runs, runs)) for _ in range(SAMPLES)]
    finite = np.array([rho for rho in drawn if np.isfinite(rho)])
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return {name: value(np.arange(runs)), f"{name}_low": float(low), f"{name}_high": float(high)}
