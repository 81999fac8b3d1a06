"""How every source stands, as metrics of the trigger: the newest batch against history, by the rules of the pages.

Steps push the numbers of one batch; what its history makes of it follows from the table of batches, and what serves
from the release log. So the trigger, which reads both for the pages about drift, exposes it (decision 0041): a batch
that failed or a rollback by hand is seen as well, and no rule is reckoned twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from coda.contracts import PointerEntry
from coda.contracts.base import Part
from coda.monitoring.push import Sample, build_registry
from coda.monitoring.site.lines import Line, Source

SUDDEN = "sudden"
"""Rule: one value as rare as one in 500 batches over all series of the source together."""

LEVELS = ("steady", "watch", "drift", "unknown")


class Reading(Part):
    """One number of a batch, and what the rules say of it.

    Attributes:
        group: Heading it stands below on the pages.
        name: What it is, in words.
        value: The number.
        low: Smallest usual value; None before there is history.
        high: Largest usual value.
        deviations: Q statistic: standard normal while the process is steady.
        cusum: Larger sum of the CUSUM of Q statistics, as a share of its limit: beyond -1 or 1 is a slow drift.
        broken: Rules that it breaks.
        apart: Plates that stand apart from their batch in it.
    """

    group: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    deviations: float | None = None
    cusum: float | None = None
    broken: tuple[str, ...] = ()
    apart: int = 0


class Judged(Part):
    """The newest batch of one microscope that says anything of its images."""

    instrument: str
    batch: str
    page: str
    at: float
    readings: tuple[Reading, ...]


class Standing(Part):
    """One source: its newest batch, whatever became of it, and the newest that could be judged.

    Attributes:
        level: Of the sentence that the pages say: 'steady', 'watch', 'drift' or 'unknown'.
        batch: Newest batch.
        state: How it ended.
        page: Key of the page about it.
        ended: When it ended, in seconds since 1970.
        judged: By microscope.
    """

    level: str
    batch: str
    state: str
    page: str
    ended: float
    judged: tuple[Judged, ...]


def standing_of(source: Source) -> Standing:
    """Return how a source stands."""
    batches = source.batches
    newest = batches.sort_values("processed_at", kind="stable").iloc[-1]
    usable = batches.loc[source.usable]
    judged = [_judged(source, str(name), mine) for name, mine in usable.groupby("instrument", sort=True)]
    return Standing(
        level=source.level, batch=str(newest["batch"]), state=str(newest["state"]), page=str(newest["page"]),
        ended=_seconds(newest["processed_at"]), judged=tuple(judged),
    )  # fmt: skip


def _judged(source: Source, instrument: str, batches: pd.DataFrame) -> Judged:
    place = int(batches.index[-1])
    sudden = {id(line) for line in source.drifting(place)[0]}
    readings = [
        _reading(line, place, sudden=id(line) in sudden) for line in source.every if np.isfinite(line.values[place])
    ]
    row = batches.loc[place]
    return Judged(
        instrument=instrument, batch=str(row["batch"]), page=str(row["page"]), at=_seconds(row["processed_at"]),
        readings=tuple(readings),
    )  # fmt: skip


def _reading(line: Line, place: int, *, sudden: bool) -> Reading:
    told = line.chart
    known = bool(np.isfinite(told.q[place]))  # else the CUSUM tells of earlier batches alone
    return Reading(
        group=line.group, name=line.name, value=float(line.values[place]), low=_number(told.low[place]),
        high=_number(told.high[place]), deviations=_number(told.q[place]),
        cusum=float(told.cusum[place] / told.limit) if known and told.limit > 0 else None,
        broken=(*told.broken[place], *((SUDDEN,) if sudden else ())), apart=len(line.apart.get(place, ())),
    )  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _seconds(at: Any) -> float:
    return round(float(at.timestamp()), 3)


def drift_samples(standings: Mapping[str, Standing]) -> Iterator[Sample]:
    """Yield the metrics of all sources; a series that a source has no longer is no longer exposed."""
    for name, standing in standings.items():
        source = {"source": name}
        labels = {**source, "batch": standing.batch, "page": standing.page}
        yield Sample("coda_batch_ended_timestamp_seconds", standing.ended, {**labels, "outcome": standing.state})
        for level in LEVELS:
            yield Sample("coda_drift_level", standing.level == level, {**source, "outcome": level})
        for judged in standing.judged:
            scope = {**source, "instrument": judged.instrument}
            yield Sample(
                "coda_drift_batch_timestamp_seconds", judged.at, {**scope, "batch": judged.batch, "page": judged.page}
            )
            for reading in judged.readings:
                yield from _of_reading(reading, {**scope, "group": reading.group, "metric": reading.name})


def _of_reading(reading: Reading, labels: Mapping[str, str]) -> Iterator[Sample]:
    numbers = {
        "value": reading.value, "low": reading.low, "high": reading.high, "deviations": reading.deviations,
        "cusum_share": reading.cusum, "plates_apart": float(reading.apart),
    }  # fmt: skip
    for name, value in numbers.items():
        if value is not None:
            yield Sample(f"coda_drift_{name}", value, labels)
    for rule in reading.broken:
        yield Sample("coda_drift_rule_broken", 1, {**labels, "rule": rule})


def release_samples(entries: Iterable[PointerEntry]) -> Iterator[Sample]:
    """Yield what serves each scope, from the release log: also after a rollback, which no run reports."""
    newest: dict[str, PointerEntry] = {}
    for entry in entries:
        if entry.scope not in newest or newest[entry.scope].sequence < entry.sequence:
            newest[entry.scope] = entry
    for scope, entry in newest.items():
        release, source = entry.release, {"source": scope}
        labels = {
            **source,
            "release": release.release_id,
            "method": release.method,
            "alignment": release.alignment,
            "extractor": f"{release.extractor.name}/{release.extractor.version}",
            "head": f"{release.head.name}/{release.head.version}",
        }
        yield Sample("coda_release_info", 1, labels)
        yield Sample("coda_release_created_timestamp_seconds", release.created_at.timestamp(), source)
        moved = {**source, "release": release.release_id, "outcome": entry.action}
        yield Sample("coda_release_moved_timestamp_seconds", entry.at.timestamp(), moved)


class StandingMetrics(Collector):
    """The metrics of the newest survey; a scrape sees one survey or the next, never parts of both."""

    def __init__(self) -> None:
        """Expose nothing until the first survey."""
        self._registry = CollectorRegistry()

    def replace(self, samples: Sequence[Sample]) -> None:
        """Expose these from now on, and nothing of before."""
        self._registry = build_registry(samples)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the newest survey."""
        yield from self._registry.collect()
