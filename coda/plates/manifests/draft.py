"""Finding plates that lie somewhere already, and drafting their manifest from listings and tables alone."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coda.contracts.manifest import BatchManifest, FileEntry
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.file_lists import listed_apart, with_list
from coda.plates.folders import folders_of
from coda.plates.layout import format_of, parse_well, well_name
from coda.plates.manifests.places import Place
from coda.plates.readers.assemble import (
    TABLES,
    Identity,
    check_plates,
    manifest_of,
    plate_entry,
    stains_of_plates,
    table_path,
    tables_of,
)
from coda.plates.readers.deliver import remarks_on
from coda.plates.readers.given_maps import plate_maps
from coda.plates.readers.layouts import PREPARED, detect, find_plates
from coda.plates.readers.listing import FieldListing, PlateListing
from coda.plates.readers.read_options import ReadOptions, links_told
from coda.plates.tabular.table import read_table
from coda.plates.tree import Tree, TreeFile

AUTO = "auto"
"""Layout that is told from the names of the files."""

_NO_DIGEST = "0" * 64

Maps = Callable[[Sequence[PlateListing]], Mapping[str, str]]
"""Returns the CSV text of the plate map of each plate, by its name."""


@dataclass(frozen=True)
class AbsentImage:
    """An image that the tree lacks; `path` is empty where nothing names one.

    Attributes:
        plate: Plate.
        well: Well; empty for an illumination function.
        site: Site; None for an illumination function.
        stain: Stain.
        path: Where it should be.
    """

    plate: str
    well: str
    site: int | None
    stain: str
    path: str


@dataclass(frozen=True)
class Draft:
    """A manifest before any image was read.

    Attributes:
        layout: How the tree is laid out.
        plates: Plates, with the images that are there.
        identity: What was given beside them.
        tables: Path of a table -> its bytes.
        files: Image and illumination files with their sizes, in the order of their paths.
        absent: Images that the tree lacks.
        images_at: Where the images lie when not beside the manifest.
        remarks: What a person should know.
    """

    layout: str
    plates: tuple[PlateListing, ...]
    identity: Identity
    tables: Mapping[str, bytes]
    files: tuple[TreeFile, ...]
    absent: tuple[AbsentImage, ...]
    images_at: str | None
    remarks: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all images and illumination functions."""
        return sum(file.size_bytes for file in self.files)

    def described(self, digests: Mapping[str, str] | None = None) -> tuple[BatchManifest, dict[str, bytes]]:
        """Return the manifest, and path -> bytes of its file lists; without digests, with zeros in their place.

        Raises:
            ContractError: Something breaks the manifest's schema.
        """
        sizes = {file.path: file.size_bytes for file in self.files}

        def entry(path: str) -> FileEntry:
            digest = _NO_DIGEST if digests is None else digests[path]
            return FileEntry(path=path, size_bytes=sizes[path], sha256=digest)

        # lists plate by plate: the entries of all files of a large batch are never in memory together
        apart = listed_apart(len(self.files) + len(self.tables))
        entries, lists = [], dict[str, bytes]()
        for plate in self.plates:
            names = [table_path(plate.plate, name) for name in TABLES]
            bodies = {path: self.tables[path] for path in names}
            tables = [
                FileEntry(path=path, size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
                for path, body in bodies.items()
            ]
            whole = plate_entry(plate, tables, entry)
            listed, own = with_list(whole) if apart else (whole, {})
            entries.append(listed)
            lists |= own
        manifest = manifest_of(
            self.plates, entries, self.identity, images_at=self.images_at,
            preparation=PREPARED.get(self.layout, "raw"),
        )  # fmt: skip
        return manifest, lists


def draft(
    place: Place, layout: str, options: ReadOptions, identity: Identity, *, maps: Maps | None = None,
    images_at: str | None = None,
) -> Draft:  # fmt: skip
    """Find plates and describe them, reading only listings and tables.

    Args:
        place: Where the images lie.
        layout: A layout of `coda.plates.readers.layouts`, or 'auto'.
        options: How the tree is to be read.
        identity: Names, and what the tree does not say.
        maps: Gives the plate maps; the identity's table, or unknown wells, when None.
        images_at: Address of `place` for the manifest, when the manifest goes elsewhere.

    Raises:
        ContractError: The tree, or what was given beside it, has problems; all of them together.
        ConfigError: There is no such layout or plate.
        TransientError: The storage is away.
    """
    if layout == AUTO:
        # to tell a layout everything is listed; a source of the gallery has millions of files
        layout = "jump" if options.batch is not None else detect(place)
    found = find_plates(layout, place, options)
    return draft_of(found, place, layout, options, identity, maps=maps, images_at=images_at)


def draft_of(
    found: Sequence[PlateListing], place: Place, layout: str, options: ReadOptions, identity: Identity, *,
    maps: Maps | None = None, images_at: str | None = None,
) -> Draft:  # fmt: skip
    """Describe plates that were found; see `draft`."""
    check_plates(found, identity, place.where, options.channels)
    _refuse_planes(found, place.where)
    plates: list[PlateListing] = []
    absent: list[AbsentImage] = []
    sizes: dict[str, int] = {}
    for plate in found:
        there = sizes_of(place, plate)
        present, lacking = _present(plate, there)
        plates.append(present)
        absent += lacking
        sizes |= there
    if not sizes:
        problem = Problem(
            place.where, "none of the images that its files name", "images", "Name the folder above both."
        )
        raise ContractError(f"There are no images at {place.where}.", [problem])
    texts, told = (
        (maps(plates), list[str]())
        if maps is not None
        else plate_maps(plates, identity.plate_map, options.tables, identity.solvents)
    )
    identity, remarks = _with_format(plates, identity, texts)
    stains = stains_of_plates(plates)
    tables = {
        table_path(plate.plate, name): text.encode()
        for plate in plates
        for name, text in tables_of(plate, texts[plate.plate], stains).items()
    }
    # so that nobody is told that a plate map is missing
    given = identity if maps is None else replace(identity, plate_map=Path("jump"))
    files = tuple(TreeFile(path, sizes[path]) for path in sorted(sizes))
    result = Draft(
        layout, tuple(plates), identity, tables, files, tuple(absent), images_at,
        (*links_told(place), *remarks_on(plates, given), *told, *remarks),
    )  # fmt: skip
    result.described()  # what breaks its schema is told before any image is read
    return result


def _with_format(
    plates: Sequence[PlateListing], identity: Identity, maps: Mapping[str, str]
) -> tuple[Identity, list[str]]:
    """Take the plate format from the maps where nothing else says it: a map has wells that were not imaged."""
    if identity.plate_wells is not None or any(plate.wells for plate in plates):
        return identity, []
    named = {well for text in maps.values() for well in read_table(text.encode())["Metadata_Well"]}
    places = [place for place in map(parse_well, named) if place is not None]
    imaged = [item.place for plate in plates for item in plate.fields]
    try:
        wells = format_of([*places, *imaged])
    except ValueError:
        return identity, []  # a well that no plate has is told by whoever reads the map
    if wells == format_of(imaged):
        return identity, []
    said = f"Plate format: {wells} wells, the smallest that holds the wells of the plate maps; if wrong, --plate-wells."
    return replace(identity, plate_wells=wells), [said]


def _refuse_planes(plates: Sequence[PlateListing], where: str) -> None:
    remedy = "Write them out as files of their own: coda plates import, with --images auto or copy."
    problems = []
    for plate in plates:
        images = [image for item in plate.fields for image in item.files.values() if not image.is_file]
        if images:
            found = f"{len(images)} images that are planes of larger files (or made of several: {images[0].path})"
            problems.append(Problem(f"{where}, plate {plate.plate}", found, "one file for each image", remedy))
    raise_if_any(ContractError, "A manifest names files, and these images are none.", problems)


def sizes_of(place: Tree, plate: PlateListing) -> dict[str, int]:
    """Return path -> bytes of a plate's images and illumination functions that are there."""
    wanted = {image.path for item in plate.fields for image in item.files.values()} | set(plate.illumination.values())
    listed = (file for folder in folders_of(wanted) for file in place.files(folder))
    return {file.path: file.size_bytes for file in listed if file.path in wanted}


def _present(plate: PlateListing, there: Mapping[str, int]) -> tuple[PlateListing, list[AbsentImage]]:
    """Return a plate with the images that are there, and the others."""
    stains = stains_of_plates([plate])
    absent, fields = [], []
    for item in plate.fields:
        well = well_name(*item.place)
        paths = {stain: item.files[stain].path if stain in item.files else "" for stain in stains}
        absent += [
            AbsentImage(plate.plate, well, item.site, stain, path) for stain, path in paths.items() if path not in there
        ]
        files = {stain: image for stain, image in item.files.items() if image.path in there}
        fields.append(FieldListing(item.place, item.site, files))
    given = {stain: path for stain, path in plate.illumination.items() if path in there}
    absent += [
        AbsentImage(plate.plate, "", None, stain, path)
        for stain, path in plate.illumination.items()
        if stain not in given
    ]
    return replace(plate, fields=tuple(fields), illumination=given), absent
