"""Turning found plates into a delivery, as a producer would write it: images, tables, and the manifest last of all."""

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

from coda.contracts.channels import STAINS, listed, nuclei_of, roles_of
from coda.contracts.manifest import MANIFEST_NAME, FileEntry
from coda.plates.file_lists import with_lists
from coda.plates.image_decoding import UnreadableImageError
from coda.plates.layout import well_name
from coda.plates.plate_map import usual_sites
from coda.plates.readers.assemble import (
    Identity,
    check_plates,
    manifest_of,
    plate_entry,
    stains_of_plates,
    table_path,
    tables_of,
    valid_name,
    wells_of,
)
from coda.plates.readers.given_maps import plate_maps
from coda.plates.readers.layouts import PREPARED, find_plates
from coda.plates.readers.listing import FieldListing, ImageRef, PlateListing
from coda.plates.readers.planes import PLANE_ENDING, PlaneReader, encode_plane
from coda.plates.readers.read_options import ReadOptions, links_told, plain
from coda.plates.tree import LocalTree, Tree

__all__ = ["Identity", "import_plates"]

MAX_IMAGE_BYTES = 1 << 30
MAX_REMARK = 2000
DOWNLOADS = 16
"""Files of object storage that are read at once."""

Progress = Callable[[int, int], None]
"""Called with the images and other files that were brought, and how many there are."""


def import_plates(
    layout: str,
    tree: Tree,
    out: Path,
    identity: Identity,
    options: ReadOptions | None = None,
    progress: Progress | None = None,
    *,
    found: Sequence[PlateListing] | None = None,
    linking: bool = True,
) -> tuple[Path, list[str]]:
    """Write ``<out>/<source>/<batch>/`` from what a real instrument left; images are linked or copied, not changed.

    Args:
        layout: How the tree is laid out; a name of `coda.plates.readers.layouts.LAYOUTS`.
        tree: One plate or several, as the layout has it.
        out: Where deliveries go.
        identity: Names, and what the tree does not say.
        options: How the tree is to be read.
        progress: Called with the progress so far.
        found: The plates, where the tree was read already.
        linking: Link files of the same disk instead of copying them.

    Returns:
        The manifest's path; and remarks in plain words (channels and images that were left out).

    Raises:
        ConfigError: There is no such layout or plate.
        ContractError: The tree or the plate map has problems, or something must be given that the tree does not say;
            all of them together.
        TransientError: The storage is away.
    """
    options = options or ReadOptions()
    plates = find_plates(layout, tree, options) if found is None else list(found)
    check_plates(plates, identity, tree.where, options.channels)
    maps, told = plate_maps(plates, identity.plate_map, options.tables, identity.solvents)
    stains = stains_of_plates(plates)
    target = out / identity.source / identity.batch
    bringer = _Bringer(tree, target, sum(map(_files, plates)), progress, sparse=options.sparse, linking=linking)
    with closing(bringer):
        delivered = [bringer.plate(plate) for plate in plates]
    entries = []
    for plate in delivered:
        tables = [
            _written(target, table_path(plate.plate, name), text)
            for name, text in tables_of(plate, maps[plate.plate], stains).items()
        ]
        entries.append(plate_entry(plate, tables, bringer.entries.__getitem__))
    listed, lists = with_lists(entries)
    for path, data in lists.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    manifest = manifest_of(delivered, listed, identity, preparation=PREPARED.get(layout, "raw"))
    remarks = [*links_told(tree), *remarks_on(plates, identity), *told, *bringer.remarks()]
    return manifest.write(target / MANIFEST_NAME), remarks


def _files(plate: PlateListing) -> int:
    return sum(len(item.files) for item in plate.fields) + len(plate.illumination)


