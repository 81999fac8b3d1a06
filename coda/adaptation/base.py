"""What an adaptation starts from, and what it is measured against: the source release, and the present one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coda.adaptation.candidates import INCUMBENT, UNTOUCHED, Candidate
from coda.config.served_params import ServedAs
from coda.contracts.recipe import CLASSICAL, Alignment, HeadAlignment
from coda.networks.alignment import TokenStatistics
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import Extractor
from coda.networks.head import Head
from coda.networks.profile import Profile
from coda.plates.stored import Fields
from coda.training.methods.base import MethodState


@dataclass(frozen=True)
class FrozenHead:
    """A head of a release.

    Attributes:
        head: The network, in evaluation mode; it is read and never changed.
        source: Statistics of the tokens it was trained on.
        digest: Digest of its model folder.
        prior: Share of the labelled compounds in each class, in the order of the logits, from the release's label
            list; None where the release holds no such list.
        compounds: Compounds of that list, by name; None where there is none.
    """

    head: Head | ClassicalHead
    source: TokenStatistics
    digest: str
    prior: tuple[float, ...] | None = None
    compounds: frozenset[str] | None = None

    @property
    def alignment(self) -> HeadAlignment:
        """What was done to the tokens it was trained on; 'classical' where it reads profiles, standardised."""
        if isinstance(self.head, ClassicalHead):
            return "classical"
        return "standardise" if self.head.alignment == "standardise" else "none"


@dataclass(frozen=True)
class Base:
    """The source release that every adaptation starts from.

    Attributes:
        extractor: What serves without adaptation.
        extractor_digest: Digest of its model folder.
        state: What adaptation continues from; changed in place by it.
        heads: Alignment that a head was trained with -> head.
        line: Digest of the pretrained extractor of this line, for the new extractor's provenance.
    """

    extractor: Extractor
    extractor_digest: str
    state: MethodState
    heads: Mapping[HeadAlignment, FrozenHead]
    line: str = field(default="")


@dataclass(frozen=True)
class Incumbent:
    """The release that serves the batch's source already: measured beside the others, never adapted from.

    Attributes:
        extractor: Its extractor, or the profile that its classical head reads.
        extractor_digest: Digest of the extractor's model folder.
        head: Its head.
        alignment: What it does to the tokens; fitted anew on every batch.
        fields: The fields with its own extractor's stains and size, where those differ from the base's; rows in the
            same order.
        serving: How its release is served; as the base where None.
    """

    extractor: Extractor | Profile
    extractor_digest: str
    head: FrozenHead
    alignment: Alignment
    fields: Fields | None = None
    serving: ServedAs | None = None


def with_incumbent(candidates: Sequence[Candidate], base: Base, incumbent: Incumbent | None) -> list[Candidate]:
    """Mark the candidate that is the incumbent, or add the incumbent as a candidate of its own.

    Args:
        candidates: From simple to involved.
        base: Where the extractors and heads of the candidates come from.
        incumbent: What serves the source already; None for a source without a release of its own.

    Returns:
        At most one of them is marked; one that was added comes right after the first.
    """
    if incumbent is None:
        return list(candidates)
    same_extractor = incumbent.extractor_digest == base.extractor_digest
    for place, candidate in enumerate(candidates):
        own = candidate.extractor in UNTOUCHED and candidate.alignment == incumbent.alignment
        same = same_extractor and own
        if same and candidate.head in base.heads and base.heads[candidate.head].digest == incumbent.head.digest:
            marked = candidate.model_copy(update={"incumbent": True})
            return [*candidates[:place], marked, *candidates[place + 1 :]]
    added = Candidate(
        name=INCUMBENT,
        extractor="base" if same_extractor and incumbent.head.alignment != CLASSICAL else "incumbent",
        alignment=incumbent.alignment,
        head=incumbent.head.alignment,
        incumbent=True,
    )
    return [*candidates[:1], added, *candidates[1:]]


def heads_of(candidates: Sequence[Candidate], base: Base, incumbent: Incumbent | None) -> dict[str, FrozenHead]:
    """Return the head that each candidate is served with, by the candidate's name."""
    return {
        candidate.name: incumbent.head if incumbent and candidate.name == INCUMBENT else base.heads[candidate.head]
        for candidate in candidates
    }
