"""From the outputs of a run to numbers: the summary that history keeps and the samples that are pushed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np

from coda.contracts import GateReport, StepRecord
from coda.monitoring.acquisition import medians
from coda.monitoring.batch_numbers import answers, by_name
from coda.monitoring.inputs import BatchInputs, ReportInputs
from coda.monitoring.metric_names import CLOCKS_DIFFER_S, METRICS
from coda.monitoring.push import Sample
from coda.monitoring.summaries import BatchSummary, acquisition_z, drift_percentiles, not_released_in_a_row

VERDICTS = ("accepted", "accepted_with_warnings", "refused")
OUTCOMES = ("release", "keep_incumbent", "hold", "refuse")


def summarise(inputs: ReportInputs, batch: BatchInputs, at: datetime) -> BatchSummary:
    """Return the numbers of one batch that later batches are compared with."""
    judged = inputs.gate if inputs.gate and inputs.gate.batch == batch.manifest.batch else None
    return BatchSummary(
        source=batch.manifest.source,
        batch=batch.manifest.batch,
        manifest_digest=batch.digest,
        instrument=batch.manifest.instrument.name,
        at=at,
        created_at=batch.manifest.created_at,
        verdict=batch.quality.verdict if batch.quality else "unknown",
        outcome=judged.outcome if judged else "",
        acquisition={f"{stain}/{name}": value for (stain, name), value in medians(batch.index).items()},
        drift_before=_drift(inputs, batch, "before"),
        drift_after=_drift(inputs, batch, "after"),
    )


def samples(
    inputs: ReportInputs,
    batch: BatchInputs,
    summary: BatchSummary,
    history: Sequence[BatchSummary],
    steps: Sequence[StepRecord] = (),
) -> list[Sample]:
    """Return all samples of one batch; what cannot be known is left out, never reported as zero."""
    source = {"source": batch.manifest.source}
    scope = {**source, "instrument": batch.manifest.instrument.name}
    found = [
        *_arrival(batch, summary, source, scope),
        *_integrity(batch, scope),
        *_acquisition(summary, history, scope),
        *_embedding(summary, history, source),
        *_prediction(inputs, source),
        *_adaptation(inputs, summary, history, source),
        *_platform(inputs, summary, steps, source),
    ]
    return [sample for sample in found if np.isfinite(sample.value)]


def _drift(inputs: ReportInputs, batch: BatchInputs, when: str) -> dict[str, float]:
    judged = inputs.gate is None or inputs.gate.batch == batch.manifest.batch
    if inputs.candidates is None or not judged:
        return {}
    return {name: value for name, value in inputs.candidates.drift.get(when, {}).items() if np.isfinite(value)}


def _arrival(
    batch: BatchInputs, summary: BatchSummary, source: Mapping[str, str], scope: Mapping[str, str]
) -> Iterator[Sample]:
    yield Sample("coda_batch_plates", len(batch.manifest.plates), scope)
    # a producer's clock may be wrong by years: what it says is shown, and nothing is reckoned from a time to come
    ahead = (summary.created_at - summary.at).total_seconds()
    yield Sample("coda_batch_created_timestamp_seconds", min(summary.created_at, summary.at).timestamp(), scope)
    yield Sample("coda_batch_clock_ahead_seconds", max(0.0, ahead), source)
    if ahead <= CLOCKS_DIFFER_S:
        yield Sample("coda_batch_decision_seconds", max(0.0, -ahead), source)
    if batch.quality is not None:
        yield Sample("coda_batch_plates_accepted", len(batch.quality.plates_accepted), scope)
        yield Sample("coda_batch_fields_expected", batch.quality.fields_expected, scope)
        yield Sample("coda_batch_fields_accepted", batch.quality.fields_accepted, scope)


def _integrity(batch: BatchInputs, scope: Mapping[str, str]) -> Iterator[Sample]:
    report = batch.quality
    if report is None:
        return
    aside = max(report.fields_expected - report.fields_accepted, 0)
    yield Sample("coda_fields_quarantined", aside, scope)
    if report.fields_expected:
        yield Sample("coda_fields_quarantined_share", aside / report.fields_expected, scope)
    failed = [check for check in report.checks if not check.passed]
    for severity in ("critical", "warning", "info"):
        count = sum(check.severity == severity for check in failed)
        yield Sample("coda_checks_failed", count, {**scope, "outcome": severity})
    yield Sample("coda_history_checks_failed", sum(check.group == "history" for check in failed), scope)
    for verdict in VERDICTS:
        yield Sample("coda_batch_verdict", report.verdict == verdict, {**scope, "outcome": verdict})
    yield Sample("coda_digest_mismatches", digest_mismatches(batch), scope)
    wells = negcon_wells(batch)
    if wells:
        yield Sample("coda_negcon_wells", min(wells.values()), scope)


def digest_mismatches(batch: BatchInputs) -> int:
    """Return how many files or plates were set aside because their bytes are not the manifest's."""
    reasons = [item.reason for item in batch.quality.quarantined] if batch.quality else []
    reasons += [f"{problem.found} {problem.expected}" for problem in batch.ingest.problems] if batch.ingest else []
    return sum("sha-256" in reason.lower() or "sha256" in reason.lower() for reason in reasons)


