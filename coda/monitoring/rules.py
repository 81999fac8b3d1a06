"""Drift rules: when a number of a batch is no longer what history makes likely.

Limits come from the accepted batches before each batch, never from the batch itself or a later one. With few of them a
mean and a deviation are uncertain, so each value is turned into a standard normal *Q statistic* (Quesenberry 1991, the
self-starting chart of Hawkins 1987): with a steady normal process they are independent and standard normal however
short the history, so the false-alarm rates below are those of the textbook, also for young sources.

Rules on the Q statistics, with the false alarms a batch on steady history (docs/monitoring.md has the table):

- **Westgard** (control charts of laboratories): 1-2s warns; 1-3s, 2-2s, R-4s, 4-1s and 10-x reject.
- **CUSUM**, self-starting (Hawkins 1987), sees slow drift, which single batches never show. Its limit is chosen for a
  mean number of batches between false alarms (`arl0`), computed by the Markov chain of Brook and Evans (1972). It was
  chosen by measuring it beside an EWMA and others (docs/drift_rules.md, decision 0042).
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

SLACK = 0.5
"""Deviations a batch that the CUSUM lets pass: half of the shift that it sees soonest."""

REST = 2.0
"""How far beyond its limit a sum may stand: four steady batches after the cause is gone, the alarm has ended."""

FARTHEST = 4.0
"""Deviations that one value counts as at most in the CUSUM (Lucas and Crosier 1982): one far value is no slow drift."""

ARL0 = 500.0
"""Batches between two false alarms of one CUSUM, in the mean."""

APART = 5.0
"""Scaled MADs from the other plates of its batch from which a plate stands apart."""

WARNING = "1-2s"
REJECTING = ("1-3s", "2-2s", "R-4s", "4-1s", "10-x")

MEANINGS = {
    "1-2s": "more than 2 SD away: look closer",
    "1-3s": "more than 3 SD away",
    "2-2s": "two in a row more than 2 SD away on one side",
    "R-4s": "plates of one batch far away on both sides",
    "4-1s": "four in a row more than 1 SD away on one side",
    "10-x": "ten in a row on one side of the centre",
    "CUSUM": "the sum of deviations to one side passed its limit: a slow drift",
}
"""Rule -> what it says."""


@dataclass(frozen=True)
class Chart:
    """One series of values as its rules see it; all arrays have one entry a value.

    Attributes:
        q: Q statistics; NaN where there is no value or too short a history.
        centre: Mean of the accepted history before each value.
        low: Three standard deviations below, in the unit of the values and with the uncertainty of a short history.
        high: Three standard deviations above.
        cusum: The larger of the two sums of a CUSUM of the Q statistics, negative for the lower one.
        limit: Its limit on both sides.
        broken: Names of the rules that each value breaks.
    """

    q: Array
    centre: Array
    low: Array
    high: Array
    cusum: Array
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
        charts: Number of series that are watched together: so many times rarer is a false alarm of the CUSUM of each.
        arl0: Batches between two false alarms of all CUSUMs together.
    """
    x = np.asarray(values, dtype=np.float64)
    taken = np.ones(len(x), dtype=bool) if counts is None else np.asarray(counts, dtype=bool)
    q, centre, low, high = q_statistics(x, taken)
    limit = cusum_limit(arl0 * max(charts, 1))
    sums = cusum(q, limit)
    broken = [list(rules) for rules in westgard(q)]
    for rules, value in zip(broken, sums, strict=True):
        if abs(value) > limit:
            rules.append("CUSUM")
    return Chart(q, centre, low, high, sums, limit, tuple(map(tuple, broken)))


