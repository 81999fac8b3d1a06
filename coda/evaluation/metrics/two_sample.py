"""A classifier two-sample test that names fields: which of a batch's differ from those of earlier batches?

A linear classifier (LDA, its covariance shrunk after Ledoit and Wolf) learns to tell the fields of a batch from those
of earlier ones, and is asked about fields of wells that it has not seen (Lopez-Paz and Oquab, ICLR 2017, with folds of
whole wells). What it says of a field names the fields that are most typical of the batch, and of before.

Fields of a batch share its day, its cells and its lamp, so batches can be told from each other without any drift, and
a null hypothesis of exchangeable fields, wells or plates is wrong for all of them. What is exchangeable in a steady
history is batches: each earlier batch is told from the other earlier ones in the same way, and the batch's separation
is held against theirs (a t test for one new value). The separation is the distance of the two classes' held-out scores
in their deviations (d', Green and Swets 1966): unlike accuracy it still grows where all fields are told.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import t

Array = NDArray[np.float64]
Names = NDArray[np.str_]

FOLDS = 5

FEWEST_WELLS = 2 * FOLDS
"""Wells on either side, below which nothing is compared."""

FEWEST_EARLIER = 3
"""Earlier batches that must be told from each other before the batch's separation is compared with theirs."""

MOST_LEARNED = 1500
"""Fields of a batch that a classifier learns from, in whole wells; it is asked about all of them."""


@dataclass(frozen=True)
class TwoSampleResult:
    """What a classifier says of fields that it has not learned from.

    Attributes:
        score: Probability of the batch, 0 to 1, of each field; NaN of fields that were not compared. Both sides
            count alike: at 0.5 a field is as typical of the batch as of before.
        accuracy: Mean of the shares of both sides that are told rightly, 0 to 1; a half is guessing.
        separation: Distance between the sides' mean scores (log odds), in their standard deviations; 0 is none.
    """

    score: Array
    accuracy: float
    separation: float


@dataclass(frozen=True)
class Compared:
    """A batch against earlier ones.

    Attributes:
        told: The batch against all earlier ones.
        earlier: Separation of each earlier batch from the other earlier ones.
        p_value: How often a steady history gives a batch as far or farther away; NaN with fewer than
            `FEWEST_EARLIER` earlier ones.
    """

    told: TwoSampleResult
    earlier: tuple[float, ...]
    p_value: float


def compare(features: NDArray[Any], batches: Names, wells: Names, name: str) -> Compared | None:
    """Return a batch compared with the other ones.

    Args:
        features: Shape (fields, width), finite; scales do not matter.
        batches: Batch of each field.
        wells: Well of each field: no two wells of any plates have the same name.
        name: The batch that is compared with all others.

    Returns:
        None where either side has fewer than `FEWEST_WELLS` wells, or no feature varies.
    """
    others = [other for other in np.unique(batches).tolist() if other != name]
    fold, learned = _places(batches, wells)
    told = tell_apart(features, batches == name, np.isin(batches, others), wells, fold, learned)
    if told is None:
        return None
    earlier = []
    if len(others) >= FEWEST_EARLIER:
        for one in others:
            rest = [other for other in others if other != one]
            found = tell_apart(features, batches == one, np.isin(batches, rest), wells, fold, learned)
            earlier += [found.separation] if found is not None else []
    return Compared(told, tuple(earlier), p_value(told.separation, earlier))


def p_value(separation: float, earlier: list[float]) -> float:
    """Return how often a steady history gives a batch as far away: a t test for one new value, one-sided.

    Args:
        separation: Of the batch.
        earlier: Of each earlier batch from the others.
    """
    count = len(earlier)
    if count < FEWEST_EARLIER:
        return float("nan")
    mean, spread = float(np.mean(earlier)), float(np.std(earlier, ddof=1))
    spread = max(spread, 1e-6 * abs(mean), 1e-12)
    return float(t.sf((separation - mean) / (spread * np.sqrt(1 + 1 / count)), count - 1))


