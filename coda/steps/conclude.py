"""The end of a run that failed: its record, its page and its numbers, from what its steps left in the platform bucket.

Every pipeline runs this last, whatever became of its steps (KFP's exit handler). It decides nothing: a run that
recorded how it ended is left alone, and nothing that goes wrong here makes a good run fail. The record of a failed run
has a name of its own, for ``run.json`` means that the run is never to be run again.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from coda.config import Params
from coda.contracts import FailureRecord, GateReport, QualityReport, RunRecord
from coda.contracts.base import Contract
from coda.errors import CodaError
from coda.monitoring.batch_table import write_failed
from coda.monitoring.plain_page import bullets, heading, paragraph, plain_page, table
from coda.monitoring.push import Sample, push
from coda.monitoring.summaries import report_prefix
from coda.settings import Settings
from coda.steps.context import read_failure
from coda.steps.finish import PipelineName
from coda.steps.orphan import end_with_runner
from coda.steps.record import StepTimes, finished_steps, read_run, record_run
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record

log = logging.getLogger(__name__)

PAGE = "failure.html"
"""Name of the page, below ``runs/<run_id>/`` and beside the reports of the batch."""

JOB = "coda_failed_run"
"""Group of the numbers; those of the newest run with a report stay in theirs."""

NO_REASON = (
    "No step left a reason: one was ended from outside (memory, time limit, a lost node), or could not be started. "
    "The log of the run has its last words."
)

Kind = TypeVar("Kind", bound=Contract)

_BATCH = re.compile(r"([^/]+)/([^/]+)/[^/]+\.json$")


@dataclass(frozen=True)
class Ended:
    """A run as the pipeline engine saw it end.

    Attributes:
        run_id: The run.
        pipeline: Which pipeline.
        manifest_uris: Manifests it was given.
        manifest_digest: Version of the manifest it was given; empty where any would do.
        state: The engine's word: 'SUCCEEDED', 'FAILED' or 'CANCELLED'.
        said: What the engine said of the error.
    """

    run_id: str
    pipeline: PipelineName
    manifest_uris: Sequence[str]
    manifest_digest: str = ""
    state: str = "FAILED"
    said: str = ""


@contextmanager
def closing(run_id: str) -> Iterator[None]:
    """Log whatever goes wrong inside, without consequence: how the run ended is decided."""
    end_with_runner()
    try:
        yield
    except CodaError as error:
        log.warning("The end of %s was not written down: %s", run_id, error)
    except Exception:
        log.warning("The end of %s was not written down.", run_id, exc_info=True)


def conclude(ended: Ended, *, params: Params, settings: Settings) -> RunRecord | None:
    """Write down what is left of a run that failed; doing it twice writes the same again.

    Returns:
        The record, with the outcome 'failed'; None for a run that ended well or recorded how it ended.

    Raises:
        TransientError: The platform bucket is away.
    """
    if ended.state == "SUCCEEDED" or read_run(ended.run_id, settings) is not None:
        return None
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    prefix = f"runs/{ended.run_id}/"
    failure = _failure(ended.run_id, settings)
    verdicts = _verdicts(store, prefix)
    named = {
        (found[1], found[2]): ended.manifest_digest for uri in ended.manifest_uris if (found := _BATCH.search(uri))
    }
    batches = {(item.source, item.batch): item.manifest_digest for item in verdicts} or named
    reasons = str(failure).splitlines() if failure else [NO_REASON, *([ended.said] if ended.said else [])]
    record = record_run(
        ended.run_id,
        pipeline=ended.pipeline,
        outcome="failed",
        sentence=reasons[0],
        batches=[f"{source}/{batch}" for source, batch in batches],
        manifest_digests=[digest for digest in batches.values() if digest],
        params=params,
        settings=settings,
    )
    steps = finished_steps(store, ended.run_id)
    gate = _document(store, f"{prefix}gate.json", GateReport)
    html = _page(record, reasons, steps, [*(item.sentence for item in verdicts), *([gate.sentence] if gate else [])])
    beside = [report_prefix(*batch, digest) for batch, digest in batches.items() if digest]
    for folder in (prefix, *beside):
        store.put(f"{folder}{PAGE}", html.encode(), content_type="text/html; charset=utf-8")
    write_failed(store, record)
    for source in sorted({source for source, _ in batches}):
        push(samples_of_failure(record, source), job=JOB, source=source, settings=settings)
    return record


def _failure(run_id: str, settings: Settings) -> FailureRecord | None:
    try:
        return read_failure(run_id, settings)
    except UnreadableRecordError as error:
        log.warning("%s", error)
        return None


def _verdicts(store: ObjectStore, prefix: str) -> list[QualityReport]:
    """Return validation's verdicts on the run's batches, as far as it came and can be read."""
    keys = [item.key for item in store.list(f"{prefix}quality")]
    return [report for key in sorted(keys) if (report := _document(store, key, QualityReport)) is not None]


def _document(store: ObjectStore, key: str, kind: type[Kind]) -> Kind | None:
    try:
        return find_record(store, key, kind)
    except UnreadableRecordError as error:
        log.warning("%s", error)
        return None


def _page(record: RunRecord, reasons: Sequence[str], steps: Sequence[StepTimes], found: Sequence[str]) -> str:
    ended = [
        (step.name, f"{datetime.fromtimestamp(step.started, UTC):%Y-%m-%d %H:%M:%S}", f"{step.seconds:.1f}")
        for step in steps
    ]
    names = {step.name for step in steps}
    again = [f"coda ledger retry {batch}" for batch in record.batches if record.pipeline == "adaptation"]
    stays = []
    if "release" in names:
        sources = " ".join(dict.fromkeys(batch.partition("/")[0] for batch in record.batches))
        stays.append(
            paragraph("The step that releases had ended; what serves now:", f"coda registry history {sources}")
        )
    if "predict" in names:
        stays.append(paragraph("The step that predicts had ended; its tables are published."))
    return plain_page(
        f"Run {record.run_id} failed",
        [
            paragraph(f"{', '.join(record.batches)}: this {record.pipeline} run did not get to its report."),
            heading("Why"), bullets(reasons),
            heading("What to do"),
            paragraph("Put the reason right, and start the run again under its name: it takes up what is finished."),
            *(paragraph("Where the trigger began it:", command) for command in again),
            *([heading("What stays"), *stays] if stays else []),
            *([heading("What was found"), bullets(found)] if found else []),
            heading("Steps that had ended"),
            table(("step", "began (UTC)", "seconds"), ended) if ended else paragraph("None."),
            paragraph(f"Code {record.code_version}, parameters {record.params_digest}."),
        ],
    )  # fmt: skip


def samples_of_failure(record: RunRecord, source: str) -> Iterator[Sample]:
    """Yield the numbers of a failed run, for one of its sources."""
    scope = {"source": source, "pipeline": record.pipeline}
    yield Sample("coda_failed_run_timestamp_seconds", record.finished_at.timestamp(), scope)
    for step in record.steps:
        yield Sample("coda_failed_run_step_seconds", step.seconds, {**scope, "step": step.name})
