"""Step `report`: the page about a run, its place in the platform bucket, and the metrics of its batches."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from coda.config import Params
from coda.contracts import StepRecord
from coda.contracts.changed import WhatChanged
from coda.monitoring.batch_numbers import collect, is_about
from coda.monitoring.change_tables import picture_name
from coda.monitoring.facts import samples
from coda.monitoring.inputs import Outputs
from coda.monitoring.push import push
from coda.monitoring.report import Page, ReportInputs, gather, write_page
from coda.monitoring.summaries import BatchSummary, gate_key, read_history, report_prefix
from coda.settings import Settings
from coda.steps.record import finished_steps
from coda.storage.objects import ObjectStore

log = logging.getLogger(__name__)

JOB = "coda_report"
"""Constant name of the group of metrics; with the source it is the whole grouping key."""


def report(
    dataset: Path,
    out: Path,
    *,
    params: Params,
    settings: Settings,
    run_id: str,
    **outputs: Unpack[Outputs],
) -> Path:
    """Write the report of a run, keep it below ``reports/`` of the platform bucket, and push the metrics.

    Doing it twice replaces page, summary and metrics by the same ones. A refused batch gets its page, too: then
    everything but the dataset is absent.

    Args:
        dataset: Dataset folder after validation; one batch in an adaptation run, several in a training run.
        out: HTML file to write.
        params: Parameters of the run.
        settings: Platform bucket, Pushgateway and metrics folder.
        run_id: The run.
        **outputs: What the run's steps wrote.

    Returns:
        `out`.

    Raises:
        ContractError: There is no batch, or a document breaks its contract.
        TransientError: The platform bucket is away.
    """
    inputs = gather(dataset, **outputs)
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    steps = [StepRecord(name=times.name, seconds=times.seconds) for times in finished_steps(store, run_id)]
    history = {source: _history(store, inputs, source) for source in _sources(inputs)}
    page = write_page(inputs, out, params=params, run_id=run_id, history=history, steps=steps, at=datetime.now(UTC))
    for batch, summary in zip(inputs.batches, page.summaries, strict=True):
        prefix = report_prefix(summary.source, summary.batch, summary.manifest_digest)
        store.put(f"{prefix}report.html", out.read_bytes(), content_type="text/html; charset=utf-8")
        if inputs.gate is not None and inputs.gate.manifest_digest == summary.manifest_digest:
            # by the batch's name, so that whoever predicts it later finds a refusal
            key = gate_key(summary.source, summary.batch, summary.manifest_digest)
            store.put(key, inputs.gate.to_json().encode(), content_type="application/json")
        store.put(summary.key, summary.to_json().encode(), content_type="application/json")
        if is_about(inputs, batch):
            _keep_changed(store, prefix, inputs, page)
        numbers = collect(inputs, batch, summary, history[summary.source], steps, run_id=run_id)
        store.put(numbers.key, numbers.to_json().encode(), content_type="application/json")
    for source in _sources(inputs):
        _push(page, source, history[source], steps, settings)
    log.info("Report of %s: %s", run_id, page.sentence)
    return out


def _keep_changed(store: ObjectStore, prefix: str, inputs: ReportInputs, page: Page) -> None:
    """Keep what changed, and its pictures, beside the report: the pages about drift show them."""
    changed = inputs.candidates.changed if inputs.candidates else None
    if changed is None:
        return
    store.put(f"{prefix}{WhatChanged.NAME}", changed.to_json().encode(), content_type="application/json")
    for number, picture in enumerate(page.pairs):
        store.put(f"{prefix}{picture_name(number)}", picture.png, content_type="image/png")


def _sources(inputs: ReportInputs) -> list[str]:
    return sorted({batch.manifest.source for batch in inputs.batches})


def _history(store: ObjectStore, inputs: ReportInputs, source: str) -> list[BatchSummary]:
    own = {batch.digest for batch in inputs.batches}
    return read_history(store, source, without=own)


def _push(
    page: Page, source: str, history: Sequence[BatchSummary], steps: Sequence[StepRecord], settings: Settings
) -> None:
    """Push the metrics of a source's newest batch: a series has no batch label, so there can be only one."""
    mine = [
        (min(summary.created_at, summary.at), batch, summary)
        for batch, summary in zip(page.inputs.batches, page.summaries, strict=True)
        if summary.source == source
    ]
    _, batch, summary = max(mine, key=lambda item: item[0])
    push(samples(page.inputs, batch, summary, history, steps), job=JOB, source=source, settings=settings)
