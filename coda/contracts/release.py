"""ReleaseRecord: the extractor and head that serve one source, as one unit."""

from typing import Literal

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Part, Slug
from coda.contracts.fingerprints import StainFingerprints
from coda.contracts.recipe import Alignment


class ModelRef(Part):
    """One version of one registered model, with the digest its files must have."""

    name: str = Field(description="Registered model in MLflow.")
    version: int = Field(ge=1)
    digest: Digest = Field(description="Digest of the artifact's file manifest; verified at every load.")


class DataRevision(Part):
    """One batch as the data registry holds it."""

    source: Slug
    batch: Slug
    path: str = Field(description="Path of the batch in the data registry.")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="Git commit of the data registry.")
    digest: str = Field(description="DVC's digest of the folder ('<md5>.dir').")


class ReleaseRecord(Contract):
    """What serves predictions for a source: never an extractor without its head."""

    release_id: Slug
    source: Slug = Field(description="Source it was made for.")
    created_at: AwareDatetime
    method: str = Field(description="Candidate it came from: 'source', 'aligned', 'coda+aligned', ...")
    extractor: ModelRef
    head: ModelRef
    alignment: Alignment
    heads: tuple[ModelRef, ...] = Field(
        default=(), description="All heads trained on this line of extractors: candidates a later adaptation may bind."
    )
    base_release: str | None = Field(default=None, description="Source release the extractor was adapted from.")
    data: tuple[DataRevision, ...] = ()
    run_id: str
    params_digest: Digest
    gate_sentence: str
    gate_digest: Digest | None = None
    statistics_digest: Digest | None = Field(
        default=None,
        description="Statistics of the head's training tokens, where the alignment ('rescale', 'coral') reads them.",
    )
    min_top_over_chance: float | None = Field(
        default=None,
        gt=0,
        description="Smallest top probability that counts as an answer, in multiples of 1/classes; releases from "
        "before it was recorded have it in the parameters of their run.",
    )
    stains: StainFingerprints | None = Field(
        default=None,
        description="What the stains of the training source look like, to tell swapped ones by (decision 0051); "
        "releases from before it was recorded have none.",
    )
    approver: str = Field(description="'gate' for an automatic release, else the person who promoted it.")


class PointerEntry(Contract):
    """One line of a source's append-only release log; the last line is the pointer."""

    sequence: int = Field(ge=1)
    scope: Slug = Field(description="Source whose pointer moved, or 'default'.")
    action: Literal["promote", "rollback"]
    release: ReleaseRecord
    by: str
    reason: str
    at: AwareDatetime
