"""Forty batches of three laboratories as Prometheus would have scraped them: made by the code that exposes metrics.

Each batch goes the way of a real one: outputs of steps, what the report step pushes, its row in the table of batches,
what the trigger makes of that table. `exposed` tells when a scrape saw what, `openmetrics` writes it for promtool.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample as Scraped
from report_inputs import digest, gate_report, index, manifest, predictions, quality
from simulated_history import release

from coda.contracts import RunRecord, StepRecord
from coda.contracts.quality import PlateFigures
from coda.evaluation.predictions.prediction_levels import compound_table, well_table
from coda.monitoring.batch_numbers import collect
from coda.monitoring.batch_row import Facts, facts_of, numbers_of, table_of
from coda.monitoring.endpoint import TextfileCollector
from coda.monitoring.facts import samples, summarise
from coda.monitoring.inputs import BatchInputs, CandidateInputs, ReportInputs
from coda.monitoring.push import Sample, build_registry
from coda.monitoring.site.lines import source_of
from coda.monitoring.standing import drift_samples, release_samples, standing_of
from coda.steps.conclude import samples_of_failure
from coda.trigger.metrics import TriggerMetrics

EVERY = timedelta(hours=14)
SEEN, NEWEST = timedelta(hours=4), timedelta(minutes=75)
"""Time between two scrapes that are kept of the past, and for how long every one of the newest is kept."""

STEPS = (StepRecord(name="ingest", seconds=300.0), StepRecord(name="adapt", seconds=600.0))


@dataclass(frozen=True)
class Laboratory:
    """One source: how many batches, from which on a lamp ages, and which one has a control that failed."""

    source: str
    batches: int
    ages_from: int = 10**6
    failed_control: int = 10**6
    refused: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


LABORATORIES = (
    Laboratory("lab_b", 24, ages_from=9, refused=(6,)),
    Laboratory("lab_c", 8, failed_control=7, failed=(5,)),
    Laboratory("lab_d", 8),
)
"""Forty batches."""


@dataclass
class Replayed:
    """What was exposed: time -> job -> metric families, each until the job's next time."""

    scrapes: dict[str, list[tuple[datetime, list]]] = field(default_factory=lambda: defaultdict(list))
    batches: int = 0

    def seen(self, job, at, registry):
        self.scrapes[job].append((at, list(registry.collect())))


def replay(end: datetime) -> Replayed:
    """Return what would have been scraped until a time at which the newest batches are some hours old."""
    found = Replayed()
    trigger = TriggerMetrics()
    empty = CollectorRegistry()
    empty.register(TextfileCollector(Path("/nowhere")))
    standings, moves, events = {}, [], []
    for lab in LABORATORIES:
        rng = np.random.default_rng(len(lab.source) + lab.batches)
        first = end - timedelta(hours=4) - EVERY * (lab.batches - 1)
        moves.append(release(lab.source, 1, first - timedelta(hours=1)))
        history, tables = [], []
        events += [(first + EVERY * k, lab, k, history, tables, rng) for k in range(lab.batches)]
    for at, lab, k, history, tables, rng in sorted(events, key=lambda event: event[:1]):
        state = "failed" if k in lab.failed else "refused" if k in lab.refused else "released"
        trigger.events.labels(outcome="claimed").inc()
        trigger.claims.labels(source=lab.source).inc()
        trigger.lag.observe(120.0)
        trigger.requests.labels(outcome="recorded").inc()
        trigger.runs.labels(pipeline="adaptation", outcome=state).inc()
        if state == "failed":
            run = run_record(lab, k, at, "failed")
            found.seen("coda_failed_run/" + lab.source, at, build_registry(samples_of_failure(run, lab.source)))
            trigger.last_failure.labels(source=lab.source).set(at.timestamp())
            name = f"b{k:04d}"
            facts = Facts(lab.source, name, digest(lab.source + name), "failed", at, run_id=run.run_id)
            tables.append(table_of(facts, ()))
        else:
            tables.append(reported(found, lab, k, at, history, rng))
        frame = pa.concat_tables(tables).unify_dictionaries().to_pandas()
        for name in ("source", "batch", "manifest_digest", "plate", "measure", "subject"):
            frame[name] = frame[name].astype(str)
        standings[lab.source] = standing_of(source_of(lab.source, frame))
        entries = [entry for entry in moves if entry.at <= at]
        told = [*drift_samples(standings), *release_samples(entries)]
        told.append(Sample("coda_site_read_timestamp_seconds", at.timestamp()))
        told.append(Sample("coda_site_info", 1, {"url": "https://coda.example.org"}))
        found.seen("drift", at, build_registry(told))
        trigger.last_poll.set(at.timestamp())
        found.seen("trigger", at, trigger.registry)
        found.seen("files", at, empty)
        found.batches += 1
    # the fleet grows to fifty: laboratories whose newest batch is like the ones above
    newest = standings["lab_d"]
    judged = newest.judged[0].model_copy(update={"readings": newest.judged[0].readings[::12]})
    newest = newest.model_copy(update={"judged": (judged,)})
    more = {f"site_{n:02d}": newest for n in range(50 - len(LABORATORIES))}
    at = end - NEWEST
    told = [*drift_samples(standings | more), *release_samples(moves)]
    told.append(Sample("coda_site_read_timestamp_seconds", at.timestamp()))
    found.seen("drift", at, build_registry([*told, Sample("coda_site_info", 1, {"url": "https://coda.example.org"})]))
    return found


