"""Detectors of change as scores: an alarm is a score above a threshold, so that all can have one rate of false ones.

Each takes histories, shape (count, batches), sees batches in order, and knows nothing of the true mean and deviation.
What textbooks take as known (a CUSUM's baseline, the scale of Page and Hinkley, the range of ADWIN) is estimated from
the first `FIRST` batches, and these detectors begin after them; those on Q statistics begin with the fifth batch, as
the pages do.

- Limits at mean and deviations of the first, the newest or all batches before: what a laboratory draws by hand.
- EWMA of Q statistics, weight 0.2 (Lucas and Saccucci 1990), which the pages went by before decision 0042.
- Tabular CUSUM (Page 1954; Montgomery, Introduction to Statistical Quality Control, chapter 9), of deviations from the
  baseline.
- Page-Hinkley test as used on streams (Page 1954; Gama et al. 2014): against the running mean of all values.
- ADWIN (Bifet and Gavalda 2007, the exact form that looks at every cut): two parts of the window have different means.
- The project's: Q statistics and run lengths of `coda.monitoring.rules`, a self-starting CUSUM and single values.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from coda.monitoring.rules import FARTHEST, SLACK, run_length

Array = NDArray[np.float64]

FIRST = 10
"""Batches of a baseline that is drawn once."""

WEIGHT = 0.2
"""Weight of the newest batch in the EWMA: sees a shift of one deviation soonest (Lucas and Saccucci 1990)."""

HALF_RANGE = 5.0
"""Deviations from the baseline that ADWIN, which is about numbers between 0 and 1, takes for its ends."""


def plain(values: Array, kind: str) -> Array:
    """Return distances from the mean of history, in its standard deviations, without a sign.

    Args:
        values: Histories.
        kind: History is the 'first' or the 'newest' `FIRST` batches, or 'all' before.
    """
    scores = np.full(values.shape, -np.inf)
    for k in range(FIRST, values.shape[1]):
        start, stop = {"first": (0, FIRST), "newest": (k - FIRST, k), "all": (0, k)}[kind]
        history = values[:, start:stop]
        scores[:, k] = np.abs(values[:, k] - history.mean(axis=1)) / history.std(axis=1, ddof=1)
    return scores


def standardised(values: Array) -> Array:
    """Return distances from the mean of the first batches, in their standard deviations; NaN for these themselves."""
    z: Array = (values - values[:, :FIRST].mean(axis=1, keepdims=True)) / values[:, :FIRST].std(
        axis=1, ddof=1, keepdims=True
    )
    z[:, :FIRST] = np.nan
    return z


def cusum(z: Array, slack: float) -> Array:
    """Return the larger of the upper and lower sums of a tabular CUSUM, which begin at 0; NaN adds nothing."""
    scores = np.full(z.shape, -np.inf)
    upper, lower = np.zeros(len(z)), np.zeros(len(z))
    for k in range(z.shape[1]):
        known = np.isfinite(z[:, k])
        upper = np.where(known, np.maximum(0.0, upper + z[:, k] - slack), upper)
        lower = np.where(known, np.maximum(0.0, lower - z[:, k] - slack), lower)
        scores[:, k] = np.where(known, np.maximum(upper, lower), -np.inf)
    return scores


def self_starting(q: Array) -> Array:
    """Return the CUSUM of Q statistics as the pages have it, without the end of its alarms."""
    return cusum(np.clip(q, -FARTHEST, FARTHEST), SLACK)


def page_hinkley(values: Array, tolerance: float) -> Array:
    """Return the distance of the cumulative sum about the running mean from its extreme, both ways, in SDs.

    Args:
        values: Histories.
        tolerance: Change that is let pass, in deviations of the first batches.
    """
    z = values - np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)
    z /= values[:, :FIRST].std(axis=1, ddof=1, keepdims=True)
    rising, falling = np.cumsum(z - tolerance, axis=1), np.cumsum(z + tolerance, axis=1)
    up = rising - np.minimum.accumulate(rising, axis=1)
    down = np.maximum.accumulate(falling, axis=1) - falling
    scores = np.maximum(up, down)
    scores[:, :FIRST] = -np.inf
    return scores


def adwin(values: Array) -> Array:
    """Return ln(2 / delta) of the smallest delta at which ADWIN cuts its window.

    It cuts where the means of two parts, of n0 and n1 values, differ by more than
    ``sqrt(2 s2 L / m) + 2 L / (3 m)``, with ``L = ln(2 n / delta)``, m half the harmonic mean of n0 and n1, and s2 the
    window's variance (their equation 3.1). Solved for L, the largest over all cuts is the score.
    """
    mean, deviation = (
        values[:, :FIRST].mean(axis=1, keepdims=True),
        values[:, :FIRST].std(axis=1, ddof=1, keepdims=True),
    )
    unit = np.clip((values - mean) / (2 * HALF_RANGE * deviation) + 0.5, 0.0, 1.0)
    scores = np.full(values.shape, -np.inf)
    for k in range(FIRST, values.shape[1]):
        window, left = unit[:, : k + 1], np.arange(1, k + 1)
        right, sums = k + 1 - left, np.cumsum(window, axis=1)
        apart = np.abs(sums[:, :-1] / left - (sums[:, -1:] - sums[:, :-1]) / right)
        size = 1 / (1 / left + 1 / right)
        a, b = np.sqrt(2 * window.var(axis=1, keepdims=True) / size), 2 / (3 * size)
        root = (np.sqrt(a**2 + 4 * b * apart) - a) / (2 * b)
        scores[:, k] = (root**2).max(axis=1) - np.log(k + 1)
    return scores


def single(q: Array) -> Array:
    """Return Q statistics without their signs."""
    return np.where(np.isfinite(q), np.abs(q), -np.inf)


def ewma(q: Array) -> Array:
    """Return the EWMA of Q statistics, which begins at 0, without its sign."""
    now, scores = np.zeros(len(q)), np.full(q.shape, -np.inf)
    for k in range(q.shape[1]):
        known = np.isfinite(q[:, k])
        now = np.where(known, WEIGHT * q[:, k] + (1 - WEIGHT) * now, now)
        scores[:, k] = np.where(known, np.abs(now), -np.inf)
    return scores


def ewma_run_length(limit: float, shift: float = 0.0, states: int = 101) -> float:
    """Return the mean number of standard normal values until the EWMA leaves its limits (Brook and Evans 1972)."""
    step = 2 * limit / states
    middle = -limit + step * (np.arange(states) + 0.5)
    edges = (middle[None, :] - (1 - WEIGHT) * middle[:, None]) / WEIGHT - shift
    half = step / (2 * WEIGHT)
    stays = norm.cdf(edges + half) - norm.cdf(edges - half)
    lengths: Array = np.linalg.solve(np.eye(states) - stays, np.ones(states))
    return float(lengths[states // 2])


def cusum_or_single(q: Array) -> Array:
    """Return what the pages go by: their word *drift* is a score above ``log(ARL0 * charts)``.

    That is how rare a batch is by its CUSUM or by its single value: batches to a false alarm, as a logarithm.
    """
    return _rarer(q, np.interp(self_starting(q), *_cusum_lengths()))


def ewma_or_single(q: Array) -> Array:
    """Return the same with the EWMA in place of the CUSUM."""
    return _rarer(q, np.interp(ewma(q), *_ewma_lengths()))


def _rarer(q: Array, slow: Array) -> Array:
    sudden = -np.log(np.maximum(2 * norm.sf(np.abs(q)), 1e-300))
    return np.where(np.isfinite(q), np.maximum(slow, sudden), -np.inf)


# limits and the logarithms of their run lengths, as far as these can be computed
@lru_cache
def _cusum_lengths() -> tuple[Array, Array]:
    grid = np.linspace(0.1, 18.0, 90)
    return grid, np.log([run_length(float(limit)) for limit in grid])


@lru_cache
def _ewma_lengths() -> tuple[Array, Array]:
    grid = np.linspace(0.05, 2.1, 83)
    return grid, np.log([ewma_run_length(float(limit)) for limit in grid])
