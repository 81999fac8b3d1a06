"""Class shares of a batch against accepted history: how far away, and which classes moved.

Batches of one laboratory differ by more than the chance of their wells, or by less where each has the same compounds.
So the chance of the wells is no yardstick; what batches of history show is. Counts of classes are an overdispersed
multinomial (Williams 1982): shares of a batch of n wells vary around the centre p with covariance ``s * g(n) *
(diag(p) - pp')``, ``g(n) = 1/n + (1 - 1/n) rho``. Variation between batches (rho) and s (below 1: less than chance)
are estimated by moments from accepted history alone. The squared distance of the batch over this variance is compared
with an F distribution, which has the uncertainty of a short history in it. tests/monitoring/test_class_shares.py
states false alarms by simulation, decision 0039 those with a dozen classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm, t

from coda.monitoring.rules import ARL0, MIN_HISTORY

Array = NDArray[np.float64]

LEVEL = 0.95
"""Of the intervals of all classes of a batch together: in one steady batch of twenty one of them leaves 0 out."""

LEAST_VARIATION = 0.05
"""Smallest s: where all batches had the same answers, one well that is called otherwise is no event."""

LOWEST_Q = -3.0
"""Statistic of a batch that is more like history than batches are: no drift, however alike."""


@dataclass(frozen=True)
class Compared:
    """One batch against the accepted batches before it; arrays have one entry a class.

    Attributes:
        distance: Total variation, 0 to 1: the share of wells that would need another class to be as history.
        limit: Distance in the same direction that a steady source passes in one batch of `ARL0`.
        q: Standard normal for a steady source; large is far.
        p_value: How often a steady source is as far away.
        share: Of this batch.
        centre: Of history.
        low: Lower end of the interval of `share - centre`, all classes together at `LEVEL`.
        high: Upper end.
        batches: Accepted batches behind the centre.
        wells: Of this batch.
    """

    distance: float
    limit: float
    q: float
    p_value: float
    share: Array
    centre: Array
    low: Array
    high: Array
    batches: int
    wells: int

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Whether the interval of each class leaves 0 out."""
        return (self.low > 0) | (self.high < 0)


def compare_in_order(counts: ArrayLike, taken: Sequence[bool] | NDArray[np.bool_]) -> list[Compared | None]:
    """Return each batch compared with the accepted ones before it; None for a batch that cannot be.

    Args:
        counts: Wells of each class, (batches, classes), in the order of time; a row of zeros has no answers.
        taken: Whether each batch belongs to accepted history.

    Raises:
        ValueError: The counts are no table of at least two classes, or negative or not finite.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(f"counts of shape {table.shape}; expected (batches, at least 2 classes), finite, 0 or more")
    history, found = _History(table.shape[1]), list[Compared | None]()
    for row, counted in zip(table, taken, strict=True):
        wells = float(row.sum())
        told = history.compare(row / wells, wells) if wells > 0 else None
        found.append(told)
        if counted and wells > 0:
            # one far batch must not widen the limits for ever: it counts as far as the limit, in its own direction
            pull = 1.0 if told is None or told.distance <= told.limit else told.limit / told.distance
            centre = row / wells if told is None else told.centre
            history.add(centre + pull * (row / wells - centre), wells)
    return found


class _History:
    """Sums over accepted batches, from which centre and variation follow."""

    def __init__(self, classes: int) -> None:
        self._count, self._wells, self._squared_wells = 0, 0.0, 0.0
        self._sum, self._squares = np.zeros(classes), np.zeros(classes)  # of wells * share, of wells * share ** 2

    def add(self, share: Array, wells: float) -> None:
        self._count += 1
        self._wells += wells
        self._squared_wells += wells**2
        self._sum += wells * share
        self._squares += wells * share**2

    def compare(self, share: Array, wells: float) -> Compared | None:
        if self._count < MIN_HISTORY:
            return None
        classes, before = len(share), self._count - 1
        # half a well more of each class: one that history never had is rare, not impossible
        centre = (self._sum + 0.5) / (self._wells + 0.5 * classes)
        mean = self._sum / self._wells
        apart = float(((self._squares - self._wells * mean**2) / centre).sum()) / (classes - 1)
        spread_wells = self._wells - self._squared_wells / self._wells - before
        rho = float(np.clip((apart - before) / spread_wells, 0.0, 1.0)) if spread_wells > 0 else 0.0
        scale = 1.0 if rho > 0 else max(apart / before, LEAST_VARIATION)
        of_history = rho * self._squared_wells / self._wells**2 + (1 - rho) / self._wells
        variance = scale * (1 / wells + (1 - 1 / wells) * rho + of_history)
        statistic = float(((share - centre) ** 2 / centre).sum()) / (classes - 1) / variance
        freedom = before * (classes - 1)
        p_value = float(f_distribution.sf(statistic, classes - 1, freedom))
        distance = float(np.abs(share - centre).sum()) / 2
        farthest = float(f_distribution.isf(1 / ARL0, classes - 1, freedom))
        reach = t.isf((1 - LEVEL) / (2 * classes), freedom) * np.sqrt(variance * centre * (1 - centre))
        return Compared(
            distance=distance,
            # the statistic grows with the square of the distance in one direction
            limit=distance * float(np.sqrt(farthest / statistic)) if statistic > 0 else 0.0,
            q=max(float(norm.isf(max(p_value, 1e-300))), LOWEST_Q),
            p_value=p_value,
            share=share,
            centre=centre,
            low=share - centre - reach,
            high=share - centre + reach,
            batches=self._count,
            wells=round(wells),
        )