def run_record(lab, k, at, outcome):
    return RunRecord(
        run_id=f"{lab.source}-{k}", pipeline="adaptation", started_at=at - timedelta(hours=1), finished_at=at,
        outcome=outcome, sentence="It ended.", batches=(f"{lab.source}/b{k:04d}",), manifest_digests=(),
        code_version="1", params_digest="0" * 64, seed=0, steps=STEPS,
    )  # fmt: skip


def reported(found, lab, k, at, history, rng):
    """Have one batch reported and pushed, and return its rows in the table of batches."""
    document = manifest(lab.source, f"b{k:04d}").model_copy(update={"created_at": at - timedelta(hours=5)})
    refused = k in lab.refused
    report = quality(document, "refused" if refused else "accepted")
    bad = k == lab.failed_control
    figures = tuple(
        PlateFigures(
            plate=plate.plate, robust_z_prime=-4.0 if bad and number == 1 else float(rng.normal(0.62, 0.03)),
            control_statistic="p50_AGP", ssmd=float(rng.normal(-11, 0.4)),
        )
        for number, plate in enumerate(document.plates)
    )  # fmt: skip
    report = report.model_copy(update={"plates": figures})
    rows = index(document, rng)
    rows.loc[rows["Metadata_Compound"] == "CPD-00", "Metadata_pert_type"] = "poscon"
    level = float(rng.normal(1.0, 0.01)) - 0.004 * max(0, k - lab.ages_from)
    rows["QC_p95_ER"] *= level
    if bad:
        rows.loc[rows["Metadata_pert_type"] == "poscon", "QC_p95_AGP"] *= 0.3
    if refused:
        inputs = ReportInputs((BatchInputs(Path(), document, report, None, rows.iloc[:0], pd.DataFrame()),))
    else:
        fields = predictions(rows, 1.0, rng)
        wells = well_table(fields)
        drift = {
            when: {
                "frechet_to_source": float(rng.normal(2.5, 0.2)) / by,
                "mmd_controls": float(rng.normal(0.9, 0.1)) / by,
            }
            for when, by in (("before", 1), ("after", 5))
        }
        training = {"loss_first": 5.1, "loss_last": 4.2, "seconds": 31.0, "pairable_share": 0.98}
        candidates = CandidateInputs(fields, {}, {"unadapted": predictions(rows, 0.5, rng)}, training, drift)
        inputs = ReportInputs(
            (BatchInputs(Path(), document, report, None, rows, pd.DataFrame()),), gate_report(document), None,
            candidates, {"field": fields, "well": wells, "compound": compound_table(wells)},
        )  # fmt: skip
    batch = inputs.batches[0]
    summary = summarise(inputs, batch, at)
    found.seen("coda_report/" + lab.source, at, build_registry(samples(inputs, batch, summary, history, STEPS)))
    run = run_record(lab, k, at, "refused" if refused else "released")
    numbers = collect(inputs, batch, summary, history, STEPS, run_id=run.run_id)
    history.append(summary)
    return table_of(facts_of(summary, numbers, run), numbers_of(summary, numbers))


def openmetrics(replayed: Replayed, end: datetime, path: Path) -> int:
    """Write what scrapes would have found, every `SEEN`, and every five minutes of the `NEWEST` time.

    Returns:
        Number of samples.
    """
    kinds, series = {}, defaultdict(list)
    for job, known in replayed.scrapes.items():
        for number, (at, families) in enumerate(known):
            until = known[number + 1][0] if number + 1 < len(known) else end + timedelta(seconds=1)
            times = [time.timestamp() for time in _times(at, until, end)]
            for family in families:
                kinds[family.name] = family.type if family.type in ("counter", "histogram") else "gauge"
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        key = (family.name, sample.name, _labels(sample, job))
                        series[key] += [(time, _moving(sample, time)) for time in times]
    count = 0
    with path.open("w") as file:
        last = None
        for (family, name, labels), values in sorted(series.items()):
            if family != last:
                file.write(f"# TYPE {family} {kinds[family]}\n")
                last = family
            for time, value in values:
                file.write(f"{name}{labels} {value} {time:.3f}\n")
                count += 1
        file.write("# EOF\n")
    return count


def _times(at, until, end):
    step = SEEN
    time = datetime.fromtimestamp(step.total_seconds() * -(-at.timestamp() // step.total_seconds()), UTC)
    while time < min(until, end - NEWEST):
        yield time
        time += step
    time = max(at, end - NEWEST)
    while time < until:
        yield time
        time += timedelta(minutes=5)


def _moving(sample: Scraped, time: float) -> float:
    """A trigger that lives polls, and reckons drift, every few minutes; all else is as it was."""
    alive = ("coda_trigger_last_poll_timestamp_seconds", "coda_site_read_timestamp_seconds")
    return time - 60 if sample.name in alive else float(sample.value)


def _labels(sample: Scraped, job: str) -> str:
    labels = {**sample.labels, "job": job.partition("/")[0]}
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{told}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
