"""Drift rules: when a number of a batch is no longer what history makes likely.

Limits come from the accepted batches before each batch, never from the batch itself or a later one. With few of them a
mean and a deviation are uncertain, so each value is turned into a standard normal *Q statistic* (Quesenberry 1991, the
self-starting chart of Hawkins 1987): with a steady normal process they are independent and standard normal however
short the history, so the false-alarm rates below are those of the textbook, also for young sources.

Rules on the Q statistics, with the false alarms a batch on steady history (docs/monitoring.md has the table):

- **Westgard** (control charts of laboratories): 1-2s warns; 1-3s, 2-2s, R-4s, 4-1s and 10-x reject.
- **EWMA** (weight 0.2) sees slow drift, which single batches never show. Its limit is chosen for a mean number of
  batches between false alarms (`arl0`), computed by the Markov chain of Brook and Evans (1972).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, t

Array = NDArray[np.float64]

MIN_HISTORY = 4
"""Accepted batches before the first that is judged."""

WEIGHT = 0.2
"""Weight of the newest batch in the EWMA: sees a shift of one deviation soonest (Lucas and Saccucci 1990)."""

ARL0 = 500.0
"""Batches between two false alarms of one EWMA, in the mean."""

WARNING = "1-2s"
REJECTING = ("1-3s", "2-2s", "R-4s", "4-1s", "10-x")

MEANINGS = {
    "1-2s": "more than 2 deviations away: look closer",
    "1-3s": "more than 3 deviations away",
    "2-2s": "two in a row more than 2 deviations away on one side",
    "R-4s": "plates of one batch far away on both sides",
    "4-1s": "four in a row more than 1 deviation away on one side",
    "10-x": "ten in a row on one side of the centre",
    "EWMA": "the weighted mean of the newest batches left its limits: a slow drift",
}
"""Rule -> what it says."""


@dataclass(frozen=True)
class Chart:
    """One series of values as its rules see it; all arrays have one entry a value.

    Attributes:
        q: Q statistics; NaN where there is no value or too short a history.
        centre: Mean of the accepted history before each value.
        low: Three deviations below, in the unit of the values and with the uncertainty of a short history.
        high: Three deviations above.
        ewma: Exponentially weighted mean of the Q statistics.
        limit: Its limit on both sides.
        broken: Names of the rules that each value breaks.
    """

    q: Array
    centre: Array
    low: Array
    high: Array
    ewma: Array
    limit: float
    broken: tuple[tuple[str, ...], ...]

    def out(self, place: int) -> bool:
        """Return whether a value breaks a rule that is more than a warning."""
        return any(rule != WARNING for rule in self.broken[place])


def chart(values: ArrayLike, *, counts: ArrayLike | None = None, charts: int = 1, arl0: float = ARL0) -> Chart:
    """Return a series judged by all rules.

    Args:
        values: One value a batch, in the order of time; NaN where a batch has none.
        counts: Whether each belongs to accepted history; all do when not given.
        charts: Number of series that are watched together: so many times rarer is a false alarm of the EWMA of each.
        arl0: Batches between two false alarms of all EWMAs together.
    """
    x = np.asarray(values, dtype=np.float64)
    taken = np.ones(len(x), dtype=bool) if counts is None else np.asarray(counts, dtype=bool)
    q, centre, low, high = _q_statistics(x, taken)
    limit = ewma_limit(arl0 * max(charts, 1))
    smooth = ewma(q)
    broken = [list(rules) for rules in westgard(q)]
    for rules, value in zip(broken, smooth, strict=True):
        if abs(value) > limit:
            rules.append("EWMA")
    return Chart(q, centre, low, high, smooth, limit, tuple(map(tuple, broken)))


def _q_statistics(x: Array, taken: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Return Q statistics, and centre and limits of the accepted history before each value."""
    score, centre, low, high = (np.full(len(x), np.nan) for _ in range(4))
    freedom = np.ones(len(x))
    count, mean, squares = 0, 0.0, 0.0  # of the accepted history so far (Welford)
    for k, value in enumerate(x):
        held = value
        if count >= MIN_HISTORY:
            # numbers that are all the same have no deviation; a millionth of their size keeps rounding from counting
            spread = max(float(np.sqrt(squares / (count - 1))), 1e-6 * abs(mean), 1e-12) * np.sqrt(1 + 1 / count)
            reach = _reach(count - 1) * spread
            freedom[k], centre[k], low[k], high[k] = count - 1, mean, mean - reach, mean + reach
            score[k] = (value - mean) / spread
            # one far value must not widen the limits for ever; left out, they would grow too narrow by chance
            held = min(max(value, low[k]), high[k])
        if np.isfinite(value) and taken[k]:
            count += 1
            change = held - mean
            mean += change / count
            squares += change * (held - mean)
    # by the tail on the value's own side: next to 1 a probability has no digits left
    q = -np.sign(score) * norm.ppf(np.maximum(t.sf(np.abs(score), freedom), 1e-300))
    return q, centre, low, high


