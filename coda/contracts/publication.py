"""Publication: one line of what was published about a batch with a release; earlier lines are never changed."""

from typing import Any

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Slug
from coda.contracts.release import ModelRef


class Publication(Contract):
    """Prediction tables that were published, what made them, and, where they replace others, who says so and why."""

    sequence: int = Field(ge=1, description="Number among the publications of this batch name and release.")
    source: Slug
    batch: Slug
    manifest_digest: Digest = Field(description="Version of the batch: the digest of its manifest.")
    release_id: Slug
    folder: str = Field(description="Folder of the files beside the list of publications; named by their digest.")
    files: dict[str, Digest] = Field(description="SHA-256 of every file in that folder.")
    extractor: ModelRef
    head: ModelRef
    params_digest: Digest = Field(description="Parameters of the run that made the release.")
    served_as: dict[str, Any] = Field(description="Recorded parameters that the tables were made with, by dotted path.")
    served_as_digest: Digest
    code_version: str
    code_digest: Digest = Field(description="Digest of the library's source files.")
    image: str = Field(default="", description="Container image, with digest, when there is one.")
    run_id: str = Field(default="", description="Pipeline run that published; empty for a person.")
    by: str
    replaces: int | None = Field(default=None, description="Publication of the same version that it replaces.")
    reason: str = Field(default="", description="Why it replaces another one.")
    at: AwareDatetime
