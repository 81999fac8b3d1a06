"""Which treatments are retrieved better than by chance: permutation p-values of mean average precision, corrected."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, unit_rows

ALPHA = 0.05
"""False discovery rate."""

DRAWS = 1000
"""Permutations of the treatments."""


def retrieved_share(features: Matrix, design: Grouping, *, draws: int = DRAWS, seed: int = 0) -> MetricResult:
    """Return the share of treatments that are retrieved, at a false discovery rate of 5 %.

    As copairs reports it (Kalinin et al. 2025), but for the null distribution: treatments are permuted within each
    group. Random rankings, drawn for each well by itself, forget that two replicates rank each other by one similarity,
    and find noise in 8 % of treatments where 5 % are allowed.

    Args:
        features: Shape (wells, width).
        design: Treatment and group of each well, without negative controls; see `replicate_map`.
        draws: Permutations; they bound p-values from below.
        seed: Seed of the permutations.

    Returns:
        The share, and for each treatment its p-value after Benjamini and Hochberg's correction in `by_treatment`.
    """
    p = retrieval_p_values(features, design, draws=draws, seed=seed)
    if not p:
        return MetricResult(float("nan"), 0)
    q = stats.false_discovery_control(list(p.values()), method="bh")
    corrected = {name: float(value) for name, value in zip(p, q, strict=True)}
    return MetricResult(float((q < ALPHA).mean()), len(p), corrected)


def retrieval_p_values(features: Matrix, design: Grouping, *, draws: int, seed: int) -> dict[str, float]:
    """Return each treatment's p-value: how often permuted treatments give it as high a mean average precision.

    Args:
        features: Shape (wells, width).
        design: Treatment and group of each well.
        draws: Permutations.
        seed: Seed of the permutations.
    """
    rows = unit_rows(features)
    # most similar first, the well itself last: no permutation changes that
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
    same_group = design.group[:, None] == design.group[order]
    observed = _mean_precisions(design.treatment, order, same_group, len(design.names))
    rng, reached, possible = np.random.default_rng(seed), np.zeros(len(observed)), np.zeros(len(observed))
    members = [np.flatnonzero(design.group == group) for group in range(design.groups)]
    for _ in range(draws):
        treatment = design.treatment.copy()
        for wells in members:
            treatment[wells] = rng.permutation(treatment[wells])
        drawn = _mean_precisions(treatment, order, same_group, len(design.names))
        reached += drawn >= observed - 1e-12
        possible += np.isfinite(drawn)
    p = (1 + reached) / (1 + possible)
    return {name: float(p[k]) for k, name in enumerate(design.names) if np.isfinite(observed[k])}


def _mean_precisions(
    treatment: NDArray[np.intp], order: NDArray[np.intp], same_group: NDArray[np.bool_], treatments: int
) -> NDArray[np.float64]:
    """Return the mean average precision of each treatment's wells, NaN without a positive and a negative."""
    same = treatment[:, None] == treatment[order]
    relevant = same & ~same_group
    ranked = relevant | (~same & same_group)
    positives = relevant.sum(axis=1)
    precision = np.divide(
        (np.cumsum(relevant, axis=1) / np.maximum(np.cumsum(ranked, axis=1), 1) * relevant).sum(axis=1), positives,
        out=np.full(len(order), np.nan), where=(positives > 0) & (positives < ranked.sum(axis=1)),
    )  # fmt: skip
    known = np.isfinite(precision)
    sums = np.bincount(treatment[known], weights=precision[known], minlength=treatments)
    counts = np.bincount(treatment[known], minlength=treatments)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(treatments, np.nan), where=counts > 0)
    return means
