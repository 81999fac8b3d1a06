"""How the pages and plain limits see one plate that is not as the others of its batch, or whose control failed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.drift_runs import MessageCallback, Rate, q_of, rate
from benchmarks.drift.simulated_histories import Array, draw_plates
from coda.monitoring.rules import ARL0, range_rule, single_limit, stands_apart

SPREAD = 0.35
"""Deviation of the plates of a batch around it, where batches differ by 1: about as simulated laboratories have it."""

BEFORE = 20
"""Batches before the one with the bad plate."""

OFF = {"as always": 0.0, "one plate off by 2 SD": 2.0, "a control that fails: off by 5 SD": 5.0}
"""What happens to a plate -> by how many deviations of batches."""

COUNTS = (2, 4, 12)
"""Plates of a batch."""


@dataclass(frozen=True)
class PlateRates:
    """How often a rule flags the newest batch.

    Attributes:
        rule: Its name.
        plates: Plates of the batch.
        rates: What happens -> how often.
    """

    rule: str
    plates: int
    rates: dict[str, Rate]


def run_plates(seeds: Sequence[int], count: int, tell: MessageCallback = lambda _: None) -> list[PlateRates]:
    """Measure every rule with every number of plates on so many histories of each seed."""
    found: dict[tuple[str, int], dict[str, Rate]] = {}
    for plates in COUNTS:
        tell(f"{count * len(seeds)} histories of {plates} plates a batch, for each of {len(OFF)} cases")
        for words, off in OFF.items():
            parts = [draw_plates(seed, count, BEFORE + 1, plates, spread=SPREAD, off=off) for seed in seeds]
            values = np.concatenate(parts)
            for rule, told in _told(values).items():
                found.setdefault((rule, plates), {})[words] = rate(int(told.sum()), len(told))
    return [PlateRates(rule, plates, rates) for (rule, plates), rates in found.items()]


def _told(values: Array) -> dict[str, NDArray[np.bool_]]:
    """Return which histories each rule finds something in, in the newest batch."""
    newest = values[:, -1]
    groups = np.repeat(np.arange(len(values)), values.shape[2])
    earlier = values[:, :-1].reshape(len(values), -1)
    mean, deviation = earlier.mean(axis=1, keepdims=True), earlier.std(axis=1, ddof=1, keepdims=True)
    return {
        "median of the plates, single value": np.abs(q_of(np.median(values, axis=2))[:, -1]) > single_limit(ARL0),
        "R-4s over the plates": np.array([range_rule(row) for row in (newest - mean) / deviation]),
        "a plate stands apart": stands_apart(newest.ravel(), groups).reshape(newest.shape).any(axis=1),
        "each plate, mean ± 3 SD of all before": (np.abs(newest - mean) / deviation > 3).any(axis=1),
    }
