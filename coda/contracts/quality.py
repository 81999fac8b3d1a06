"""QualityReport: the verdict on a batch in words a biologist reads."""

from typing import Literal

from pydantic import Field

from coda.contracts.base import Contract, Digest, Part, Slug

Severity = Literal["critical", "warning", "info"]
Verdict = Literal["accepted", "accepted_with_warnings", "refused"]


class Check(Part):
    """One expectation and what became of it."""

    name: str
    group: Literal["contract", "plate", "history"]
    severity: Severity
    passed: bool
    where: str = Field(description="Batch, plate, channel or well the check is about.")
    observed: str
    expected: str
    reason: str = Field(description="What it means, in plain language.")
    remedy: str = Field(description="What to do about it.")


class QuarantinedField(Part):
    """A field (or a file) set aside, with the reason; the rest of the batch goes on."""

    plate: str
    well: str = ""
    site: int | None = None
    channel: str = ""
    path: str = ""
    reason: str


class QualityReport(Contract):
    """What was found in one batch, and whether it may be used."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    ingest_digest: Digest | None = Field(default=None, description="Digest of the IngestReport that was judged.")
    suite_version: str
    verdict: Verdict
    sentence: str = Field(description="The verdict in one or two plain sentences.")
    fields_expected: int = Field(ge=0)
    fields_accepted: int = Field(ge=0)
    plates_accepted: tuple[str, ...] = ()
    plates_refused: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    quarantined: tuple[QuarantinedField, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether nothing of this batch may be used."""
        return self.verdict == "refused"
