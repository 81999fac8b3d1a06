"""How often a gate releases where nothing is gained, and where something is: `python -m tests.evaluation.null_table`.

Gains of five candidates over one baseline are drawn, correlated because all share the baseline and most the extractor;
the rules are those of the policies: an interval for each candidate (gate-v3), and one sign-flip test (gate-v5).
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.bootstrap import interval
from coda.evaluation.metrics.sign_flips import family_wise_p

LOST = 0.15
"""What a broken candidate loses on the mean."""

CANDIDATES, SHARED, OWN = 5, 0.15, 0.10
"""Deviations of what candidates share and of their own: gains correlate by 0.69."""

ERROR, SMALLEST = 0.05, 0.02


def drawn(rng: np.random.Generator, treatments: int, gain: float, broken: int, *, skewed: bool) -> NDArray[np.float64]:
    """Return gains of shape (candidates, treatments) with the mean `gain`; the last ones are broken."""
    if skewed:  # exponential, mean 0: a few treatments gain much and most lose a little, or the other way round
        side = rng.choice((-1.0, 1.0))
        shared = side * SHARED * (rng.exponential(1, treatments) - 1)
        own = side * OWN * (rng.exponential(1, (CANDIDATES, treatments)) - 1)
    else:
        shared, own = rng.normal(0, SHARED, treatments), rng.normal(0, OWN, (CANDIDATES, treatments))
    means = np.where(np.arange(CANDIDATES) < CANDIDATES - broken, gain, -LOST)
    return means[:, None] + shared + own  # type: ignore[no-any-return]


def by_interval(gains: NDArray[np.float64]) -> bool:
    """Say whether gate-v3 finds a candidate better than the baseline."""
    return any(row.mean() > 0 and interval(row, samples=1000, seed=0)[0] >= 0 for row in gains)


def by_flips(gains: NDArray[np.float64], smallest: float) -> bool:
    """Say whether gate-v5 does."""
    named = {f"c{k}": {f"t{i:02d}": float(v) for i, v in enumerate(row)} for k, row in enumerate(gains)}
    p = family_wise_p(named, seed=0)
    return any(gains[k].mean() > smallest and p[f"c{k}"] <= ERROR for k in range(len(gains)))


def main() -> None:
    """Print one row for each number of treatments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--broken", type=int, default=0, help="Candidates of the five that lose much.")
    asked = parser.parse_args()
    print("| treatments | gain | gains are | gate-v3 | gate-v5 | its test alone |\n|---|---|---|---|---|---|")
    for treatments in (6, 8, 12, 24, 90):
        for gain, skewed in ((0.0, False), (0.0, True), (0.05, False), (0.1, False), (0.2, False)):
            rng = np.random.default_rng((asked.seed, treatments, int(gain * 100), skewed))
            sets = [drawn(rng, treatments, gain, asked.broken, skewed=skewed) for _ in range(asked.sets)]
            rates = [
                sum(by_interval(item) for item in sets),
                sum(by_flips(item, SMALLEST) for item in sets),
                sum(by_flips(item, 0.0) for item in sets),
            ]
            told = " | ".join(f"{rate / asked.sets:.3f}" for rate in rates)
            print(f"| {treatments} | {gain:g} | {'skewed' if skewed else 'normal'} | {told} |", flush=True)


if __name__ == "__main__":
    main()