@lru_cache(maxsize=4096)
def _reach(freedom: int) -> float:
    """Return how many deviations of so short a history are as rare as three of a known one."""
    return float(t.ppf(norm.cdf(3), freedom))


def westgard(q: ArrayLike) -> tuple[tuple[str, ...], ...]:
    """Return the Westgard rules that each value of a series breaks; values without a number are passed over.

    R-4s compares plates of one batch and is not looked for here; see `range_rule`.
    """
    z = np.asarray(q, dtype=np.float64)
    found: list[tuple[str, ...]] = []
    seen: list[float] = []
    for value in z:
        if not np.isfinite(value):
            found.append(())
            continue
        seen.append(float(value))
        rules = [name for name, away in (("1-2s", 2), ("1-3s", 3)) if abs(value) > away]
        rules += [name for name, count, away in _RUNS if _run(seen[-count:], count, away)]
        found.append(tuple(rules))
    return tuple(found)


_RUNS = (("2-2s", 2, 2.0), ("4-1s", 4, 1.0), ("10-x", 10, 0.0))


def _run(newest: Sequence[float], count: int, away: float) -> bool:
    return len(newest) == count and (min(newest) > away or max(newest) < -away)


def range_rule(z: ArrayLike) -> bool:
    """Return whether the plates of one batch break R-4s: one far above and another far below.

    Westgard's rule is about two controls, 2 deviations on both sides. With more plates the limit is where it is as
    rare.

    Args:
        z: Deviations of the plates from what plates of earlier batches show.
    """
    known = np.asarray(z, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return False
    limit = range_limit(len(known))
    return bool(known.max() > limit and known.min() < -limit)


@lru_cache
def range_limit(count: int) -> float:
    """Return how far above and below so many plates must lie to be as unlikely as two at 2 deviations."""

    def chance(limit: float) -> float:
        inside, below = 2 * norm.cdf(limit) - 1, norm.cdf(limit)
        return float(1 - 2 * below**count + inside**count)

    return float(brentq(lambda limit: chance(limit) - 2 * norm.sf(2) ** 2, 1.0, 8.0))


def ewma(q: ArrayLike, weight: float = WEIGHT) -> Array:
    """Return the exponentially weighted mean of a series that begins at 0; a missing value leaves it as it is."""
    found, now = [], 0.0
    for value in np.asarray(q, dtype=np.float64):
        now = now if not np.isfinite(value) else weight * float(value) + (1 - weight) * now
        found.append(now)
    return np.asarray(found, dtype=np.float64)


@lru_cache
def ewma_limit(arl0: float, weight: float = WEIGHT) -> float:
    """Return the limit of an EWMA of standard normal values with this mean number of values to a false alarm.

    Raises:
        ValueError: `arl0` is not above 2, or the weight not between 0 and 1.
    """
    if not (arl0 > 2 and 0 < weight < 1):
        raise ValueError(f"an EWMA of weight {weight} with a false alarm every {arl0} values; 0 < weight < 1, arl0 > 2")
    deviation = float(np.sqrt(weight / (2 - weight)))
    return deviation * float(brentq(lambda width: run_length(width * deviation, weight) - arl0, 0.1, 7.0, xtol=1e-6))


def run_length(limit: float, weight: float = WEIGHT, *, shift: float = 0.0, states: int = 101) -> float:
    """Return the mean number of values until an EWMA leaves its limits (Brook and Evans 1972).

    Args:
        limit: On both sides of 0.
        weight: Of the newest value.
        shift: Mean of the values, in deviations.
        states: Intervals between the limits; odd, so that the EWMA begins in the middle of one.
    """
    step = 2 * limit / states
    middle = -limit + step * (np.arange(states) + 0.5)
    edges = (middle[None, :] - (1 - weight) * middle[:, None]) / weight - shift
    half = step / (2 * weight)
    stays = norm.cdf(edges + half) - norm.cdf(edges - half)
    lengths: Array = np.linalg.solve(np.eye(states) - stays, np.ones(states))
    return float(lengths[states // 2])


def single_limit(arl0: float, charts: int = 1) -> float:
    """Return the limit for one value on both sides, for a false alarm of any of so many series every `arl0` batches."""
    return NormalDist().inv_cdf(1 - 1 / (2 * arl0 * max(charts, 1)))
