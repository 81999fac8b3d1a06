"""Bootstrap over treatments: wells of one treatment are no independent witnesses, treatments are."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coda.contracts.gate import Measure


def interval(values: NDArray[np.float64], *, samples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean.

    The same seed and number of values give the same resamples: that pairs comparisons and makes them repeatable,
    and the interval's ends never fall when a value rises.

    Args:
        values: One value for each treatment, at least one.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    return _interval(np.ascontiguousarray(values, dtype=np.float64).tobytes(), samples, seed)


# a gate asks for the same interval several times, and a calibration of its thresholds hundreds of times
@lru_cache(maxsize=4096)
def _interval(content: bytes, samples: int, seed: int) -> tuple[float, float]:
    values = np.frombuffer(content, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (samples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measured(by_treatment: Mapping[str, float], *, samples: int, seed: int) -> Measure | None:
    """Return the mean over treatments with its interval, or None when there is no treatment."""
    if not by_treatment:
        return None
    values = np.array([by_treatment[name] for name in sorted(by_treatment)])
    low, high = interval(values, samples=samples, seed=seed)
    return Measure(value=float(values.mean()), low=low, high=high, n=len(values))


def paired_gain(
    candidate: Mapping[str, float], baseline: Mapping[str, float], *, samples: int, seed: int
) -> Measure | None:
    """Return the mean gain of a candidate over a baseline on the treatments both have, or None without any."""
    common = sorted(set(candidate) & set(baseline))
    return measured({name: candidate[name] - baseline[name] for name in common}, samples=samples, seed=seed)
