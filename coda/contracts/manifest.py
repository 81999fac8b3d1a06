"""BatchManifest: what a producer writes last of all, and what starts everything."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from coda.contracts.base import Contract, Digest, Part, Slug

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
"""The five Cell Painting stains by name, in the field's usual order."""

Stain = Literal["DNA", "ER", "RNA", "AGP", "Mito"]

MANIFEST_NAME = "manifest.json"


def _confined(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or len(path) > 500:
        message = "a relative path below the batch, with forward slashes and without '..'"
        raise ValueError(message)
    return path


RelativePath = Annotated[str, AfterValidator(_confined)]


class Instrument(Part):
    """The microscope and how it was set."""

    name: str = Field(
        min_length=1, description="Microscope as the laboratory calls it; with the source, it names a history."
    )
    modality: Literal["widefield", "confocal"]
    objective: str = Field(default="", description="Magnification and numerical aperture, as '20x/1.0'.")
    pixel_size_um: float = Field(gt=0, le=20, description="Edge of a raw pixel in the sample, in micrometres.")
    bit_depth: int = Field(default=16, ge=8, le=16, description="Bits the camera really delivers.")


class FileEntry(Part):
    """One file of a batch, relative to the folder of the manifest."""

    path: RelativePath
    size_bytes: int = Field(ge=0)
    sha256: Digest


class PlateEntry(Part):
    """One plate: its tables, and all of its files (tables included)."""

    plate: Slug
    plate_map: RelativePath = Field(description="CSV with a row for each well; see docs/data_contracts.md.")
    load_data: RelativePath = Field(description="CSV with a row for each field: one FileName/PathName pair a stain.")
    sites_per_well: int = Field(ge=1, le=100)
    files: tuple[FileEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _tables_are_listed(self) -> Self:
        paths = [file.path for file in self.files]
        repeated = sorted(path for path, times in Counter(paths).items() if times > 1)
        if repeated:
            message = f"files listed once each, but {repeated[:5]} appear more than once"
            raise ValueError(message)
        for name in (self.plate_map, self.load_data):
            if name not in set(paths):
                message = f"the table {name!r} among the files of plate {self.plate}"
                raise ValueError(message)
        return self


class BatchManifest(Contract):
    """All that a laboratory delivers as one batch, with sizes and digests."""

    source: Slug = Field(description="Laboratory or site: 'source_5'.")
    batch: Slug
    created_at: AwareDatetime
    instrument: Instrument
    channels: tuple[Stain, ...] = Field(min_length=1, description="Stains present, by name.")
    plate_wells: Literal[6, 12, 24, 48, 96, 384, 1536] = Field(description="Wells of the plate format.")
    plates: tuple[PlateEntry, ...] = Field(min_length=1)
    simulation: dict[str, object] | None = Field(
        default=None, description="Parameters of the simulation that made the batch; absent for real plates."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [plate.plate for plate in self.plates]
        if len(set(names)) < len(names):
            message = f"each plate once, but found {names}"
            raise ValueError(message)
        if len(set(self.channels)) < len(self.channels):
            message = f"each stain once, but found {list(self.channels)}"
            raise ValueError(message)
        return self

    @property
    def batch_id(self) -> str:
        """Name of the batch everywhere: ``source/batch``."""
        return f"{self.source}/{self.batch}"