class _Bringer:
    """Brings images and illumination functions into a delivery; `entries` describes them by their new paths."""

    def __init__(
        self, tree: Tree, target: Path, total: int, progress: Progress | None, *, sparse: bool, linking: bool
    ) -> None:
        self.entries: dict[str, FileEntry] = {}
        self._tree = tree
        self._target = target
        self._total = total
        self._done = 0
        self._progress = progress
        self._linking = linking
        self._planes = PlaneReader(tree, sparse=sparse)
        self._unreadable: list[str] = []

    def plate(self, plate: PlateListing) -> PlateListing:
        """Bring all files of a plate; returns it with their paths in the delivery."""
        wanted = [
            (
                (item.place, item.site),
                stain,
                image,
                f"images/{plate.plate}/{well_name(*item.place)}_s{item.site}_{stain}",
            )
            for item in plate.fields
            for stain, image in item.files.items()
        ]
        files: dict[tuple[tuple[int, int], int], dict[str, ImageRef]] = {}
        with self._threads([image for _, _, image, _ in wanted]) as pool:
            try:
                paths = pool.map(self._image, [image for _, _, image, _ in wanted], [name for *_, name in wanted])
                for (field, stain, _, _), path in zip(wanted, paths, strict=True):
                    self._advance()
                    if path is not None:
                        files.setdefault(field, {})[stain] = ImageRef(path)
            finally:
                pool.shutdown(cancel_futures=True)
        fields = tuple(
            FieldListing(item.place, item.site, files.get((item.place, item.site), {})) for item in plate.fields
        )
        illumination = {}
        for stain, path in plate.illumination.items():
            illumination[stain] = self._file(path, f"illum/{plate.plate}/{plate.plate}_Illum{stain}.npy")
            self._advance()
        return replace(plate, fields=fields, illumination=illumination)

    def _threads(self, images: Sequence[ImageRef]) -> ThreadPoolExecutor:
        """Return threads for downloads, or for digests; planes of larger files are read one after the other."""
        if not all(image.is_file for image in images):
            return ThreadPoolExecutor(1)
        return ThreadPoolExecutor(min(4, os.cpu_count() or 1) if isinstance(self._tree, LocalTree) else DOWNLOADS)

    def close(self) -> None:
        """Close the files that parts were read from."""
        self._planes.close()

    def remarks(self) -> list[str]:
        """Return what is worth telling: parts of files that could not be read, and are absent from the delivery."""
        if not self._unreadable:
            return []
        count, first = len(self._unreadable), plain(self._unreadable[0], MAX_REMARK)
        return [f"{count} image(s) could not be read and are absent; the first: {first}."]

    def _image(self, image: ImageRef, name: str) -> str | None:
        if image.is_file:
            return self._file(image.path, name + PurePosixPath(image.path).suffix.lower())
        try:
            data = encode_plane(self._planes.read(image))
        except UnreadableImageError as error:
            self._unreadable.append(f"{image.path} (plane {image.plane}) {error}")
            return None
        return self._write(name + PLANE_ENDING, data)

    def _file(self, path: str, name: str) -> str:
        """Link or copy one file."""
        source = self._tree.path(path) if isinstance(self._tree, LocalTree) else None
        if source is None:
            return self._write(name, self._tree.read(path, at_most=MAX_IMAGE_BYTES))
        place = self._place(name)
        if not (self._linking and _linked(source, place)):
            shutil.copyfile(source, place)
        self.entries[name] = _entry(self._target, name)
        return name

    def _write(self, name: str, data: bytes) -> str:
        self._place(name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self.entries[name] = FileEntry(path=name, size_bytes=len(data), sha256=digest)
        return name

    def _advance(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _place(self, name: str) -> Path:
        place = self._target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        return place


def _linked(source: Path, place: Path) -> bool:
    try:
        os.link(source, place)
    except OSError:  # another disk, one without links, or a file that others may not link to
        return False
    return True


def links_work(tree: Tree, path: str, out: Path) -> bool:
    """Return whether files of a tree can be linked into a folder, by trying it with one.

    Args:
        tree: The tree.
        path: One of its files.
        out: The folder, which need not be there yet; nothing stays in it.
    """
    source = tree.path(path) if isinstance(tree, LocalTree) else None
    folder = next(place for place in (out.absolute(), *out.absolute().parents) if place.is_dir())
    if source is None:
        return False
    trial = folder / f".link-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        return _linked(source, trial)
    finally:
        trial.unlink(missing_ok=True)


def _written(target: Path, path: str, text: str) -> FileEntry:
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    return _entry(target, path)


def _entry(target: Path, path: str) -> FileEntry:
    with (target / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path=path, size_bytes=(target / path).stat().st_size, sha256=digest)


def remarks_on(plates: Sequence[PlateListing], identity: Identity) -> list[str]:
    """Return what a person should know of found plates: stains, what was left out, what is incomplete or guessed."""
    stains = stains_of_plates(plates)
    remarks = [f"Channels found: {', '.join(stains)}.", *_remarks_on_channels(stains, identity)]
    remarks += _kept_by(plates)
    remarks += _contradicted(plates, identity)
    for plate in plates:
        remarks += _remarks_on_plate(plate, stains)
    if identity.plate_map is None:
        remarks.append(
            "No plate map was given: every well counts as a treatment of its own, and none as a control. Validation "
            "refuses plates without controls; give --plate-map (docs/data_contracts.md) when the wells are known."
        )
    wells, guessed = wells_of(plates, identity)
    if guessed:
        remarks.append(
            f"Plate format: {wells} wells, the smallest that holds the imaged ones; if wrong, --plate-wells."
        )
    return [plain(remark, MAX_REMARK) for remark in remarks]


def _remarks_on_channels(stains: Sequence[str], identity: Identity) -> list[str]:
    """Return remarks on channels that are not the usual five, and on roles that nobody plays or that are not stated."""
    remarks = []
    absent = [stain for stain in STAINS if stain not in stains]
    others = [name for name in stains if name not in STAINS]
    kept = f"--set 'ingest.channels={listed(stains)}'"
    if absent:
        remarks.append(
            f"Not found: {', '.join(absent)}. Ingest takes the plates with {kept} --set "
            f"'extractor.channels={listed(stains)}'; a model that reads an absent channel cannot be used on them."
        )
    elif others:
        remarks.append(f"Ingest stores the five stains, and all of the channels with {kept}.")
    roles = roles_of(stains, identity.roles)
    without = [name for name in others if name not in roles]
    if nuclei_of(roles) is None:
        remarks.append(
            "No channel has the role nuclei: cells are not counted, and swapped stains not looked for. If one of them "
            f"shows nuclei, say so: --role {(without or ['CHANNEL'])[0]}=nuclei."
        )
    if without:
        remarks.append(
            f"No role is known of {', '.join(without)}: pictures of them warn and refuse nothing. Stains of the "
            f"cytoplasm: --role {without[0]}=cytoplasm; transmitted light: --role {without[0]}=transmitted."
        )
    return remarks


def _kept_by(plates: Sequence[PlateListing]) -> list[str]:
    """Return the option that keeps a channel, where some were left out."""
    names = [name for plate in plates for name in plate.channels if any(_calls(name, it) for it in plate.left_out)]
    if not names:
        return []
    return [
        f"A channel that was left out is kept by calling it something: --channel '{names[0]}={valid_name(names[0])}'."
    ]


def _calls(name: str, label: str) -> bool:
    """Return whether a channel goes by a name, written as `Cy3`, `w2 (FITC)`, `C01 (DNA; 405nm)`, `channel 3`.

    A part of a word is none of its names: `4` of `Alexa 647` would be another channel's number.
    """
    number, _, others = label.removesuffix(")").partition(" (")
    return name in {label, number, others, *others.split("; "), *re.findall("(?:channel|position) ([0-9]+)$", label)}


def _contradicted(plates: Sequence[PlateListing], identity: Identity) -> list[str]:
    """Return a remark for each option that says something else than the plates' own files: it is taken, not unseen."""
    options = (
        ("--pixel-size", identity.pixel_size_um, "pixel_size_um"),
        ("--modality", identity.modality, "modality"),
        ("--bit-depth", identity.bit_depth, "bit_depth"),
        ("--plate-wells", identity.plate_wells, "wells"),
    )
    remarks = []
    for option, given, name in options:
        others: dict[object, list[str]] = {}
        for plate in plates:
            own = getattr(plate, name)
            if given is not None and own is not None and not _agree(given, own):
                others.setdefault(own, []).append(plate.plate)
        for own, names in others.items():
            written = f"{own:.4g}" if isinstance(own, float) else own
            remarks.append(f"{option} {given} is taken, though the files of {', '.join(names)} say {written}.")
    return remarks


def _agree(given: object, own: object) -> bool:
    # a pixel size is typed with few digits
    return abs(given - own) <= 0.01 * own if isinstance(given, float) and isinstance(own, float) else given == own


def _odd_wells(plate: PlateListing) -> list[str]:
    """Return a remark on wells with another number of fields than most: nobody can say whether fields were lost."""
    counts = Counter(item.place for item in plate.fields)
    usual = usual_sites(counts.values())
    odd = [f"{well_name(*place)} {count}" for place, count in sorted(counts.items()) if count != usual]
    if not odd:
        return []
    shown = ", ".join(odd[:10]) + (", ..." if len(odd) > 10 else "")
    return [f"{len(odd)} of {len(counts)} wells have another number of fields than the usual {usual} ({shown})"]


def _remarks_on_plate(plate: PlateListing, stains: Sequence[str]) -> list[str]:
    remarks = [
        f"Plate {plate.plate}: {count} image{'s' if count != 1 else ''} of channel {name!r} left out."
        for name, count in sorted(plate.left_out.items())
    ]
    remarks += [f"Plate {plate.plate}: {note}." for note in plate.notes]
    if plate.illumination:
        given = ", ".join(stain for stain in stains if stain in plate.illumination)
        remarks.append(f"Plate {plate.plate}: illumination functions given for {given}.")
    remarks += [f"Plate {plate.plate}: {said}." for said in _odd_wells(plate)]
    incomplete = [item for item in plate.fields if any(stain not in item.files for stain in stains)]
    if incomplete:
        first = incomplete[0]
        missing = ", ".join(stain for stain in stains if stain not in first.files)
        where = f"well {well_name(*first.place)} site {first.site}: {missing}"
        remarks.append(f"Plate {plate.plate}: {len(incomplete)} of {len(plate.fields)} fields lack a stain ({where}).")
    return remarks