def q_statistics(x: Array, taken: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Return Q statistics of a series, and centre, lower and upper limit of the accepted history before each value.

    Args:
        x: One value a batch, NaN where a batch has none.
        taken: Whether each belongs to accepted history.
    """
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
    """Return how many SDs of so short a history are as rare as three of a known one."""
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

    Westgard's rule is about two controls, 2 standard deviations on both sides. With more plates the limit is where it
    is as rare.

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
    """Return how far above and below so many plates must lie to be as unlikely as two at 2 standard deviations."""

    def chance(limit: float) -> float:
        inside, below = 2 * norm.cdf(limit) - 1, norm.cdf(limit)
        return float(1 - 2 * below**count + inside**count)

    return float(brentq(lambda limit: chance(limit) - 2 * norm.sf(2) ** 2, 1.0, 8.0))


def stands_apart(values: ArrayLike, batches: ArrayLike) -> NDArray[np.bool_]:
    """Return which plates stand apart from the others of their batch: by more than `APART` scaled MADs.

    A batch of three plates or fewer has none, and a hundredth of the median is the least that counts as a MAD.

    Args:
        values: One a plate, all finite.
        batches: Which batch each plate is of.
    """
    x = np.asarray(values, dtype=np.float64)
    _, groups, sizes = np.unique(np.asarray(batches), return_inverse=True, return_counts=True)
    if not len(x):
        return np.zeros(0, dtype=bool)
    middle = _medians(x, groups, sizes)
    away = np.abs(x - middle[groups])
    spread = np.maximum(1.4826 * _medians(away, groups, sizes), 0.01 * np.abs(middle))
    return (away > APART * spread[groups]) & (sizes[groups] >= 4)


def _medians(x: Array, groups: NDArray[np.intp], sizes: NDArray[np.intp]) -> Array:
    """Return the median of each group of values."""
    ordered = x[np.lexsort((x, groups))]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    middle: Array = (ordered[first + (sizes - 1) // 2] + ordered[first + sizes // 2]) / 2
    return middle


def cusum(q: ArrayLike, limit: float) -> Array:
    """Return the larger of the two sums of a tabular CUSUM that begin at 0, negative where it is the lower one.

    A missing value leaves it as it is. Sums stop at `REST` beyond the limit, so that an alarm ends when its cause does.
    """
    found, now, upper, lower = [], 0.0, 0.0, 0.0
    for value in np.asarray(q, dtype=np.float64):
        if np.isfinite(value):
            away = min(max(float(value), -FARTHEST), FARTHEST)
            upper = min(max(0.0, upper + away - SLACK), limit + REST)
            lower = min(max(0.0, lower - away - SLACK), limit + REST)
            now = upper if upper >= lower else -lower
        found.append(now)
    return np.asarray(found, dtype=np.float64)


@lru_cache
def cusum_limit(arl0: float) -> float:
    """Return the limit of a CUSUM of standard normal values with this mean number of values to a false alarm.

    Raises:
        ValueError: `arl0` is not above 10.
    """
    if not arl0 > 10:
        raise ValueError(f"a CUSUM with a false alarm every {arl0} values; more than 10 are needed")
    return float(brentq(lambda limit: np.log(run_length(limit) / arl0), 0.3, 25.0, xtol=1e-6))


def run_length(limit: float, *, shift: float = 0.0, states: int = 100) -> float:
    """Return the mean number of values until a CUSUM passes its limit on either side (Brook and Evans 1972).

    Args:
        limit: Of both sums.
        shift: Mean of the values, in standard deviations.
        states: Intervals between 0 and the limit.
    """
    # the two sums never rise together, so their rates add up (van Dobben de Bruyn 1968)
    return 1 / sum(1 / _run_length_above(limit, mean, states) for mean in (shift, -shift))


def _run_length_above(limit: float, shift: float, states: int) -> float:
    step = 2 * limit / (2 * states - 1)  # the first state is 0 with half an interval
    places = np.arange(states)
    edges = step * (places[None, :] - places[:, None]) + SLACK - shift
    stays = norm.cdf(edges + step / 2) - norm.cdf(edges - step / 2)
    stays[:, 0] = norm.cdf(edges[:, 0] + step / 2)
    lengths: Array = np.linalg.solve(np.eye(states) - stays, np.ones(states))
    return float(lengths[0])


def single_limit(arl0: float, charts: int = 1) -> float:
    """Return the limit for one value on both sides, for a false alarm of any of so many series every `arl0` batches."""
    return NormalDist().inv_cdf(1 - 1 / (2 * arl0 * max(charts, 1)))
