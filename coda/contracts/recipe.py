"""Recipes: what makes a candidate, as values, and what each is called wherever it is named (decision 0050).

A recipe is a method of adaptation, an alignment of tokens and a head. Names of candidates in parameters and records
('coda+aligned') are what a recipe writes itself as; nothing takes such a name apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

Alignment = Literal["none", "standardise", "rescale", "coral"]
"""What is done to tokens before the head (`coda.networks.alignment.ALIGN`)."""

Method = Literal["oda", "coda"]
"""Self-supervision on a batch: with single images, or with pairs of one treatment."""

HeadAlignment = Literal["none", "standardise", "classical"]
"""What was done to the tokens that a head was trained on; 'classical' for the one that reads profiles."""

CLASSICAL: Final = "classical"
"""Candidate without a network: the field's classical profile and a linear model (decision 0046)."""


@dataclass(frozen=True)
class Terms:
    """What a method or an alignment is called.

    Attributes:
        word: Its part of a candidate's name.
        sentence: Its part of the gate's sentences.
        report: Its part of a report's tables.
        head: Alignment of the head that reads what comes out; of alignments alone.
        reads_source: Whether an alignment brings tokens to the statistics of the head's training tokens.
    """

    word: str
    sentence: str
    report: str
    head: HeadAlignment = "none"
    reads_source: bool = False


METHODS: dict[Method | None, Terms] = {
    None: Terms("", "the model as it is", "earlier model"),
    "oda": Terms("oda", "the model adapted to this batch without pairs", "model fitted to this batch without pairs"),
    "coda": Terms("coda", "the model adapted to this batch", "model fitted to this batch"),
}
"""Methods of adaptation, from simple to involved: ODA needs no pairs. A new one is an entry."""

ALIGNMENTS: dict[Alignment, Terms] = {
    "none": Terms("", "", ""),
    "standardise": Terms(
        "aligned", ", on standardised features", ", features standardised for this batch", head="standardise"
    ),
    "rescale": Terms(
        "rescaled", ", on features of the source's mean and spread",
        ", features brought to the training laboratory's mean and spread", reads_source=True,
    ),
    "coral": Terms(
        "coral", ", on features aligned with the source's statistics",
        ", features matched to the training laboratory", reads_source=True,
    ),
}  # fmt: skip
"""Alignments, from simple to involved. A new one is an entry, and its map of tokens in `coda.networks.alignment`."""


@dataclass(frozen=True)
class Recipe:
    """What makes a candidate.

    Attributes:
        method: How the extractor is adapted to the batch; None for the source release's own.
        alignment: What is done to its tokens.
        head: Which head reads them.

    Example:
        >>> str(Recipe.of("coda", "standardise")), str(Recipe.of(None, "none"))
        ('coda+aligned', 'unadapted')
    """

    method: Method | None
    alignment: Alignment
    head: HeadAlignment

    @classmethod
    def of(cls, method: Method | None, alignment: Alignment) -> "Recipe":
        """Return the recipe of an extractor with the head that was trained on such tokens."""
        return cls(method, alignment, ALIGNMENTS[alignment].head)

    def __str__(self) -> str:
        """Return the name that records and parameters have."""
        if self.head == CLASSICAL:
            return CLASSICAL
        words = METHODS[self.method].word, ALIGNMENTS[self.alignment].word
        return "+".join(word for word in words if word) or "unadapted"

    def adapted_by(self, method: Method | None) -> "Recipe":
        """Return the same with another method."""
        return replace(self, method=method)

    @property
    def sentence(self) -> str:
        """What it is called in a sentence of the gate."""
        if self.head == CLASSICAL:
            return "the classical profile with a linear model, without a network"
        return METHODS[self.method].sentence + ALIGNMENTS[self.alignment].sentence

    @property
    def report(self) -> str:
        """What it is called in a report."""
        if self.head == CLASSICAL:
            return "classical image features with a linear model, no network"
        changed = METHODS[self.method].report + ALIGNMENTS[self.alignment].report
        return changed if self != UNADAPTED else f"{changed}, unchanged"


UNADAPTED = Recipe.of(None, "none")


def _all() -> Iterator[Recipe]:
    yield UNADAPTED
    yield Recipe(None, "standardise", CLASSICAL)
    for method in METHODS:
        yield from (recipe for alignment in ALIGNMENTS if (recipe := Recipe.of(method, alignment)) != UNADAPTED)


RECIPES: dict[str, Recipe] = {str(recipe): recipe for recipe in _all()}
"""Name -> recipe, from simple to involved: the order in which the gate prefers them."""
