"""The end of a run: its outcome read from what the steps left, and the run record written."""

from pathlib import Path
from typing import Literal

from coda.config import Params
from coda.contracts import GateReport, QualityReport, ReleaseRecord, RunRecord
from coda.contracts.run import RunOutcome
from coda.errors import ContractError
from coda.monitoring.batch_table import write_reported
from coda.settings import Settings
from coda.steps.record import record_run
from coda.steps.version import read_revisions
from coda.storage.objects import store_for

PipelineName = Literal["training", "adaptation"]

OUTCOME_OF_GATE: dict[str, RunOutcome] = {
    "release": "released",
    "keep_incumbent": "incumbent_kept",
    "hold": "held",
    "refuse": "refused",
}
"""What the gate decided -> how the run ended."""


def finish(
    dataset: Path,
    *,
    pipeline: PipelineName,
    params: Params,
    settings: Settings,
    run_id: str,
    revisions: Path | None = None,
    gate: Path | None = None,
    release: Path | None = None,
) -> RunRecord:
    """Record how a run ended, and its batches in the table of batches. Doing it twice writes the same outcome again.

    Args:
        dataset: Validated dataset folder; every batch has its ``quality.json``.
        pipeline: Which pipeline it was.
        params: Parameters of the run.
        settings: Where the platform bucket is.
        run_id: The run.
        revisions: ``revisions.json``, when the batches were versioned.
        gate: ``gate.json``, when a gate judged.
        release: Release record that serves after the run, when there is one.

    Raises:
        ContractError: The dataset holds no validated batch, or a document cannot be read.
    """
    reports = [QualityReport.read(path) for path in sorted(dataset.glob("*/*/quality.json"))]
    if not reports:
        raise ContractError(f"{dataset} holds no batch with a quality report; nothing can be said about this run.")
    decision = GateReport.read(gate) if gate else None
    record = ReleaseRecord.read(release) if release else None
    outcome, sentence = _ending(reports, decision, record)
    ended = record_run(
        run_id,
        pipeline=pipeline,
        outcome=outcome,
        sentence=sentence,
        batches=[f"{report.source}/{report.batch}" for report in reports],
        manifest_digests=[report.manifest_digest for report in reports],
        params=params,
        settings=settings,
        data=read_revisions(revisions) if revisions else (),
        release=record,
    )
    store = store_for(settings.platform, settings)
    for report in reports:
        write_reported(store, report.source, report.batch, report.manifest_digest, ended)
    return ended


def _ending(
    reports: list[QualityReport], decision: GateReport | None, record: ReleaseRecord | None
) -> tuple[RunOutcome, str]:
    refused = [report for report in reports if report.refused]
    if decision is not None:
        return OUTCOME_OF_GATE[decision.outcome], decision.sentence
    if record is not None:
        return "released", f"Release {record.release_id} serves now. {record.gate_sentence}"
    if refused:
        return "refused", " ".join(report.sentence for report in refused)
    return "held", "The run ended without a release."
