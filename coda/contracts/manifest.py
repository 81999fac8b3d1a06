"""BatchManifest: what a producer writes last of all, and what starts everything."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from coda.contracts.base import Contract, Digest, Part, Slug
from coda.contracts.channels import ChannelName, ChannelNames, Colour, Role

MANIFEST_NAME = "manifest.json"


MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""A manifest above this size is refused unread: 64 MiB are about 300,000 files."""

MAX_PLATES = 1_000
MAX_FILES_OF_A_PLATE = 200_000
MAX_FILE_BYTES = 2**40

RESERVED = frozenset({"default", "unplaced"})
"""Names that mean something else where a source's name stands: the pointer that serves everybody, and no place."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _confined(path: str) -> str:
    pure = PurePosixPath(path)
    leaves = not path or pure.is_absolute() or ".." in pure.parts or "\\" in path
    # another spelling of a path ('a//b', './a') would be another key in object storage, but the same file on a disk
    if leaves or path == "." or str(pure) != path or _CONTROL.search(path) or len(path) > 500:
        message = "a relative path below the batch in its shortest form, with forward slashes and without '..'"
        raise ValueError(message)
    if any(len(part.encode()) > 255 for part in pure.parts):
        message = "a path whose parts have at most 255 bytes each"
        raise ValueError(message)
    return path


def _unreserved(name: str) -> str:
    if name in RESERVED:
        message = f"a source of another name than {', '.join(sorted(RESERVED))}, which mean something here"
        raise ValueError(message)
    return name


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        message = "text without control characters"
        raise ValueError(message)
    return text


RelativePath = Annotated[str, AfterValidator(_confined)]
SourceName = Annotated[Slug, AfterValidator(_unreserved)]


class Instrument(Part):
    """The microscope and how it was set."""

    name: Annotated[str, AfterValidator(_plain)] = Field(
        min_length=1,
        max_length=200,
        description="Microscope as the laboratory calls it; with the source, it names a history.",
    )
    modality: Literal["widefield", "confocal"]
    objective: Annotated[str, AfterValidator(_plain)] = Field(
        default="", max_length=200, description="Magnification and numerical aperture, as '20x/1.0'."
    )
    pixel_size_um: float = Field(gt=0, le=20, description="Edge of a raw pixel in the sample, in micrometres.")
    bit_depth: int = Field(default=16, ge=8, le=16, description="Bits the camera really delivers.")


class FileEntry(Part):
    """One file of a batch, relative to the folder of the manifest."""

    path: RelativePath
    size_bytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: Digest


class PlateEntry(Part):
    """One plate: its tables, and all of its files (tables included)."""

    plate: Slug
    plate_map: RelativePath = Field(description="CSV with a row for each well; see docs/data_contracts.md.")
    load_data: RelativePath = Field(description="CSV with a row for each field: one FileName/PathName pair a channel.")
    sites_per_well: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Fields of every well that is not empty; null where wells differ: load_data says it for each then.",
    )
    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=MAX_FILES_OF_A_PLATE)
    illumination: dict[ChannelName, RelativePath] = Field(
        default_factory=dict,
        description="Channel -> file (npy) with its illumination function; empty where ingest shall estimate them.",
    )

    @property
    def not_images(self) -> frozenset[str]:
        """Paths of the files that are no images: the two tables, and illumination functions."""
        return frozenset((self.plate_map, self.load_data, *self.illumination.values()))

    def renamed(self, names: Mapping[str, str]) -> "PlateEntry":
        """Return the plate with some channels under other names (old -> new)."""
        given = {names.get(channel, channel): path for channel, path in self.illumination.items()}
        return self.model_copy(update={"illumination": given})

    @model_validator(mode="after")
    def _tables_are_listed(self) -> Self:
        paths = [file.path for file in self.files]
        repeated = sorted(path for path, times in Counter(paths).items() if times > 1)
        if repeated:
            message = f"files listed once each, but {repeated[:5]} appear more than once"
            raise ValueError(message)
        for name in (self.plate_map, self.load_data, *self.illumination.values()):
            if name not in set(paths):
                message = f"{name!r} among the files of plate {self.plate}"
                raise ValueError(message)
        return self


class BatchManifest(Contract):
    """All that a laboratory delivers as one batch, with sizes and digests."""

    source: SourceName = Field(description="Laboratory or site: 'source_5'.")
    batch: Slug
    created_at: AwareDatetime
    instrument: Instrument
    channels: ChannelNames = Field(description="Channels present, by the names that the laboratory gives them.")
    roles: dict[ChannelName, Role] = Field(
        default_factory=dict,
        exclude_if=lambda stated: not stated,
        description="Channel -> what it shows, where its name does not say it: nuclei (one channel at most), "
        "cytoplasm, or transmitted light.",
    )
    colours: dict[ChannelName, Colour] = Field(
        default_factory=dict,
        exclude_if=lambda stated: not stated,
        description="Channel -> colour in pictures, as RRGGBB, where it shall not be the usual one.",
    )
    plate_wells: Literal[6, 12, 24, 48, 96, 384, 1536] = Field(description="Wells of the plate format.")
    plates: tuple[PlateEntry, ...] = Field(min_length=1, max_length=MAX_PLATES)
    images_at: str | None = Field(
        default=None,
        pattern=r"^(s3://[^/\s]+(/[^\x00-\x1f]*)?|/[^\x00-\x1f]*)$",
        max_length=500,
        description="Folder or s3:// prefix that holds every file but the tables, when they do not lie beside the "
        "manifest; only places that the operator allows are read (docs/settings.md).",
    )
    preparation: Literal["raw", "deepprofiler"] = Field(
        default="raw",
        description="'deepprofiler' for images that its `prepare` has corrected, reduced and made 8-bit already: they "
        "are stored as they are.",
    )
    simulation: dict[str, object] | None = Field(
        default=None, description="Parameters of the simulation that made the batch; absent for real plates."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [plate.plate for plate in self.plates]
        if len(set(names)) < len(names):
            message = f"each plate once, but found {names}"
            raise ValueError(message)
        paths = {file.path for plate in self.plates for file in plate.files}
        # object storage may hold both 'a' and 'a/b'; a disk cannot
        both = sorted(paths & {str(parent) for path in paths for parent in PurePosixPath(path).parents})
        if both:
            message = f"files and folders of different names, but found {both[:5]} as both"
            raise ValueError(message)
        strangers = sorted({*self.roles, *self.colours} - {*self.channels})
        if strangers:
            message = f"roles and colours of channels that there are, but found {', '.join(strangers)}"
            raise ValueError(message)
        nuclei = [channel for channel, role in self.roles.items() if role == "nuclei"]
        if len(nuclei) > 1:
            message = f"one channel with the role nuclei at most, but found {' and '.join(nuclei)}"
            raise ValueError(message)
        return self

    def renamed(self, names: Mapping[str, str]) -> "BatchManifest":
        """Return the manifest with some channels under other names (old -> new), which must not meet; its files stay.

        Such a manifest says what the channels are called after ingest; its digest is not that of the delivery.
        """
        if not names:
            return self
        changes = {
            "channels": tuple(names.get(channel, channel) for channel in self.channels),
            "roles": {names.get(channel, channel): role for channel, role in self.roles.items()},
            "colours": {names.get(channel, channel): colour for channel, colour in self.colours.items()},
            "plates": tuple(plate.renamed(names) for plate in self.plates),
        }
        return self.model_copy(update=changes)

    @property
    def batch_id(self) -> str:
        """Name of the batch everywhere: ``source/batch``."""
        return f"{self.source}/{self.batch}"
