"""BatchManifest: what a producer writes last of all, and what starts everything."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from coda.contracts.base import Contract, Digest, Part, Slug
from coda.contracts.channels import ChannelName, ChannelNames, Colour, Role

MANIFEST_NAME = "manifest.json"


MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""A manifest above this size is refused unread: 64 MiB are about 300,000 files listed in it, any batch with lists."""

SMALLER = (
    "Give each plate a file list (docs/data_contracts.md), as `coda manifest build` does; or deliver several batches."
)
"""What to do about a manifest that is too large."""

MAX_PLATES = 1_000
MAX_FILES_OF_A_PLATE = 200_000
MAX_FILE_LIST_BYTES = 64 * 1024 * 1024
"""Size of the largest file list: 200,000 files with names of 250 letters, not compressed."""

MOST_INLINE = 20_000
"""Files of a batch that a writer lists in the manifest itself, which then has about 5 MB and is read in half a second.

With more, each plate gets a file list.
"""

MAX_FILE_BYTES = 2**40

RESERVED = frozenset({"default", "unplaced"})
"""Names that mean something else where a source's name stands: the pointer that serves everybody, and no place."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def confined(path: str) -> str:
    """Return a path of a batch; raises ValueError when it leads out of its folder or has another spelling, too."""
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


def files_and_folders(paths: Iterable[str]) -> list[str]:
    """Return the paths that are folders of others, in their order; found by sorting, however deep the paths are."""
    names = sorted(set(paths))
    behind = ((name, bisect_left(names, f"{name}/")) for name in names)
    return [name for name, place in behind if place < len(names) and names[place].startswith(f"{name}/")]


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


RelativePath = Annotated[str, AfterValidator(confined)]
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


class FileListRef(Part):
    """The file list of a plate: a parquet file beside the manifest with a row for each image of the plate.

    Its columns are `path` and `sha256` (text) and `size_bytes` (whole numbers), with the rules of `FileEntry`.
    """

    path: RelativePath
    size_bytes: int = Field(ge=1, le=MAX_FILE_LIST_BYTES)
    sha256: Digest
    rows: int = Field(ge=1, le=MAX_FILES_OF_A_PLATE, description="Files that the list names.")


class PlateEntry(Part):
    """One plate: its tables, and all of its files (tables included), here or in a file list.

    Either `files` holds all of them; or the images are in a file list, and `files` holds exactly the others.
    """

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
    file_list: FileListRef | None = Field(
        default=None,
        exclude_if=lambda ref: ref is None,
        description="Names the images; `files` then holds the two tables and the illumination functions alone.",
    )
    illumination: dict[ChannelName, RelativePath] = Field(
        default_factory=dict,
        description="Channel -> file (npy) with its illumination function; empty where ingest shall estimate them.",
    )

    @property
    def not_images(self) -> frozenset[str]:
        """Paths of the files that are no images: the two tables, and illumination functions."""
        return frozenset((self.plate_map, self.load_data, *self.illumination.values()))

    @property
    def file_count(self) -> int:
        """Number of all files: those listed here and those of the file list, which itself is not counted."""
        return len(self.files) + (self.file_list.rows if self.file_list is not None else 0)

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
        listed = set(paths)
        for name in (self.plate_map, self.load_data, *self.illumination.values()):
            if name not in listed:
                message = f"{name!r} among the files of plate {self.plate}"
                raise ValueError(message)
        if self.file_list is None:
            return self
        others = sorted(listed - self.not_images)
        if others:
            message = f"all images of plate {self.plate} in its file list, but its files hold {others[:5]}"
            raise ValueError(message)
        if self.file_list.path in listed:
            message = f"a file list of plate {self.plate} that is none of its files, but found {self.file_list.path!r}"
            raise ValueError(message)
        if self.file_count > MAX_FILES_OF_A_PLATE:
            message = f"at most {MAX_FILES_OF_A_PLATE} files of plate {self.plate}, but found {self.file_count}"
            raise ValueError(message)
        return self


class BatchManifest(Contract):
    """All that a laboratory delivers as one batch, with sizes and digests.

    Version 1 lists all files itself. In version 2 one plate or more has a file list; the digest of the manifest covers
    the files through the digest of their list.
    """

    VERSION: ClassVar[int] = 2
    OLDER: ClassVar[frozenset[int]] = frozenset({1})

    schema_version: int = Field(
        default=1, ge=1, le=2, description="Version of this document's schema: 2 where a plate has a file list, else 1."
    )
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
        version = version_of(self.plates)
        if self.schema_version != version:
            message = f"schema_version {version} (2 where a plate has a file_list, else 1), not {self.schema_version}"
            raise ValueError(message)
        paths = {file.path for plate in self.plates for file in plate.files}
        lists = [plate.file_list.path for plate in self.plates if plate.file_list is not None]
        taken = sorted({path for path, times in Counter(lists).items() if times > 1} | (paths & set(lists)))
        if taken:
            message = f"a file list for each plate that is no other file, but found {taken[:5]} more than once"
            raise ValueError(message)
        paths |= set(lists)
        # object storage may hold both 'a' and 'a/b'; a disk cannot
        both = files_and_folders(paths)
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


def version_of(plates: Iterable[PlateEntry]) -> int:
    """Return the schema version of a manifest of these plates."""
    return 2 if any(plate.file_list is not None for plate in plates) else 1
