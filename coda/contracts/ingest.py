"""IngestReport: what a batch should have held, what was read, and what was set aside."""

from typing import Literal

from pydantic import Field

from coda.contracts.base import Contract, Digest, Part, Slug
from coda.contracts.quality import QuarantinedField

REPORT_NAME = "ingest.json"
"""Name of the report in a batch folder."""


class ContractProblem(Part):
    """Something in a delivery that breaks its contract.

    A problem of one plate refuses that plate; a problem without a plate is one of the whole batch.
    """

    plate: str = Field(default="", description="Plate it refuses; empty when it is a problem of the whole batch.")
    where: str
    found: str
    expected: str
    remedy: str


class PlateOutcome(Part):
    """What became of one plate."""

    plate: Slug
    outcome: Literal["accepted", "refused"]
    reason: str = Field(default="", description="Why it was refused, in a plain sentence.")
    fields_expected: int = Field(ge=0, description="Wells of the plate map times sites a well, empty wells apart.")
    fields_accepted: int = Field(ge=0, description="Fields in the plate store; 0 for a refused plate.")
    fields_readable: int = Field(default=0, ge=0, description="Fields that could be read, also of a refused plate.")
    store: str = Field(default="", description="File name of the plate store; empty for a refused plate.")
    store_bytes: int = Field(default=0, ge=0)
    illumination: Literal["estimated", "given", "earlier", "off", "too_few_fields", "prepared", "none"] = Field(
        default="none",
        description="Where the illumination function came from, or why images were left as they are; 'none' for a "
        "refused plate.",
    )
    illumination_sha256: Digest | None = Field(
        default=None,
        exclude_if=lambda digest: digest is None,
        description="SHA-256 of the file whose function was used, where it is that of an earlier plate.",
    )
    content_key: Digest = Field(description="Digest of all that decides the plate's result: files and parameters.")


class IngestReport(Contract):
    """The account of one batch's ingest; validation turns it into a verdict."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    channels: tuple[str, ...] = Field(description="Channels in the order of the stores' first axis.")
    renamed: dict[str, str] = Field(
        default_factory=dict,
        exclude_if=lambda names: not names,
        description="Channel as delivered -> name that it is stored under, where that is another (ingest.renamed).",
    )
    fields_expected: int = Field(ge=0)
    fields_accepted: int = Field(ge=0)
    delivered: bool = Field(description="Whether every file was there with the digest that the manifest gives.")
    plates: tuple[PlateOutcome, ...]
    quarantined: tuple[QuarantinedField, ...] = ()
    problems: tuple[ContractProblem, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="Things worth knowing that refuse nothing.")

    @property
    def batch_problems(self) -> tuple[ContractProblem, ...]:
        """Problems of the whole batch: nothing of it may be used."""
        return tuple(problem for problem in self.problems if not problem.plate)
