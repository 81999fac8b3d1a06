"""StainFingerprints: what the stains of a training source look like, kept with the release that was trained on it."""

from pydantic import Field

from coda.contracts.base import Contract, Part
from coda.contracts.channels import ChannelName


class Usual(Part):
    """A statistic over the plates of the source."""

    usual: float = Field(description="Median over plates of the median over fields.")
    spread: float = Field(ge=0, description="Robust standard deviation over fields.")


class StainFingerprints(Contract):
    """What each stain looks like, alone and beside the others, on accepted plates of a training source."""

    channels: tuple[ChannelName, ...] = Field(min_length=1, description="Stains of nuclei and cytoplasm, in order.")
    plates: int = Field(ge=1)
    fields: int = Field(ge=1)
    statistics: dict[str, Usual] = Field(description="Statistic as in the field index, without 'QC_', or of the cells.")
