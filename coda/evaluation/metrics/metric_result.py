"""MetricResult: what every metric of a batch returns, a number and the treatments behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class MetricResult:
    """A metric's value.

    Attributes:
        value: The number itself; NaN where it cannot be computed (`n` is 0 then).
        n: Units behind the number: treatments where `by_treatment` is given, else wells or fields.
        by_treatment: Value of each treatment, for bootstraps over treatments; `value` is their mean. Empty for
            metrics that do not fall apart into treatments.
    """

    value: float
    n: int
    by_treatment: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def over_treatments(cls, values: Mapping[str, float]) -> "MetricResult":
        """Return the score whose value is the mean over treatments, NaN when there is none."""
        return cls(float(np.mean(list(values.values()))) if values else float("nan"), len(values), dict(values))


@dataclass(frozen=True)
class Grouping:
    """What is known about the rows that a metric compares: treatment names and the group that must differ.

    Attributes:
        names: Distinct treatment names, sorted.
        treatment: Position in `names` of each row.
        group: Number of each row's group, 0 to `groups` - 1: its batch, or its plate where there is one batch.
        groups: Number of groups.
    """

    names: tuple[str, ...]
    treatment: NDArray[np.intp]
    group: NDArray[np.intp]
    groups: int

    @classmethod
    def of(cls, treatments: Sequence[str], groups: Sequence[str]) -> "Grouping":
        """Number treatments and groups; row order does not matter to the numbering."""
        names, treatment = np.unique(np.asarray(treatments, dtype=str), return_inverse=True)
        levels, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        return cls(tuple(str(name) for name in names), treatment.reshape(-1), group.reshape(-1), len(levels))


def by_treatment(values: Matrix, design: Grouping) -> dict[str, float]:
    """Return the mean of finite row values for each treatment that has one."""
    known = np.isfinite(values)
    sums = np.bincount(design.treatment[known], weights=values[known], minlength=len(design.names))
    counts = np.bincount(design.treatment[known], minlength=len(design.names))
    return {name: float(sums[k] / counts[k]) for k, name in enumerate(design.names) if counts[k]}


def unit_rows(features: Matrix) -> NDArray[np.float64]:
    """Return the rows scaled to length 1 in float64; a zero row stays zero."""
    rows = np.asarray(features, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