def negcon_wells(batch: BatchInputs) -> dict[str, int]:
    """Return the number of negative-control wells with accepted fields, by accepted plate."""
    if batch.quality is None or batch.index.empty:
        return {}
    controls = batch.index[batch.index["Metadata_pert_type"] == "negcon"]
    counted = controls.groupby("Metadata_Plate")["Metadata_Well"].nunique()
    return {plate: int(counted.get(plate, 0)) for plate in batch.quality.plates_accepted}


def _acquisition(summary: BatchSummary, history: Sequence[BatchSummary], scope: Mapping[str, str]) -> Iterator[Sample]:
    for name, numbers in (
        ("coda_acquisition_value", summary.acquisition),
        ("coda_acquisition_robust_z", acquisition_z(summary, history)),
    ):
        for key, value in numbers.items():
            stain, _, statistic = key.partition("/")
            yield Sample(name, value, {**scope, "channel": stain, "metric": statistic})


def _embedding(summary: BatchSummary, history: Sequence[BatchSummary], source: Mapping[str, str]) -> Iterator[Sample]:
    for name, numbers in (
        ("coda_embedding_drift_before", summary.drift_before),
        ("coda_embedding_drift_after", summary.drift_after),
        ("coda_embedding_drift_percentile", drift_percentiles(summary, history)),
    ):
        for metric, value in numbers.items():
            yield Sample(name, value, {**source, "metric": metric})


def _prediction(inputs: ReportInputs, source: Mapping[str, str]) -> Iterator[Sample]:
    for name, value in by_name(tuple(answers(inputs))).items():
        if f"coda_prediction_{name}" in METRICS:
            yield Sample(f"coda_prediction_{name}", value, source)


def _adaptation(
    inputs: ReportInputs, summary: BatchSummary, history: Sequence[BatchSummary], source: Mapping[str, str]
) -> Iterator[Sample]:
    if inputs.gate is not None and summary.outcome:
        yield from _gate(inputs.gate, source)
        yield Sample("coda_gate_not_released_in_a_row", not_released_in_a_row(summary, history), source)
    training = inputs.candidates.training if inputs.candidates else {}
    for metric in ("first", "last"):
        if f"loss_{metric}" in training:
            yield Sample("coda_adaptation_loss", training[f"loss_{metric}"], {**source, "metric": metric})
    for name in ("pairable_share", "seconds"):
        if name in training:
            yield Sample(f"coda_adaptation_{name}", training[name], source)


def _gate(gate: GateReport, source: Mapping[str, str]) -> Iterator[Sample]:
    scores = {score.name: score for score in gate.candidates}
    for name, chosen in (("coda_gate_measure_baseline", gate.baseline), ("coda_gate_measure_chosen", gate.chosen)):
        for metric, measure in scores[chosen].measures.items() if chosen in scores else ():
            yield Sample(name, measure.value, {**source, "metric": metric})
    gain = scores[gate.chosen].gain if gate.chosen in scores else None
    if gain is not None:
        ends = {"value": gain.value, "low": gain.low, "high": gain.high}
        for metric, value in ends.items():
            if value is not None:
                yield Sample("coda_gate_gain", value, {**source, "metric": metric})
    for outcome in OUTCOMES:
        yield Sample("coda_gate_outcome", gate.outcome == outcome, {**source, "outcome": outcome})
    yield Sample("coda_gate_unhealthy_candidates", sum(not score.healthy for score in gate.candidates), source)


def _platform(
    inputs: ReportInputs, summary: BatchSummary, steps: Sequence[StepRecord], source: Mapping[str, str]
) -> Iterator[Sample]:
    scope = {**source, "pipeline": inputs.pipeline}
    for step in steps:
        yield Sample("coda_step_seconds", step.seconds, {**scope, "step": step.name})
    if steps:
        yield Sample("coda_run_seconds", sum(step.seconds for step in steps), scope)
    yield Sample("coda_last_success_timestamp_seconds", summary.at.timestamp(), scope)
    yield Sample("coda_metrics_pushed_timestamp_seconds", summary.at.timestamp(), source)
