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
    """A field (or a file) set aside, with the reason; the rest of the batch continues."""

    plate: str
    well: str = ""
    site: int | None = None
    channel: str = ""
    path: str = ""
    reason: str


class PlateFigures(Part):
    """What one number says of a plate; null where there are too few wells or no such stain (docs/quality.md)."""

    plate: str
    red_flag: Literal["", "gray", "red"] = Field(default="", description="What the operator's list says of it.")
    red_flag_reason: str = ""
    cells_median: float | None = Field(default=None, description="Nuclei a field in a typical well.")
    wells_sparse_share: float | None = Field(default=None, description="Share of wells below a fifth of that.")
    edge_effect: float | None = Field(default=None, description="Edge less inner wells, in robust standard deviations.")
    edge_statistic: str = ""
    row_effect: float | None = Field(default=None, description="Deviation between rows over that within rows.")
    row_statistic: str = ""
    column_effect: float | None = Field(default=None, description="Deviation between columns over that within.")
    column_statistic: str = ""
    control_statistic: str = Field(default="", description="Statistic that separates the controls best.")
    ssmd: float | None = Field(default=None, description="Robust SSMD of positive against negative controls in it.")
    robust_z_prime: float | None = Field(default=None, description="Robust Z' of the controls in it.")
    ssmd_stated: dict[str, float] = Field(default_factory=dict, description="SSMD of each stated statistic.")
    robust_z_prime_stated: dict[str, float] = Field(default_factory=dict, description="Z' of each of them.")
    replicate_spread: float | None = Field(
        default=None, description="Difference of wells of one treatment over that of any two; 1 is no likeness."
    )
    replicate_pairs: int = Field(default=0, ge=0, description="Pairs of wells of one treatment behind it.")
    negcon_cv: float | None = Field(default=None, description="Largest robust CV of negative controls' brightness.")
    negcon_statistic: str = ""
    negcon_cells_cv: float | None = Field(default=None, description="Robust CV of their number of nuclei.")


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
    plates: tuple[PlateFigures, ...] = Field(default=(), description="Figures of every plate of the manifest.")
    red_flags: Digest | None = Field(default=None, description="SHA-256 of the red-flag list that was applied.")
    quarantined: tuple[QuarantinedField, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether nothing of this batch may be used."""
        return self.verdict == "refused"
