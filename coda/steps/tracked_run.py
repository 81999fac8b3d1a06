"""What the register and report steps tell MLflow of a run: read from the files that the steps before them left."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coda.config import Params
from coda.contracts import CandidateScore, DataRevision, GateReport, ModelRef, ReleaseRecord, StepRecord
from coda.contracts.documents import document_at
from coda.errors import CodaError
from coda.registry.tracking import Log, Tracked, attach_report, track
from coda.settings import Settings

log = logging.getLogger(__name__)

_ANY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])

Scores = Mapping[str, tuple[float, float]]


def track_training(
    pretrained: Path,
    heads: Path,
    scores: Scores,
    registered: Mapping[str, ModelRef],
    record: ReleaseRecord,
    *,
    params: Params,
    settings: Settings,
) -> None:
    """Tell MLflow of a training run: how extractor and heads learned, on what, and how right the heads are.

    Args:
        pretrained: Folder of the extractor, with ``pretraining.json``.
        heads: Folder of the heads, with ``training.json``.
        scores: Head -> accuracy on held-out fields and wells; NaN where nothing was held out.
        registered: Head -> its version.
        record: Draft of the release.
        params: Parameters of the run.
        settings: Where MLflow is.

    Raises:
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    learned, classified = _read(pretrained / "pretraining.json"), _read(heads / "training.json")
    curves: dict[str, Log] = {"pretraining": [*learned.get("log", ()), *learned.get("speed", ())]}
    curves |= {f"head_{name}": told.get("log", ()) for name, told in classified.get("heads", {}).items()}
    figures = {
        name: {f"head_{name}/accuracy_field": field, f"head_{name}/accuracy_well": well}
        for name, (field, well) in scores.items()
    }
    results = {"pretraining/alarms": len(learned.get("alarms", ()))}
    track(
        Tracked(
            record.run_id, "training", record.source, {"method": record.method}, record.gate_sentence,
            params.model_dump(mode="json"), record.data, curves, results,
            [(registered[name], found) for name, found in figures.items()],
        ),
        settings=settings,
    )  # fmt: skip


def track_adaptation(
    candidates: Path,
    report: GateReport,
    data: Sequence[DataRevision],
    extractor: ModelRef | None,
    *,
    params: Params,
    settings: Settings,
    run_id: str,
) -> None:
    """Tell MLflow of an adaptation: how the extractor learned, on what, and what the gate saw and decided.

    Args:
        candidates: Candidates folder, with ``training.json``.
        report: The gate's.
        data: Batches of the run, as the data registry holds them.
        extractor: The version that the run made; None where it made none.
        params: Parameters of the run.
        settings: Where MLflow is.
        run_id: The run.

    Raises:
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    learned = _read(candidates / "training.json")
    parts = {"adaptation": learned, "adaptation_oda": learned.get("adapted_oda", {})}
    curves: dict[str, Log] = {name: [*part.get("log", ()), *part.get("speed", ())] for name, part in parts.items()}
    scores = {score.name: score for score in report.candidates}
    chosen = _gate(scores.get(report.chosen or ""), "gate")
    results = {} if extractor is not None else dict(chosen)
    results |= _gate(scores.get(report.baseline), "gate_baseline")
    results["gate/unhealthy_candidates"] = sum(not score.healthy for score in report.candidates)
    results["adaptation/alarms"] = len(learned.get("alarms", ()))
    tags = {"outcome": report.outcome, "method": report.chosen or "", "batch": report.batch}
    track(
        Tracked(
            run_id, "adaptation", report.source, tags, report.sentence, params.model_dump(mode="json"), data, curves,
            results, [(extractor, chosen)] if extractor is not None else [],
        ),
        settings=settings,
    )  # fmt: skip


def keep_report(run_id: str, page: Path, steps: Sequence[StepRecord], settings: Settings) -> None:
    """Put a report beside the numbers of its run in MLflow; what goes wrong is a warning, for the report is kept."""
    try:
        attach_report(run_id, page, {step.name: step.seconds for step in steps}, settings=settings)
    except CodaError as error:
        log.warning("The report of %s is not in MLflow: %s", run_id, error.message)


def _gate(score: CandidateScore | None, group: str) -> dict[str, float]:
    """Return what the gate measured of one way of predicting, with the interval of its gain, below a group's name."""
    if score is None:
        return {}
    found = {name: measure.value for name, measure in score.measures.items()}
    for name, gain in (("gain", score.gain), ("gain_over_incumbent", score.gain_over_incumbent)):
        if gain is not None:
            ends = {name: gain.value, f"{name}_low": gain.low, f"{name}_high": gain.high}
            found |= {what: value for what, value in ends.items() if value is not None}
    return {f"{group}/{what}": value for what, value in found.items()}


def _read(path: Path) -> dict[str, Any]:
    """Return a document of a step; nothing where there is none, as in folders of earlier releases of this program."""
    if not path.is_file():
        return {}
    return document_at(path, _ANY, expected="how a network learned", remedy="Run the step that wrote it again.")
