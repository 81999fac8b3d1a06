"""False alarms and delays of all detectors: thresholds from some seeds, figures from others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.drift.detectors import (
    adwin,
    cusum,
    cusum_or_single,
    ewma,
    ewma_or_single,
    page_hinkley,
    plain,
    self_starting,
    single,
    standardised,
)
from benchmarks.drift.simulated_histories import CHANGES, STEADY, Array, Change, Noise, draw
from coda.monitoring.rules import ARL0, MIN_HISTORY, WARNING, cusum_limit, q_statistics, single_limit, westgard

WATCHED = 56
"""Judged batches of a steady history: a batch a week for a year and a month."""

BEFORE = {"young": 12, "old": 40}
"""Source -> steady batches before a change."""

PATIENCE = 20
"""Batches that a change has to be seen in."""

SERIES = 50
"""Numbers that a page watches together."""

NOISES: tuple[Noise, ...] = ("normal", "heavy tails", "skewed", "correlated")
MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class Rate:
    """A share of histories, with its 95 % interval (Wilson 1927)."""

    value: float
    low: float
    high: float
    of: int


def rate(hits: int, of: int) -> Rate:
    """Return hits among so many as a share; all NaN of none."""
    if of == 0:
        return Rate(np.nan, np.nan, np.nan, 0)
    z = float(norm.ppf(0.975))
    p = hits / of
    middle, half = p + z**2 / (2 * of), z * np.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return Rate(p, float((middle - half) / (1 + z**2 / of)), float((middle + half) / (1 + z**2 / of)), of)


@dataclass(frozen=True)
class Seen:
    """How a detector sees one change, of the histories in which it gave no alarm before.

    Attributes:
        seen: Share seen within `PATIENCE` batches.
        delay: Mean batches until it is seen, the first changed one counted as 1, of those that are seen.
        delay_error: Standard error of that mean.
        waited: The same over all of them; what is not seen counts as `PATIENCE`, the least that it took.
    """

    seen: Rate
    delay: float
    delay_error: float
    waited: float


@dataclass(frozen=True)
class Detector:
    """One way to look at a history.

    Attributes:
        name: In the tables.
        score: Values and Q statistics -> scores; an alarm is a score above the threshold.
        usual: Threshold as it is usual, or as the pages have it for one number.
    """

    name: str
    score: Callable[[Array, Array], Array]
    usual: float


def _on_values(function: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda values, _: function(values)


def _tabular(values: Array, slack: float) -> Array:
    return cusum(standardised(values), slack)


def _on_q(function: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda _, q: function(q)


OURS = "CUSUM or single value (the pages)"
USUAL = float(np.log(ARL0))
SLACKS = {0.5: 5.0, 0.25: 8.0, 1.0: 2.5}
"""Slack of a CUSUM -> its customary limit: a false alarm every 400 to 750 values of a known normal process."""

FAMILIES: Mapping[str, tuple[Detector, ...]] = {
    "pages": (Detector(OURS, _on_q(cusum_or_single), USUAL),),
    "pages before": (Detector("EWMA or single value", _on_q(ewma_or_single), USUAL),),
    "self-starting": (Detector("self-starting CUSUM alone", _on_q(self_starting), cusum_limit(ARL0)),),
    "EWMA": (Detector("EWMA alone", _on_q(ewma), 2.962 / 3),),
    "single": (Detector("single value alone", _on_q(single), single_limit(ARL0)),),
    "first": (Detector("mean ± 3 SD of the first 10", _on_values(partial(plain, kind="first")), 3.0),),
    "newest": (Detector("mean ± 3 SD of the newest 10", _on_values(partial(plain, kind="newest")), 3.0),),
    "all": (Detector("mean ± 3 SD of all before", _on_values(partial(plain, kind="all")), 3.0),),
    "CUSUM": tuple(
        Detector(f"CUSUM from the first 10, k {k:g}", _on_values(partial(_tabular, slack=k)), h)
        for k, h in SLACKS.items()
    ),
    "Page-Hinkley": tuple(
        Detector(f"Page-Hinkley, {d:g} SD let pass", _on_values(partial(page_hinkley, tolerance=d)), 50.0)
        for d in (0.005, 0.1, 0.25, 0.5)
    ),
    "ADWIN": (Detector("ADWIN, delta 0.002", _on_values(adwin), float(np.log(2 / 0.002))),),
}
"""Family -> its variants, the customary setting first. Of several the choosing seeds choose one."""


@dataclass(frozen=True)
class Matched:
    """A detector at a threshold that gives it the same false alarms as the others."""

    detector: Detector
    threshold: float
    false_alarms: Rate
    seen: Mapping[tuple[str, str], Seen]


@dataclass(frozen=True)
class Study:
    """All figures of the study of one number; see `run_study`."""

    customary: Mapping[str, Mapping[Noise, Rate]]
    matched: Mapping[str, Sequence[Matched]]
    settings: Mapping[str, Any]


def q_of(values: Array) -> Array:
    """Return the Q statistics of histories, by the rules that the pages use."""
    taken = np.ones(values.shape[1], dtype=bool)
    return np.array([q_statistics(row, taken)[0] for row in values])


def first_alarm(scores: Array, threshold: float) -> NDArray[np.intp]:
    """Return the place of the first score above a threshold in each history; their length where there is none."""
    alarms = scores > threshold
    first: NDArray[np.intp] = np.where(alarms.any(axis=1), alarms.argmax(axis=1), scores.shape[1])
    return first


def threshold_for(scores: Array, share: float) -> float:
    """Return the threshold that this share of steady histories exceeds at least once."""
    return float(np.quantile(scores.max(axis=1), 1 - share, method="higher"))


def seen_in(scores: Array, threshold: float, before: int) -> Seen:
    """Return how changes after so many steady batches are seen."""
    first = first_alarm(scores, threshold)
    waited = first[first >= before] - before + 1
    found = waited[waited <= PATIENCE]
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else np.nan
    mean = float(found.mean()) if len(found) else np.nan
    at_least = float(np.minimum(waited, PATIENCE).mean()) if len(waited) else np.nan
    return Seen(rate(len(found), len(waited)), mean, error, at_least)


def share_of_false_alarms(arl0: float) -> float:
    """Return the share of steady histories of `WATCHED` judged batches with a false alarm, one every `arl0` batches."""
    return float(1 - (1 - 1 / arl0) ** WATCHED)


@dataclass(frozen=True)
class _Drawn:
    values: Array
    q: Array

    @classmethod
    def of(cls, seeds: Sequence[int], count: int, batches: int, change: Change, before: int, noise: Noise) -> "_Drawn":
        parts = [draw(seed, count, batches, change, before, noise) for seed in seeds]
        values = np.concatenate(parts)
        return cls(values, q_of(values))


def run_study(
    choose: Sequence[int], report: Sequence[int], *, steady: int, changed: int, tell: MessageCallback = lambda _: None
) -> Study:
    """Measure all detectors.

    Args:
        choose: Seeds that thresholds and settings are chosen on.
        report: Seeds that all figures come from.
        steady: Steady histories of each seed of `choose`; of `report` together about as many.
        changed: Histories of each seed and change.
        tell: Takes a line about what is being done.
    """
    batches = MIN_HISTORY + WATCHED
    of_report = max(1, steady * len(choose) // len(report))
    tell(f"{steady * len(choose)} steady histories to choose thresholds on")
    chosen_on = _Drawn.of(choose, steady, batches, STEADY, 0, "normal")
    customary: dict[str, dict[Noise, Rate]] = {}
    for noise in NOISES:
        tell(f"{of_report * len(report)} steady histories: {noise}")
        drawn = _Drawn.of(report, of_report, batches, STEADY, 0, noise)
        for name, alarms in _customary(drawn).items():
            customary.setdefault(name, {})[noise] = rate(int(alarms.any(axis=1).sum()), len(alarms))
        if noise == "normal":
            reported_on = drawn
    scenes = [(source, change) for source in BEFORE for change in CHANGES]
    tell(f"{changed * len(choose)} changed histories for each of {len(scenes)} changes, to choose settings on")
    tried = {scene: _scene(choose, changed, scene) for scene in scenes}
    kept = {arl0: [_choose(arl0, chosen_on, tried, family) for family in FAMILIES.values()] for arl0 in _arls()}
    found: dict[float, list[dict[tuple[str, str], Seen]]] = {arl0: [{} for _ in FAMILIES] for arl0 in kept}
    for source, change in scenes:
        tell(f"{changed * len(report)} histories: {change.name}, {source} source")
        drawn = _scene(report, changed, (source, change))
        for arl0, detectors in kept.items():
            for seen, (detector, threshold) in zip(found[arl0], detectors, strict=True):
                scores = detector.score(drawn.values, drawn.q)
                seen[source, change.name] = seen_in(scores, threshold, BEFORE[source])
    matched = {}
    for arl0, detectors in kept.items():
        rows = []
        for (detector, threshold), seen in zip(detectors, found[arl0], strict=True):
            alarms = detector.score(reported_on.values, reported_on.q).max(axis=1) > threshold
            rows.append(Matched(detector, threshold, rate(int(alarms.sum()), len(alarms)), seen))
        matched[f"{arl0:g}"] = rows
    settings = {
        "choose_seeds": list(choose), "report_seeds": list(report), "steady_histories": len(chosen_on.values),
        "reported_steady_histories": of_report * len(report), "changed_histories": changed * len(report),
        "watched": WATCHED, "before": BEFORE, "patience": PATIENCE, "series": SERIES,
    }  # fmt: skip
    return Study(customary, matched, settings)


def _arls() -> tuple[float, float]:
    return ARL0, ARL0 * SERIES


def _scene(seeds: Sequence[int], count: int, scene: tuple[str, Change]) -> _Drawn:
    source, change = scene
    return _Drawn.of(seeds, count, BEFORE[source] + PATIENCE, change, BEFORE[source], "normal")


def _customary(drawn: _Drawn) -> dict[str, NDArray[np.bool_]]:
    """Return the alarms of every detector as it is usual, of Westgard's rules, and of the pages for many numbers."""
    found = {}
    for family in FAMILIES.values():
        usual = family[0]
        scores = usual.score(drawn.values, drawn.q)
        if usual.name == OURS:
            found[f"{OURS}, of {SERIES} numbers"] = scores > np.log(ARL0 * SERIES)
        found[usual.name] = scores > usual.usual
    found["any rejecting rule of Westgard"] = np.array(
        [[any(rule != WARNING for rule in rules) for rules in westgard(row)] for row in drawn.q]
    )
    return found


def _choose(
    arl0: float, steady: _Drawn, tried: Mapping[tuple[str, Change], _Drawn], family: Sequence[Detector]
) -> tuple[Detector, float]:
    """Return the variant of a family that waits least over all changes, with its threshold."""
    best: tuple[float, Detector, float] | None = None
    for detector in family:
        threshold = threshold_for(detector.score(steady.values, steady.q), share_of_false_alarms(arl0))
        waited = 0.0
        if len(family) > 1:
            for (source, _), drawn in tried.items():
                waited += seen_in(detector.score(drawn.values, drawn.q), threshold, BEFORE[source]).waited
        if best is None or waited < best[0]:
            best = (waited, detector, threshold)
    if best is None:
        raise ValueError("a family without detectors")
    return best[1], best[2]
