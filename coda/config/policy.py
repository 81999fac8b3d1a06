"""The gate's policy: a versioned file over numbers only, which a laboratory can read and replace (docs/gate.md)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from coda.contracts.base import digest_of_json
from coda.errors import ConfigError, Problem

POLICIES = Path(__file__).parent / "policies"

STANDARD_POLICY = "gate-v3"
"""The project's own policy."""

TreatmentMeasure = Literal[
    "agreement", "mutual_information", "replicate_map", "neighbour", "control_map", "control_accuracy"
]
"""Measures with one value for each treatment: a paired bootstrap over treatments needs that."""

Reference = Literal["pixels", "untrained"]
"""Features that need no training, which a candidate is compared with."""

Otherwise = Literal["veto", "hold", "advice"]
"""What follows where a candidate does not pass: it may not serve, a person must decide, or it is said and no more."""

Share = Annotated[float, Field(ge=0, le=1)]
Treatments = Annotated[int, Field(ge=1, description="Compounds needed; with fewer the comparison says nothing.")]
Person = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$", max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Choices(_Strict):
    """A section with keys of which only some are given; those that are not are no part of its values or its digest."""

    @model_serializer(mode="wrap")
    def _what_was_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class AssayHealth(_Strict):
    """Limits of one source whose assay has other class shares than most: shares of fields, not of a room."""

    max_top_class_share: Share
    min_marginal_entropy: Share


class Health(_Choices):
    """Tier 1: absolute limits that no gain can buy off."""

    min_marginal_entropy: Share = Field(description="Of the logarithm of the number of classes.")
    min_feature_spread: Share
    min_rank_share: Share = Field(description="RankMe of a candidate against the baseline's.")
    max_top_class_share: Share | None = Field(default=None, description="Of the fields, for any number of classes.")
    max_top_class_excess: Share | None = Field(
        default=None, description="Of the room between an even share (1/classes) and all fields."
    )
    sources: dict[str, AssayHealth] | None = Field(default=None, description="Source -> limits of its assay.")

    @model_validator(mode="after")
    def _one_limit_of_the_top_class(self) -> Self:
        if (self.max_top_class_share is None) == (self.max_top_class_excess is None):
            message = "give either max_top_class_share or max_top_class_excess"
            raise ValueError(message)
        return self

    def largest_share(self, classes: int, source: str) -> float:
        """Return the largest share of fields that one class may take."""
        assay = (self.sources or {}).get(source)
        if assay is not None:
            return assay.max_top_class_share
        if self.max_top_class_share is not None:
            return self.max_top_class_share
        even = 1 / max(classes, 1)
        return even + (self.max_top_class_excess or 0.0) * (1 - even)

    def least_evenness(self, source: str) -> float:
        """Return the smallest marginal entropy that is accepted for a source."""
        assay = (self.sources or {}).get(source)
        return self.min_marginal_entropy if assay is None else assay.min_marginal_entropy


class Deciding(_Choices):
    """Tier 2: the measure that decides, and what counts as better."""

    measure: TreatmentMeasure
    min_gain: float = Field(description="Smallest mean gain worth a release.")
    max_error: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        default=None,
        description="Largest probability of a false release over all candidates and opponents (sign-flip test).",
    )
    min_lower_gain: float | None = Field(
        default=None,
        description="In place of max_error: the lower end of the 95 % interval of the gain over the baseline must not "
        "be below this.",
    )
    min_lower_incumbent: float | None = Field(
        default=None,
        description="The same for the gain over a healthy incumbent: below it, what serves the source keeps serving.",
    )
    min_lower_step: float = Field(
        description="The same for the gain over the simpler candidate that would be released instead."
    )
    min_treatments: Treatments = Field(description="With fewer compounds a release is held for a person.")

    @model_validator(mode="after")
    def _one_kind_of_test(self) -> Self:
        given = [self.min_lower_gain is not None, self.min_lower_incumbent is not None]
        if any(given) if self.max_error is not None else not all(given):
            message = "give either max_error, or both min_lower_gain and min_lower_incumbent"
            raise ValueError(message)
        return self


class Guard(_Strict):
    """Another measure of tier 2: a clear fall of it contradicts the deciding measure."""

    max_fall: float = Field(ge=0, description="The whole 95 % interval of the gain below minus this is a clear fall.")
    min_treatments: Treatments
    otherwise: Otherwise


class Comparison(_Strict):
    """Features without training that a candidate's features must beat."""

    measure: Literal["replicate_map", "neighbour", "control_map", "control_accuracy"]
    min_lower_gain: float = Field(description="Lower end of the 95 % interval of the gain over the reference.")
    min_treatments: Treatments
    otherwise: Otherwise


class SourceApproval(_Strict):
    """Whether releases of one source need a person."""

    releases: Literal["automatic", "person"]
    approvers: tuple[Person, ...] = Field(description="Who decides what is held; whoever may promote when empty.")

    @model_validator(mode="after")
    def _a_person_has_a_name(self) -> Self:
        if self.releases == "person" and not self.approvers:
            message = "releases that a person approves need at least one approver by name"
            raise ValueError(message)
        return self


class Approval(SourceApproval):
    """Whether releases need a person, for all sources and for single ones."""

    sources: dict[str, SourceApproval]


class GatePolicy(_Strict):
    """All the gate decides by."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{1,59}$")
    version: int = Field(ge=1)
    description: str = Field(min_length=5)
    baseline: str = Field(description="Candidate that is served when nothing else is better.")
    health: Health
    deciding: Deciding
    guards: dict[TreatmentMeasure, Guard]
    references: dict[Reference, Comparison]
    approval: Approval

    @model_validator(mode="after")
    def _the_deciding_measure_guards_nothing(self) -> Self:
        if self.deciding.measure in self.guards:
            message = f"{self.deciding.measure} decides, so it cannot be one of the guards as well"
            raise ValueError(message)
        return self

    @property
    def title(self) -> str:
        """Name and version as records carry them: 'gate-v3'."""
        return f"{self.name}-v{self.version}"

    def digest(self) -> str:
        """Return the SHA-256 of the policy's values; comments and the order of keys do not matter."""
        return digest_of_json(self.model_dump(mode="json"))

    def approval_of(self, source: str) -> SourceApproval:
        """Return how releases of one source are approved."""
        return self.approval.sources.get(source, self.approval)


def policy_path(name: str) -> Path:
    """Return the file of a policy.

    Args:
        name: A name in ``coda/config/policies``, or the path of a YAML file.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else POLICIES / f"{name}.yaml"
    if path.is_file():
        return path
    known = ", ".join(sorted(file.stem for file in POLICIES.glob("*.yaml")))
    problem = Problem("gate.policy", name, f"one of {known}, or the path of a .yaml file", "Correct the name.")
    raise ConfigError("The gate's policy cannot be found.", [problem])


def anchored(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a parameter file's content whose `gate.policy`, where it is a relative path, starts from that file."""
    gate = content.get("gate")
    name = gate.get("policy") if isinstance(gate, dict) else None
    if not isinstance(name, str) or not name.endswith((".yaml", ".yml")) or Path(name).is_absolute():
        return content
    return {**content, "gate": {**content["gate"], "policy": str(folder / name)}}
