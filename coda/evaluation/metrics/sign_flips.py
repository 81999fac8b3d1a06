"""Sign-flip permutation test over treatments, for several paired gains at once (single-step max-T)."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Pair = TypeVar("Pair", bound=Hashable)

EXACT = 12
"""Treatments up to which every pattern of signs is looked at."""

DRAWN = 9_999
"""Patterns that are drawn for more treatments."""

ROUNDING = 1e-12


def family_wise_p(gains: Mapping[Pair, Mapping[str, float]], *, seed: int) -> dict[Pair, float]:
    """Return the p-value of every mean gain being above 0, adjusted for all that are asked about together.

    Under the null hypothesis a treatment's gain is as likely as its negative. One pattern of signs is laid over the
    treatments of all pairs, so that their correlation stays; each mean is held against the largest mean of the
    patterns (Westfall and Young 1993). What lost on the mean is laid around 0, and what lost beyond chance around what
    it lost (Hansen 2005): otherwise a broken candidate would make every gain beside it look like chance, since a loss
    is a gain under the opposite signs. Where gains are symmetric around 0 or below, the probability that any p-value of
    a true null hypothesis is at most alpha is about alpha (simulated, decision 0043). The p-value of a mean above 0
    never rises when a gain of its own pair does.

    Args:
        gains: For each pair of ways its gain by treatment; pairs may have different treatments, and none at all.
        seed: Seed of the patterns where not all are looked at.

    Returns:
        For each pair a p-value above 0 and at most 1; 1 without a treatment.
    """
    names = sorted({name for values in gains.values() for name in values})
    pairs = [pair for pair, values in gains.items() if values]
    if not pairs:
        return dict.fromkeys(gains, 1.0)
    place = {name: k for k, name in enumerate(names)}
    weights, means, worst = np.zeros((len(names), len(pairs))), {}, np.zeros(len(pairs))
    for column, pair in enumerate(pairs):
        own = gains[pair]
        means[pair] = sum(own.values()) / len(own)
        worst[column] = _worst(list(own.values()), means[pair])
        for name, value in own.items():
            weights[place[name], column] = (value - min(means[pair], 0.0)) / len(own)
    largest = (_patterns(len(names), seed) @ weights + worst).max(axis=1)
    found = {pair: float(np.mean(largest >= mean - ROUNDING)) for pair, mean in means.items()}
    return {pair: found.get(pair, 1.0) for pair in gains}


def _worst(values: list[float], mean: float) -> float:
    """Return a mean that is below 0 beyond chance, by Hansen's threshold of the iterated logarithm; else 0."""
    count = max(len(values), 3)
    chance = float(np.std(values)) * np.sqrt(2 * np.log(np.log(count)) / count)
    return mean if mean < -chance else 0.0


# a gate asks twice about the same treatments, a calibration hundreds of times
@lru_cache(maxsize=4)
def _patterns(count: int, seed: int) -> NDArray[np.float64]:
    """Return patterns of signs, shape (patterns, treatments), that of no change among them."""
    if count <= EXACT:
        return np.array(list(product((1.0, -1.0), repeat=count)))
    drawn = np.random.default_rng(seed).integers(0, 2, (DRAWN, count)) * 2.0 - 1.0
    return np.concatenate([np.ones((1, count)), drawn])
