"""RunRecord: what one finished run was made of, written when its outcome is known."""

import hashlib
import importlib.metadata
import logging
import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from coda.config import Params, params_digest
from coda.contracts import DataRevision, ReleaseRecord, RunRecord, StepRecord
from coda.contracts.base import Part
from coda.contracts.run import RunOutcome
from coda.settings import Settings
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record, read_object

log = logging.getLogger(__name__)

MAX_TIME = 253402300799.0
"""The last second of the year 9999, after which Python has no dates."""

LIBRARIES = ("torch", "timm", "numpy", "kfp", "mlflow", "dvc", "great-expectations")


def record_run(
    run_id: str,
    *,
    pipeline: Literal["training", "adaptation"],
    outcome: RunOutcome,
    sentence: str,
    batches: Sequence[str],
    manifest_digests: Sequence[str],
    params: Params,
    settings: Settings,
    data: Sequence[DataRevision] = (),
    release: ReleaseRecord | None = None,
) -> RunRecord:
    """Write ``runs/<run_id>/run.json`` to the platform bucket and return it; of a failed run, ``failed.json``.

    A run with a ``run.json`` is never run again, and one that failed is.

    Args:
        run_id: Run that ended.
        pipeline: Which pipeline it was.
        outcome: How it ended.
        sentence: The end in plain words.
        batches: ``source/batch`` of all data that went in.
        manifest_digests: Digests of their manifests, in the same order.
        params: Parameters of the run.
        settings: Where the platform bucket is.
        data: Data revisions, when the batches were versioned.
        release: What serves after the run, when it made or kept a release.
    """
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    timed = finished_steps(store, run_id)
    started = min([times.started for times in timed], default=datetime.now(UTC).timestamp())
    record = RunRecord(
        run_id=run_id,
        pipeline=pipeline,
        started_at=datetime.fromtimestamp(started, UTC),
        finished_at=datetime.now(UTC),
        outcome=outcome,
        sentence=sentence,
        batches=tuple(batches),
        manifest_digests=tuple(manifest_digests),
        code_version=code_version(),
        image=settings.image,
        lock_digest=lock_digest(),
        params_digest=params_digest(params),
        seed=params.seed,
        data=tuple(data),
        models=(release.extractor, release.head) if release else (),
        release_id=release.release_id if release else None,
        steps=tuple(StepRecord(name=times.name, seconds=round(times.seconds, 3)) for times in timed),
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
    name = "failed.json" if outcome == "failed" else "run.json"
    store.put(f"runs/{run_id}/{name}", record.to_json().encode(), content_type="application/json")
    return record


def read_run(run_id: str, settings: Settings) -> RunRecord | None:
    """Return the record of a finished run, or None when it has none yet.

    Raises:
        UnreadableRecordError: There is one, and nobody can say what it said.
    """
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    return find_record(store, f"runs/{run_id}/run.json", RunRecord)


class StepTimes(Part):
    """When a step of a run began, and how long it took (seconds)."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str
    started: float = Field(ge=0, le=MAX_TIME, allow_inf_nan=False)
    seconds: float = Field(ge=0, allow_inf_nan=False)


def finished_steps(store: ObjectStore, run_id: str) -> list[StepTimes]:
    """Return when the steps of a run began, in that order, and how long each took.

    A step that was done in parts is one step, and its seconds are those of all parts.
    """
    listed = (step_times(store, item.key) for item in store.list(f"runs/{run_id}/steps/"))
    found: dict[str, StepTimes] = {}
    for times in sorted(filter(None, listed), key=lambda times: (times.started, times.name)):
        before = found.get(times.name)
        seconds = times.seconds + (before.seconds if before else 0.0)
        found[times.name] = (before or times).model_copy(update={"seconds": seconds})
    return list(found.values())


def step_times(store: ObjectStore, key: str) -> StepTimes | None:
    """Return the times that a step left; None where it cannot be read, since no result depends on it."""
    try:
        return StepTimes.model_validate(read_object(store, key))
    except (ValidationError, UnreadableRecordError) as error:
        log.warning("%s holds no times of a step and is passed over: %s", key, error)
        return None


def code_version() -> str:
    """Return what code this is: CODA_GIT_REVISION of the image, else the checkout's commit, else the version."""
    if stamped := os.environ.get("CODA_GIT_REVISION"):
        return stamped
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return importlib.metadata.version("coda-pipeline")
    return done.stdout.strip()


def lock_digest() -> str | None:
    """Return the SHA-256 of the lock that this image was built from; None outside of an image."""
    path = Path(os.environ.get("CODA_LOCK", ""))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
