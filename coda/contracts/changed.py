"""WhatChanged: which stains, plates and wells tell a batch from earlier accepted ones, and its most typical fields."""

from typing import ClassVar

from pydantic import Field

from coda.contracts.base import Contract, Part


class ToldApart(Part):
    """How well one set of numbers tells the batch's fields from earlier ones, in wells that it has not learned from."""

    by: str = Field(description="'all', a stain, or 'embedding'.")
    accuracy: float = Field(ge=0, le=1, description="Balanced accuracy; a half is guessing.")
    separation: float = Field(description="Distance of the sides' scores in their standard deviations (d').")
    earlier: tuple[float, ...] = Field(
        default=(), description="The same of each earlier batch against the other earlier ones."
    )
    p_value: float | None = Field(
        default=None, ge=0, le=1, description="How often a steady history gives a batch as far away; null: too short."
    )


class PlateTold(Part):
    """One plate of the batch."""

    plate: str
    told: float = Field(ge=0, le=1, description="Share of its fields that are classified as fields of this batch.")
    score: float = Field(ge=0, le=1, description="Mean probability of being of this batch.")
    fields: int = Field(ge=1)
    wells: dict[str, float] = Field(description="Well -> mean probability of its fields.")


class Place(Part):
    """One field, and how typical it is of this batch (1) or of before (0)."""

    batch: str
    plate: str
    well: str
    site: int
    score: float = Field(ge=0, le=1)


class Pair(Part):
    """A field that is most typical of the batch, and one of the same treatment that is most typical of before."""

    treatment: str
    now: Place
    before: Place


class WhatChanged(Contract):
    """A batch against earlier accepted batches of its source and microscope (`coda.evaluation.metrics.two_sample`)."""

    NAME: ClassVar[str] = "changed.json"
    PICTURES: ClassVar[str] = "changed.npz"

    source: str
    batch: str
    instrument: str
    against: tuple[str, ...] = Field(default=(), description="The earlier batches, as they came.")
    why_not: str = Field(default="", description="Why nothing was compared, or only in part, as sentences.")
    wells: int = Field(default=0, ge=0, description="Wells of the batch that were compared.")
    fields: int = Field(default=0, ge=0, description="Their fields.")
    treatments: int | None = Field(
        default=None, description="Treatments that both sides have, where wells of these alone were compared."
    )
    whole: ToldApart | None = Field(default=None, description="By all numbers together; null: nothing was compared.")
    parts: tuple[ToldApart, ...] = Field(default=(), description="By each stain alone and by the embedding alone.")
    plates: tuple[PlateTold, ...] = ()
    pairs: tuple[Pair, ...] = ()
    channels: tuple[str, ...] = Field(default=(), description="Stains of the pictures, along their first axis.")
