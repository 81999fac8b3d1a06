"""GateReport: the numbers the gate saw, and what it decided."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from coda.contracts.base import Contract, Digest, Part, Slug

Outcome = Literal["release", "keep_incumbent", "hold", "refuse"]

Role = Literal["health", "decides", "guards", "advice"]
"""What a measure is for: an absolute limit, the choice itself, an objection to the choice, or for reading only."""


class Measure(Part):
    """One label-free number with its bootstrap interval."""

    value: float
    low: float | None = Field(default=None, description="Lower end of the 95 % bootstrap interval.")
    high: float | None = Field(default=None, description="Upper end of the 95 % bootstrap interval.")
    n: int = Field(ge=0, description="Number of units (treatments, wells or fields) behind the number.")


class Compared(Part):
    """One paired comparison of the second tier that guards the choice: a candidate against another or a reference."""

    measure: str
    against: str = Field(description="Candidate or reference: 'unadapted', 'incumbent', 'pixels', 'untrained'.")
    gain: Measure | None = Field(description="Paired gain, bootstrap over treatments; none where nothing is common.")
    passed: bool | None = Field(description="None where too few treatments stand behind it to say anything.")
    otherwise: Literal["veto", "hold", "advice"] = Field(description="What the policy makes of it if it did not pass.")
    sentence: str = Field(default="", description="What it means, where it did not pass.")


class CandidateScore(Part):
    """One way of serving the batch, judged without labels."""

    name: str = Field(description="'unadapted', 'aligned', 'coda', 'coda+aligned', 'oda', ..., 'incumbent'")
    healthy: bool
    health_reasons: tuple[str, ...] = Field(default=(), description="Why it is not healthy.")
    measures: dict[str, Measure]
    gain: Measure | None = Field(
        default=None, description="Paired gain of the deciding measure over the baseline, bootstrap over treatments."
    )
    gain_over_incumbent: Measure | None = Field(
        default=None, description="The same over what serves the source already; none where that is nothing of its own."
    )
    error: float | None = Field(
        default=None,
        description="Probability of gaining so much over every fit opponent by chance, adjusted for all candidates; "
        "none where the policy decides by intervals.",
    )
    compared: tuple[Compared, ...] = Field(default=(), description="Comparisons by the policy's guards and references.")


class ReferenceScore(Part):
    """Features that need no training, measured on the same wells."""

    name: Literal["pixels", "untrained"]
    says: str = Field(description="What these features are, and what they were fitted on.")
    measures: dict[str, Measure]


class FitScope(Part):
    """Where one number comes from: what it was computed on, what was fitted for it, and how it was put together."""

    measure: str
    role: Role
    says: str = Field(description="What it says, for a scientist.")
    wells: str = Field(description="Wells it is computed on.")
    computed_on: str = Field(description="Features or predictions it is computed from.")
    fitted_on: str = Field(description="What was estimated from data for it, and on which wells.")
    aggregated: str = Field(description="From fields to the number.")
    interval: str = Field(description="What its interval is, if it has one.")


class Evidence(Part):
    """The wells behind all numbers of a report."""

    compared_by: Literal["batch", "plate", "nothing"] = Field(description="What must differ between compared wells.")
    batches: tuple[str, ...] = Field(description="Batches with wells in the numbers: this one and archived ones.")
    plates: int = Field(ge=0)
    fields: int = Field(ge=0, description="Fields of treated wells.")
    wells: int = Field(ge=0, description="Treated wells.")
    treatments: int = Field(ge=0, description="Treatments (compound and dose) of treated wells.")
    positive_controls: int = Field(ge=0, description="Treatments among them that are positive controls.")
    negative_control_wells: int = Field(ge=0, description="Wells that only the distance of controls uses.")
    alignment: str = Field(description="Group and wells on which a candidate's alignment was fitted.")


class GateReport(Contract):
    """Decision for one batch."""

    VERSION: ClassVar[int] = 2

    schema_version: int = Field(default=2, description="Version of this document's schema.")
    source: Slug
    batch: Slug
    manifest_digest: Digest
    policy_version: str = Field(description="Name and version of the policy: 'gate-v3'.")
    policy_digest: Digest | None = Field(default=None, description="Digest of the policy's values.")
    baseline: str = Field(description="Candidate that the others must beat: what would serve without adaptation.")
    incumbent: str | None = Field(
        default=None, description="Candidate that serves the source already; none for a source without a release."
    )
    candidates: tuple[CandidateScore, ...]
    references: tuple[ReferenceScore, ...] = ()
    outcome: Outcome
    chosen: str | None = Field(
        description="Candidate to serve; what is proposed where a person must decide; none when the batch is refused."
    )
    fit_to_predict: bool = Field(
        default=True,
        description="Whether what serves after this decision (for 'hold': what served before) is fit for the batch. "
        "Where it is not, its predictions are withheld.",
    )
    sentence: str = Field(description="The decision as a sentence for scientists.")
    held_because: tuple[str, ...] = Field(default=(), description="Why a person must decide.")
    approvers: tuple[str, ...] = Field(
        default=(), description="Who may decide what is held; nobody named: whoever may promote."
    )
    advice: tuple[str, ...] = Field(default=(), description="Remarks that did not decide.")
    scopes: tuple[FitScope, ...] = Field(default=(), description="Fit scope of every measure.")
    evidence: Evidence | None = Field(default=None, description="The wells behind all numbers.")

    @classmethod
    def upgraded(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Read version 1, which knew no fit scopes, guards, references or approvers; they stay empty."""
        if raw.get("schema_version", 1) != 1:
            return raw
        return {**raw, "schema_version": 2, "fit_to_predict": raw.get("outcome") != "refuse"}
