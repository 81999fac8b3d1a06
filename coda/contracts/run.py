"""RunRecord: everything needed to say where a result came from."""

from typing import Literal

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Part
from coda.contracts.release import DataRevision, ModelRef

RunOutcome = Literal["released", "incumbent_kept", "held", "refused", "failed"]


class StepRecord(Part):
    """One finished step."""

    name: str
    seconds: float = Field(ge=0)


class RunRecord(Contract):
    """One pipeline run: code, data, parameters, models, outcome."""

    run_id: str
    pipeline: Literal["training", "adaptation"]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    outcome: RunOutcome
    sentence: str
    batches: tuple[str, ...] = Field(description="'source/batch' of every batch that went in.")
    manifest_digests: tuple[Digest, ...]
    code_version: str
    image: str = Field(default="", description="Container image, with digest, when there is one.")
    lock_digest: Digest | None = Field(
        default=None, description="SHA-256 of the lock that the image was built from (requirements.lock)."
    )
    params_digest: Digest
    seed: int
    data: tuple[DataRevision, ...] = ()
    models: tuple[ModelRef, ...] = ()
    release_id: str | None = None
    steps: tuple[StepRecord, ...] = ()
    libraries: dict[str, str] = Field(default_factory=dict)
