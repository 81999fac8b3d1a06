"""GateReport: the numbers the gate saw, and what it decided."""

from typing import Literal

from pydantic import Field

from coda.contracts.base import Contract, Digest, Part, Slug

Outcome = Literal["release", "keep_incumbent", "hold", "refuse"]


class Measure(Part):
    """One label-free number with its bootstrap interval."""

    value: float
    low: float | None = Field(default=None, description="Lower end of the 95 % bootstrap interval.")
    high: float | None = Field(default=None, description="Upper end of the 95 % bootstrap interval.")
    n: int = Field(ge=0, description="Number of units (treatments, wells or fields) behind the number.")


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


class GateReport(Contract):
    """Decision for one batch."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    policy_version: str
    baseline: str = Field(description="Candidate that the others must beat: what would serve without adaptation.")
    incumbent: str | None = Field(
        default=None, description="Candidate that serves the source already; none for a source without a release."
    )
    candidates: tuple[CandidateScore, ...]
    outcome: Outcome
    chosen: str | None = Field(description="Candidate to serve; none when the batch is refused.")
    sentence: str = Field(description="The decision in words a scientist can read.")
    advice: tuple[str, ...] = Field(default=(), description="Remarks that did not decide.")