def tell_apart(
    features: NDArray[Any],
    mine: NDArray[np.bool_],
    other: NDArray[np.bool_],
    wells: Names,
    fold: NDArray[np.intp],
    learned: NDArray[np.bool_],
) -> TwoSampleResult | None:
    """Return what classifiers say of fields whose wells they have not learned from, or None with too few wells.

    Args:
        features: Shape (fields, width).
        mine: Fields of the batch.
        other: Fields that it is compared with.
        wells: Well of each field.
        fold: Fold of each field, the same for all of a well.
        learned: Fields that may be learned from.
    """
    if min(len(np.unique(wells[side])) for side in (mine, other)) < FEWEST_WELLS:
        return None
    rows = mine | other
    x = np.asarray(features[rows], dtype=np.float64)
    spread = x.std(axis=0)
    varies = spread > 1e-9 * np.maximum(np.abs(x).max(axis=0), 1e-300)
    if not varies.any():
        return None
    x = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    y, part, used = mine[rows], fold[rows], learned[rows]
    odds = np.full(len(x), np.nan)
    for k in range(FOLDS):
        known, asked = used & (part != k), part == k
        odds[asked] = _odds(x[known & y], x[known & ~y], x[asked])
    ours, theirs = odds[y], odds[~y]
    deviation = float(np.sqrt((ours.var() + theirs.var()) / 2))
    score = np.full(len(features), np.nan)
    score[rows] = expit(odds)
    return TwoSampleResult(
        score=score,
        accuracy=float(((ours > 0).mean() + (theirs <= 0).mean()) / 2),
        separation=float(ours.mean() - theirs.mean()) / deviation if deviation > 0 else 0.0,
    )


def _odds(ours: Array, theirs: Array, asked: Array) -> Array:
    """Return log odds of the first class for rows that are asked about; both classes count alike, whatever their sizes.

    scikit-learn's LDA gives the same, some twenty times as slowly for tables of this size.
    """
    covariance = (shrunk_covariance(ours) + shrunk_covariance(theirs)) / 2
    first, second = ours.mean(axis=0), theirs.mean(axis=0)
    weights = np.linalg.solve(covariance, first - second)
    return np.asarray((asked - (first + second) / 2) @ weights)


def shrunk_covariance(x: Array) -> Array:
    """Return a covariance that is drawn towards a sphere as far as so few rows ask for (Ledoit and Wolf 2004).

    Args:
        x: Shape (rows, width), at least one row. Where nothing varies, the result is the unit matrix.
    """
    count, width = x.shape
    centred = x - x.mean(axis=0)
    sample = centred.T @ centred / count
    mean, squared = float(np.trace(sample)) / width, float((sample**2).sum())
    if mean <= 0:
        return np.eye(width)
    apart = squared / width - mean**2
    noise = (float(((centred**2).sum(axis=1) ** 2).mean()) - squared) / (count * width)
    share = min(noise / apart, 1.0) if apart > 0 else 1.0
    return np.asarray((1 - share) * sample + max(share, 1e-6) * mean * np.eye(width))


def _places(batches: Names, wells: Names) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return each field's fold and whether it is learned from: a batch's wells, dealt out by the digests of names."""
    fold, learned = np.zeros(len(wells), dtype=np.intp), np.zeros(len(wells), dtype=bool)
    for batch in np.unique(batches):
        mine = np.flatnonzero(batches == batch)
        names, place, count = np.unique(wells[mine], return_inverse=True, return_counts=True)
        order = np.argsort([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
        rank = np.empty(len(names), dtype=np.intp)
        rank[order] = np.arange(len(names))
        before = np.cumsum(count[order]) - count[order]
        fold[mine] = rank[place] % FOLDS
        learned[mine] = (before < MOST_LEARNED)[rank][place]
    return fold, learned
