"""Percent replicating: which treatments' replicates resemble each other more than chance would (practice of JUMP)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, unit_rows

NULL_SAMPLES = 1000


def percent_replicating(
    features: Matrix, treatments: Sequence[str], groups: Sequence[str], *, seed: int, samples: int = NULL_SAMPLES
) -> MetricResult:
    """Return the share of treatments whose replicates correlate above the 95th percentile of a null.

    A treatment's value is the median Pearson correlation of its pairs of wells from different groups. The null holds
    medians of as many random pairs, of different treatments and groups, as the median treatment has pairs. Treatments
    are either in or out, so it is coarser than `replicate_map` (`coda.evaluation.metrics.retrieval`), and kept because
    people ask for it.

    Args:
        features: Shape (wells, width), without negative controls.
        treatments: Treatment of each well.
        groups: Batch or plate of each well.
        seed: Seed of the null.
        samples: Size of the null.

    Returns:
        1 or 0 for each treatment with a pair; `n` is 0 where no treatment has one, or no null can be drawn.
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return MetricResult(float("nan"), 0)
    design = Grouping.of(treatments, groups)
    rows = unit_rows(x - x.mean(axis=1, keepdims=True))
    correlation = rows @ rows.T
    apart = np.triu(design.group[:, None] != design.group[None], 1)
    same = design.treatment[:, None] == design.treatment[None]
    medians, counts = {}, []
    for number, name in enumerate(design.names):
        own = apart & same & (design.treatment == number)[:, None]
        if own.any():
            medians[name] = float(np.median(correlation[own]))
            counts.append(int(own.sum()))
    null = correlation[apart & ~same]
    if not medians or not len(null):
        return MetricResult(float("nan"), 0)
    limit = _limit(null, int(np.median(counts)), seed, samples)
    return MetricResult.over_treatments({name: float(value > limit) for name, value in medians.items()})


def _limit(null: NDArray[np.float64], pairs: int, seed: int, samples: int) -> float:
    drawn = null[np.random.default_rng(seed).integers(0, len(null), (samples, max(pairs, 1)))]
    return float(np.percentile(np.median(drawn, axis=1), 95))
