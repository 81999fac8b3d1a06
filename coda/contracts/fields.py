"""FieldRecord: one row of the field index beside a plate store."""

from typing import Literal

from pydantic import Field

from coda.contracts.base import Contract, Digest, Slug
from coda.contracts.channels import ChannelName

PertType = Literal["trt", "negcon", "poscon", "empty"]

METADATA_COLUMNS = {
    "source": "Metadata_Source",
    "batch": "Metadata_Batch",
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "site": "Metadata_Site",
    "treatment": "Metadata_Treatment",
    "compound": "Metadata_Compound",
    "pert_type": "Metadata_pert_type",
    "dose_um": "Metadata_Dose_uM",
    "pixel_size_um": "Metadata_PixelSize_um",
    "instrument": "Metadata_Instrument",
}
"""Field of the record -> column of the parquet index (the field's own `Metadata_*` habit)."""


class FieldRecord(Contract):
    """One field of view that was ingested: where it lies, what was done to the well, and its digest.

    There is no mechanism of action here on purpose: labels come from the user's own table and only training reads it.
    """

    source: Slug
    batch: Slug
    plate: Slug
    well: str = Field(pattern=r"^[A-Z]{1,2}[0-9]{2}$", description="Well name, 'B03'.")
    site: int = Field(ge=0)
    treatment: str = Field(description="Compound and dose as one name: what a pair of images must share.")
    compound: str
    pert_type: PertType
    dose_um: float | None = Field(default=None, ge=0)
    pixel_size_um: float = Field(gt=0, description="Edge of a stored pixel, after resampling.")
    instrument: str
    channels: tuple[ChannelName, ...] = Field(description="Channels in the order of the stored array's first axis.")
    store: str = Field(description="File name of the plate store in the batch folder.")
    array: str = Field(description="Path of this field's array inside the plate store.")
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    sha256: Digest = Field(description="SHA-256 of the field's uint8 pixels, channels x height x width, C order.")
    crc32c: int = Field(ge=0, lt=2**32, description="CRC-32C of the encoded chunk: what every reading is held against.")

    @property
    def image_id(self) -> str:
        """Name that is unique over all data: ``source/batch/plate/well/site``."""
        return f"{self.source}/{self.batch}/{self.plate}/{self.well}/{self.site}"
