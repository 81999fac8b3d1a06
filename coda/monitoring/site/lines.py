"""What the pages show of a source: one line over its batches for each number, judged by the drift rules."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.monitoring.acquisition import STATISTICS
from coda.monitoring.frames import KEY, batches_of
from coda.monitoring.rules import ARL0, MIN_HISTORY, WARNING, Chart, chart, range_rule, single_limit, stands_apart
from coda.monitoring.site.prediction_pages import Changed, Shares, changes_of, shares_of, unjudged

Array = NDArray[np.float64]

OUT_OF_HISTORY = ("refused", "failed")
"""Ends after which a batch does not count as accepted history."""

MOST_APART = 300
"""Points of single plates in one picture: the newest."""

QUALITY = {
    "cells": "cells a field",
    "quarantined_share": "share of fields set aside",
    "run_seconds": "seconds of the run",
}
DRIFT = {
    "drift_before/frechet_to_source": "embedding distance to the training source, before adaptation",
    "drift_after/frechet_to_source": "the same after adaptation",
    "drift_before/mmd_controls": "embedding distance of the controls, before adaptation",
    "drift_after/mmd_controls": "the same after adaptation",
    "two_sample/separation": "separation of fields from those of earlier batches",
}
ANSWERS = {
    "confidence": "mean confidence",
    "abstained_share": "share of wells without an answer to rely on",
    "top_class_share": "share of the most frequent class",
    "marginal_entropy": "spread over classes (entropy)",
    "changed_share": "answers that adaptation changed",
}
GATE = {"gate_gain": "gain of what the gate chose", "gate/agreement": "agreement of replicates, of what the gate chose"}
CONTROLS = {
    "negcon_p95": "negative controls, bright structures",
    "negcon_p50": "negative controls, median brightness",
    "poscon_p95": "positive controls, bright structures",
    "poscon_p50": "positive controls, median brightness",
    "negcon_cells": "negative controls, cells a field",
    "poscon_cells": "positive controls, cells a field",
    "robust_z_prime": "robust Z' of the plates",
    "ssmd": "SSMD of the plates",
}


@dataclass(frozen=True)
class Line:
    """One number over the batches of a source.

    Attributes:
        group: Heading it stands below.
        name: What it is, in words.
        values: One a batch, NaN where it has none.
        chart: What the rules say.
        apart: Place of a batch -> plates that stand apart in it, with their value.
    """

    group: str
    name: str
    values: Array
    chart: Chart
    apart: Mapping[int, tuple[tuple[str, float], ...]] = field(default_factory=dict)

    def since(self, first: int) -> "Line":
        """Return the line from a place on, judged as it was by all that came before."""
        told = self.chart
        parts = {name: getattr(told, name)[first:] for name in ("q", "centre", "low", "high", "cusum", "broken")}
        apart = {place - first: plates for place, plates in self.apart.items() if place >= first}
        return replace(self, values=self.values[first:], chart=replace(told, **parts), apart=apart)


@dataclass(frozen=True)
class Source:
    """A source as its pages show it.

    Attributes:
        name: Laboratory.
        batches: One row a batch version, in the order of acquisition (processing, where that is not known).
        lines: Acquisition, drift, gate and seconds.
        controls: Control wells and plates' figures.
        answers: Class shares and what tells of the answers.
        shares: Class shares of the newest batch against history; None before they can be compared.
        changed: Compounds that are called another class in the newest batch than most often before.
        level: 'steady', 'watch', 'drift' or 'unknown': of the microscope that the newest batch is from.
        sentence: Why, in one sentence.
        microscopes: Each microscope with its own level and sentence, that of the newest batch first.
    """

    name: str
    batches: pd.DataFrame
    lines: tuple[Line, ...]
    controls: tuple[Line, ...]
    answers: tuple[Line, ...]
    shares: Shares | None
    changed: tuple[Changed, ...]
    level: str
    sentence: str
    microscopes: tuple[tuple[str, str, str], ...] = ()

    @property
    def every(self) -> tuple[Line, ...]:
        """All lines, in the order of the pages."""
        return (*self.lines, *self.controls, *self.answers)

    @property
    def usable(self) -> "pd.Index[int]":
        """Places of the batches that say anything of their images."""
        return _usable(self.batches)

    def drifting(self, place: int) -> tuple[list[Line], list[Line]]:
        """Return the lines that drift in the batch at a place: suddenly, and slowly."""
        return _drifting(self.every, place)

    def drift_from(self, batch: str, digest: str) -> str:
        """Return in one sentence the drift that began with a batch version; empty where none did.

        A drift that lasts begins once: in the batch in which a number drifts that did not in the one before it, of the
        same microscope.
        """
        batches, usable = self.batches, self.usable
        mine = batches.index[(batches["batch"] == batch) & (batches["manifest_digest"] == digest)].intersection(usable)
        if len(mine) == 0:
            return ""
        place = int(mine[0])
        before = usable[(usable < place) & (batches["instrument"][usable] == batches["instrument"][place])]
        known = {line.name for found in self.drifting(int(before[-1])) for line in found} if len(before) else set()
        sudden, slow = ([line for line in found if line.name not in known] for found in self.drifting(place))
        return _drift(batches, sudden, slow, place) if sudden or slow else ""


def source_of(name: str, frame: pd.DataFrame) -> Source:
    """Return a source from its rows of the table of batches."""
    batches = batches_of(frame)
    batches["when"] = batches["acquired_at"].fillna(batches["processed_at"])
    batches = batches.sort_values(["when", "processed_at", "batch"], kind="stable", ignore_index=True)
    places = batches[KEY].assign(place=batches.index)
    rows = frame[frame["measure"] != ""].merge(places, on=KEY)
    judge = _Judge(batches, rows)
    wanted = [*_named("Acquisition", judge.by_stain(tuple(STATISTICS))), *judge.plain("Quality", QUALITY)]
    wanted += [*judge.plain("Embedding", DRIFT), *judge.of_chosen("Gate", GATE)]
    controls = _named("Controls", judge.of_plates(CONTROLS))
    answers = [*judge.plain("Answers", ANSWERS), *judge.by_subject("Class shares", "class_share")]
    lines, controlled, answered = (judge.lines(group, len(wanted)) for group in (wanted, controls, answers))
    accepted = (~batches["state"].isin(OUT_OF_HISTORY)).to_numpy()
    far, apart, shares = shares_of(batches, rows, accepted, len(wanted))
    changes, changed = changes_of(len(batches), rows)
    answered = (
        Line("Class shares against history", "distance of class shares to history", far, apart),
        Line("Compounds of earlier batches", "share that changed class", changes, unjudged(changes)),
        *answered,
    )
    states = _states(batches, [*lines, *controlled, *answered])
    return Source(name, batches, lines, controlled, answered, shares, changed, *states[0][1:], states)


def _named(group: str, series: Sequence[tuple[str, Array, Any]]) -> list[tuple[str, str, Array, Any]]:
    return [(group, name, values, apart) for name, values, apart in series]


class _Judge:
    """Takes series out of the rows of one source, and has them judged against batches of the same microscope."""

    def __init__(self, batches: pd.DataFrame, rows: pd.DataFrame) -> None:
        self.batches, self.count = batches, len(batches)
        whole = rows[rows["plate"] == ""]
        self._whole = dict(tuple(whole.groupby("measure", sort=False)))
        self._plates = dict(tuple(rows[rows["plate"] != ""].groupby("measure", sort=False)))
        seconds = batches[["seconds"]].assign(place=batches.index, subject="", value=batches["seconds"])
        self._whole["run_seconds"] = seconds[["place", "subject", "value"]]
        chosen = self._whole.get("gate_chosen")
        self._ranges: dict[str, set[int]] = {}
        self._chosen = {} if chosen is None else dict(zip(chosen["place"], chosen["subject"], strict=True))

    def lines(self, wanted: Sequence[tuple[str, str, Array, Any]], together: int) -> tuple[Line, ...]:
        found = []
        for group, name, values, apart in wanted:
            if np.isfinite(values).any():
                told = self._charted(values, max(together, len(wanted)), self._ranges.get(name, set()))
                found.append(Line(group, name, values, told, apart))
        return tuple(found)

    def plain(self, group: str, names: Mapping[str, str]) -> list[tuple[str, str, Array, Any]]:
        found = []
        for measure, words in names.items():
            rows = self._whole.get(measure)
            if rows is not None:
                values = self._placed(rows[rows["subject"] == ""])
                found.append((group, words, values, self._apart(measure, "")))
        return found

    def by_stain(self, measures: Sequence[str]) -> list[tuple[str, Array, Any]]:
        found: list[tuple[str, Array, Any]] = []
        for measure in measures:
            rows = self._whole.get(measure)
            for stain, mine in rows.groupby("subject") if rows is not None else ():
                words = STATISTICS[measure].partition(" (")[0]
                found.append((f"{words}, {stain}", self._placed(mine), self._apart(measure, str(stain))))
        return found

    def by_subject(self, group: str, measure: str) -> list[tuple[str, str, Array, Any]]:
        rows = self._whole.get(measure)
        parts = rows.groupby("subject") if rows is not None else ()
        return [(group, str(subject), self._placed(mine), {}) for subject, mine in parts]

    def of_chosen(self, group: str, names: Mapping[str, str]) -> list[tuple[str, str, Array, Any]]:
        found: list[tuple[str, str, Array, Any]] = []
        for measure, words in names.items():
            rows = self._whole.get(measure)
            if rows is not None:
                mine = rows[rows["subject"] == rows["place"].map(self._chosen)]
                found.append((group, words, self._placed(mine), {}))
        return found

    def of_plates(self, names: Mapping[str, str]) -> list[tuple[str, Array, Any]]:
        """Medians over the plates of a batch, and the plates that stand apart."""
        found: list[tuple[str, Array, Any]] = []
        for measure, words in names.items():
            rows = self._plates.get(measure)
            for subject, mine in rows.groupby("subject") if rows is not None else ():
                middle = mine.groupby("place")["value"].median()
                values = np.full(self.count, np.nan)
                values[middle.index.to_numpy()] = middle.to_numpy()
                name = f"{words}, {subject!s}" if subject else words
                self._ranges[name] = self._range(mine)
                found.append((name, values, self._apart(measure, str(subject))))
        return found

    def _placed(self, rows: pd.DataFrame) -> Array:
        values = np.full(self.count, np.nan)
        values[rows["place"].to_numpy(dtype=np.intp)] = rows["value"].to_numpy(dtype=np.float64)
        return values

    def _apart(self, measure: str, subject: str) -> dict[int, tuple[tuple[str, float], ...]]:
        rows = self._plates.get(measure)
        if rows is None:
            return {}
        mine = rows[rows["subject"] == subject]
        mine = mine[np.isfinite(mine["value"])]
        far = stands_apart(mine["value"], mine["place"])
        found: dict[int, tuple[tuple[str, float], ...]] = {}
        for row in mine[far].sort_values("place").tail(MOST_APART)[["place", "plate", "value"]].itertuples(index=False):
            place, plate, value = int(row[0]), str(row[1]), float(row[2])
            found[place] = (*found.get(place, ()), (plate, value))
        return found

    def _range(self, rows: pd.DataFrame) -> set[int]:
        """Return the batches whose plates lie too far apart for what plates of accepted batches before them showed."""
        out: set[int] = set()
        earlier = np.array([], dtype=np.float64)
        accepted = (~self.batches["state"].isin(OUT_OF_HISTORY)).to_numpy()
        places, values = (rows[name].to_numpy() for name in ("place", "value"))
        for number, place in enumerate(np.unique(places)):
            mine = values[places == place].astype(np.float64)
            spread = float(np.std(earlier, ddof=1)) if number >= MIN_HISTORY and len(earlier) > 1 else 0.0
            if spread > 0 and range_rule((mine - earlier.mean()) / spread):
                out.add(int(place))
            if accepted[place]:
                earlier = np.concatenate([earlier, mine])
        return out

    def _charted(self, values: Array, together: int, ranges: Collection[int]) -> Chart:
        """Judge each microscope's batches against its own earlier ones, and put them into one series again."""
        counts = ~self.batches["state"].isin(OUT_OF_HISTORY).to_numpy()
        parts = {name: np.array([], dtype=np.float64) for name in ("q", "centre", "low", "high", "cusum")}
        whole = {name: np.full(self.count, np.nan) for name in parts}
        broken: list[tuple[str, ...]] = [()] * self.count
        limit = 0.0
        for _, mine in self.batches.groupby("instrument", sort=False):
            places = mine.index.to_numpy()
            told = chart(values[places], counts=counts[places], charts=together)
            for name in parts:
                whole[name][places] = getattr(told, name)
            for place, rules in zip(places, told.broken, strict=True):
                broken[place] = rules
            limit = told.limit
        for place in ranges:
            broken[place] = (*broken[place], "R-4s")
        return Chart(**whole, limit=limit, broken=tuple(broken))


