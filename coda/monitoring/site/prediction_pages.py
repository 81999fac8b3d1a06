"""What the page of predictions shows beside plain numbers: class shares against history, compounds that changed."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.monitoring.class_shares import Compared, compare_in_order
from coda.monitoring.rules import ARL0, Chart, cusum, cusum_limit, westgard

Array = NDArray[np.float64]

REFERENCES = {"reference": "positive control", "compound": "compound of earlier batches"}
"""Measure -> what a compound is whose class is followed over batches."""

FEWEST_KNOWN = 3
"""Compounds of a batch that earlier ones had, below which no share of changes is drawn."""


@dataclass(frozen=True)
class Shares:
    """The newest batch's class shares against history.

    Attributes:
        batch: Its name.
        classes: In the order of the arrays of `told`.
        told: The comparison.
    """

    batch: str
    classes: tuple[str, ...]
    told: Compared


@dataclass(frozen=True)
class Changed:
    """A compound that the newest batch calls another class than most of the earlier ones.

    Attributes:
        name: Compound.
        kind: Control, or compound of earlier batches.
        before: Class of most of its earlier batches.
        agreed: Earlier batches that called it so.
        batches: Earlier batches that had it.
        now: Class of the newest batch.
        probability: Of that class.
    """

    name: str
    kind: str
    before: str
    agreed: int
    batches: int
    now: str
    probability: float


def shares_of(
    batches: pd.DataFrame, rows: pd.DataFrame, accepted: NDArray[np.bool_], together: int
) -> tuple[Array, Chart, Shares | None]:
    """Return the distance of each batch's class shares to history (total variation), its chart, and the newest of them.

    Batches are compared with those of the same microscope and the same classes.

    Args:
        batches: Of the source, in order.
        rows: Its numbers with `place`, the row of `batches`.
        accepted: Whether each batch belongs to accepted history.
        together: Series that are watched together.
    """
    mine = rows[(rows["measure"] == "class_share") & (rows["plate"] == "") & rows["n"].notna()]
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[int, Array]]] = defaultdict(list)
    mine = mine.sort_values(["place", "subject"])
    columns = [mine[name].tolist() for name in ("place", "subject", "value", "n")]
    for place, found in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
        _, names, shares, wells = zip(*found, strict=True)
        if len(names) > 1:
            key = (str(batches["instrument"].iloc[place]), names)
            groups[key].append((place, np.round(np.array(shares) * np.array(wells))))
    told: dict[int, Shares] = {}
    for (_, classes), group in groups.items():
        places = np.array([place for place, _ in group])
        for place, one in zip(places, compare_in_order([counts for _, counts in group], accepted[places]), strict=True):
            if one is not None:
                told[int(place)] = Shares(str(batches["batch"].iloc[place]), classes, one)
    newest = told.get(int(mine["place"].max())) if len(mine) else None
    values, q, low, high = (np.full(len(batches), np.nan) for _ in range(4))
    for place, item in told.items():
        values[place], q[place], low[place], high[place] = item.told.distance, item.told.q, 0.0, item.told.limit
    return values, _charted(q, low, high, together), newest


def _charted(q: Array, low: Array, high: Array, together: int) -> Chart:
    """Judge distances: only far ones break rules, and none for being more like history than others."""
    limit = cusum_limit(ARL0 * max(together, 1))
    sums = cusum(q, limit)
    broken = [
        (*(rules if value > 0 else ()), *(("CUSUM",) if now > limit else ()))
        for rules, value, now in zip(westgard(q), np.nan_to_num(q), sums, strict=True)
    ]
    return Chart(q, (low + high) / 2, low, high, sums, limit, tuple(broken))


def changes_of(count: int, rows: pd.DataFrame) -> tuple[Array, tuple[Changed, ...]]:
    """Return the share of known compounds that each batch called another class, and those of the newest batch.

    A compound is known when an earlier batch had it; its class is what most of these said, of equals the first.
    """
    values, said = np.full(count, np.nan), defaultdict[str, Counter[str]](Counter)
    mine = rows[rows["measure"].isin(list(REFERENCES))].sort_values(["place", "measure", "subject"])
    columns = [mine[name].tolist() for name in ("place", "measure", "subject", "text", "value")]
    changed: list[Changed] = []
    for place, answered in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
        changed, known, answers = [], 0, list(answered)
        for _, measure, name, now, probability in answers:
            if earlier := said.get(name):
                known += 1
                before, agreed = max(earlier.items(), key=lambda item: item[1])
                if before != now:
                    kind = REFERENCES[measure]
                    changed.append(Changed(name, kind, before, agreed, earlier.total(), str(now), probability))
        for _, _, name, now, _ in answers:
            said[name][str(now)] += 1
        if known >= FEWEST_KNOWN:
            values[place] = len(changed) / known
    # a control first, then what was called the same most often
    return values, tuple(sorted(changed, key=lambda item: (item.kind != "positive control", -item.agreed, item.name)))


def unjudged(values: Array) -> Chart:
    """Return a chart without limits, for numbers that no rule with a known rate fits."""
    nothing = np.full(len(values), np.nan)
    return Chart(nothing, nothing, nothing, nothing, np.zeros(len(values)), 0.0, ((),) * len(values))
