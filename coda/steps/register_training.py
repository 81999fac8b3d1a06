"""Registering a training run: extractor with its state, and every head, as versions; and a draft of their release."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coda.config import params_digest
from coda.config.params import Params
from coda.contracts import ModelRef, ReleaseRecord
from coda.contracts.documents import document_at
from coda.contracts.fingerprints import StainFingerprints
from coda.contracts.recipe import Alignment
from coda.errors import ConfigError, IntegrityError, Problem
from coda.quality.fingerprints import FINGERPRINTS
from coda.registry import Provenance, name_heads, register_extractor, register_head
from coda.registry.drafts import keep_draft, keep_params, release_name
from coda.settings import Settings
from coda.steps.record import code_version, lock_digest
from coda.steps.tracked_run import track_training
from coda.steps.version import read_revisions

_ALIGNMENT: Mapping[str, Alignment] = {"standardise": "standardise", "classical": "standardise"}
"""Folder of a head -> what is done to what it reads."""

_FIGURES = TypeAdapter(dict[str, Any])


def register_training(
    pretrained: Path,
    heads: Path,
    evaluation: Path,
    revisions: Path,
    out: Path,
    *,
    params: Params,
    settings: Settings,
    run_id: str,
) -> ReleaseRecord:
    """Register what a training run made, and draft the release that binds the extractor and its best head.

    The best head is the one with the highest accuracy on the batches that were held out (fields, then wells; on a
    tie the one without alignment, which needs nothing at prediction). All heads are named in the release: a later
    adaptation may bind another one.

    Args:
        pretrained: ``extractor/`` and ``state/``.
        heads: One model folder for each alignment, and what the stains look like.
        evaluation: Folder with ``metrics.json``: ``<alignment>_accuracy_field`` and ``_well`` of each head.
        revisions: ``revisions.json``.
        out: File to write: the draft, a ReleaseRecord.
        params: Parameters of the run.
        settings: Where MLflow and the platform bucket are.
        run_id: The run; registering it again returns the same versions.

    Raises:
        IntegrityError: A model folder or document is not what it should be.
        TransientError: MLflow or the object store does not answer; repeating the step is safe.
    """
    scores = _scores(heads, evaluation)
    provenance = _provenance(scores, revisions, params, settings, run_id=run_id)
    extractor = register_extractor(pretrained / "extractor", pretrained / "state", provenance, settings=settings)
    registered: dict[str, ModelRef] = {
        name: register_head(heads / name, extractor, provenance, settings=settings) for name in scores
    }
    name_heads(extractor, tuple(registered.values()), settings=settings)
    best = max(scores, key=lambda name: (*_known(scores[name]), name == "none"))
    field, well = scores[best]
    record = ReleaseRecord(
        release_id=release_name(run_id),
        source=provenance.source,
        created_at=datetime.now(UTC),
        method="source",
        extractor=extractor,
        head=registered[best],
        alignment=_ALIGNMENT.get(best, "none"),
        heads=tuple(registered[name] for name in sorted(registered)),
        data=provenance.data,
        run_id=run_id,
        params_digest=provenance.params_digest,
        gate_sentence=_sentence(best, field, well),
        min_top_over_chance=params.predict.min_top_over_chance,
        stains=StainFingerprints.read(heads / FINGERPRINTS) if (heads / FINGERPRINTS).is_file() else None,
        approver="gate",
    )
    track_training(pretrained, heads, scores, registered, record, params=params, settings=settings)
    keep_params(run_id, params.model_dump(mode="json"), settings=settings)
    return keep_draft(record, out, settings=settings)


def _provenance(
    scores: dict[str, tuple[float, float]], revisions: Path, params: Params, settings: Settings, *, run_id: str
) -> Provenance:
    data = read_revisions(revisions)
    if not data:
        problem = Problem(str(revisions), "no data revision", "at least one", "Run the version step first.")
        raise ConfigError("A model without a data revision is not registered.", [problem])
    figures = {f"{name}_accuracy_field": field for name, (field, _) in scores.items() if not math.isnan(field)}
    return Provenance(
        run_id=run_id,
        source=data[0].source,
        params_digest=params_digest(params),
        data=data,
        code_version=code_version(),
        image=settings.image,
        lock_digest=lock_digest(),
        params=params.model_dump(mode="json"),
        remarks={"method": "source", **figures},
    )


def _scores(heads: Path, evaluation: Path) -> dict[str, tuple[float, float]]:
    """Return accuracy on held-out fields and wells of every head folder; NaN where nothing was held out."""
    names = sorted(path.parent.name for path in heads.glob("*/digests.json"))
    if not names:
        problem = Problem(str(heads), "no model folder", "one for each alignment", "Run train_head first.")
        raise IntegrityError("There is no head to register.", [problem])
    path = evaluation / "metrics.json" if evaluation.is_dir() else evaluation
    try:
        expected, remedy = "the figures of the evaluation", "Run the evaluate step again."
        numbers = document_at(path, _FIGURES, expected=expected, remedy=remedy)
    except FileNotFoundError as error:
        problem = Problem(str(path), "nothing", expected, remedy)
        raise IntegrityError("The evaluation cannot be read.", [problem]) from error

    def figure(name: str, level: str) -> float:
        return float(numbers.get(f"{name}_accuracy_{level}", math.nan))

    return {name: (figure(name, "field"), figure(name, "well")) for name in names}


def _known(scores: tuple[float, float]) -> tuple[float, float]:
    # NaN compares as neither smaller nor larger; a head that was not measured must not win by accident
    field, well = scores
    return (-1.0 if math.isnan(field) else field, -1.0 if math.isnan(well) else well)


def _sentence(best: str, field: float, well: float) -> str:
    ways = {
        "none": "raw tokens", "standardise": "tokens standardised by batch",
        "classical": "classical profiles, standardised by batch,",
    }  # fmt: skip
    if math.isnan(field):
        return f"Trained on the source; nothing was held out, so the head on {ways.get(best, best)} serves unmeasured."
    right = f"{field:.1%} of the held-out fields"
    wells = "" if math.isnan(well) else f" and {well:.1%} of the held-out wells"
    return f"Trained on the source; the head on {ways.get(best, best)} is right for {right}{wells}."