def _usable(batches: pd.DataFrame) -> pd.Index:
    """Return the places of the batches that say anything of their images."""
    return batches.index[~batches["state"].isin(OUT_OF_HISTORY)]


def _drifting(lines: Sequence[Line], place: int) -> tuple[list[Line], list[Line]]:
    """Return the lines that drift at a place: suddenly, and slowly."""
    far = single_limit(ARL0, len(lines))
    sudden = [line for line in lines if abs(line.chart.q[place]) > far]
    return sudden, [line for line in lines if "CUSUM" in line.chart.broken[place]]


def _states(batches: pd.DataFrame, lines: Sequence[Line]) -> tuple[tuple[str, str, str], ...]:
    """Return each microscope with level and sentence, that of the newest batch that says anything of images first."""
    usable = _usable(batches)
    names = batches["instrument"].iloc[usable if len(usable) else batches.index]
    told = [(str(name), *_state(batches, lines, usable[names == name])) for name in dict.fromkeys(names.iloc[::-1])]
    return tuple(told)


def _state(batches: pd.DataFrame, lines: Sequence[Line], usable: pd.Index) -> tuple[str, str]:
    """Return level and sentence about the newest of the batches of a microscope that say anything of their images."""
    if len(usable) <= MIN_HISTORY:
        many = f"{len(usable)} accepted batch{'es' if len(usable) != 1 else ''}"
        return "unknown", f"{many} of this microscope; {MIN_HISTORY + 1} are needed before anything is compared."
    newest = int(usable[-1])
    sudden, slow = _drifting(lines, newest)
    near = [line for line in lines if line not in sudden and line.chart.out(newest) and line not in slow]
    if sudden or slow:
        return "drift", _drift(batches, sudden, slow, newest)
    if near:
        rules = ", ".join(rule for rule in near[0].chart.broken[newest] if rule != WARNING)
        return "watch", f"{near[0].name} breaks {rules}; of {len(lines)} numbers some do by chance."
    return "steady", f"{len(lines)} numbers of the newest batch are as history makes likely."


def _drift(batches: pd.DataFrame, sudden: Sequence[Line], slow: Sequence[Line], place: int) -> str:
    """Return the sentence about lines that drift at a place."""
    line = max(sudden or slow, key=lambda item: abs(item.chart.q[place] if sudden else item.chart.cusum[place]))
    more = len({id(item) for item in [*sudden, *slow]}) - 1
    way = "above" if (line.chart.q[place] if sudden else line.chart.cusum[place]) > 0 else "below"
    how = f"{way} what history makes likely" if sudden else f"{way} its centre since {_since(batches, line, place)}"
    others = f"; {more} other number{'s' if more != 1 else ''} too" if more else ""
    return f"{line.name} is {how} ({'sudden' if sudden else 'slow drift, CUSUM'}){others}."


def _since(batches: pd.DataFrame, line: Line, place: int) -> str:
    first = place
    while first > 0 and ("CUSUM" in line.chart.broken[first - 1] or np.isnan(line.chart.q[first - 1])):
        first -= 1
    return str(batches["batch"].iloc[first])
