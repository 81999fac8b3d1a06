"""OME-TIFF: plates described by the OME-XML in their files, or one file for each field placed by a pattern of names."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import tifffile

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.ome_xml import NotOmeError, OmeDocument, OmeImage, OmePlate, parse_ome
from coda.plates.readers.pattern import checked_pattern, matches, number_of, place_of
from coda.plates.readers.planes import opened
from coda.plates.readers.plate_builder import PlateBuilder, check, format_of_size
from coda.plates.readers.read_options import ReadOptions, at, child, few, refusal
from coda.plates.tree import Tree

ENDINGS = (".ome.tif", ".ome.tiff")
COMPANION = ".companion.ome"
MAX_XML_BYTES = 256 << 20
KINDS = ("uint8", "uint16")

_ONCE = "one image of each stain, plane and time point"

_POSITION = re.compile(r"(?P<well>[A-Z]{1,2}[0-9]{1,2})[-_ ]?site[-_ ]?(?P<site>[0-9]{1,4})", re.IGNORECASE)
"""What Micro-Manager's plate generator calls a position."""


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds OME-TIFF files."""
    return any(file.path.lower().endswith(ENDINGS) for file in tree.files())


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of a tree of OME-TIFF files.

    Args:
        tree: Folder of the files.
        options: Channel names of the OME-XML, or their positions from 1 -> stain; plane and time point of stacks
            (from 0); and a pattern of names (groups `well` or `row` and `col`, `site`, `plate`) for files whose
            OME-XML has no plate.

    Raises:
        ConfigError: The pattern is none.
        ContractError: There are no such files, or their OME-XML cannot be used.
    """
    paths = [file.path for file in tree.files()]
    files = [path for path in paths if path.lower().endswith(ENDINGS)]
    if not files:
        raise refusal(tree.where, "no such file", f"files that end in {' or '.join(ENDINGS)}")
    reader = _Reader(tree, set(paths), options)
    reader.read(files)
    return reader.plates()


@dataclass
class _Plate:
    """What is gathered of one plate."""

    builder: PlateBuilder
    size: tuple[int, int] | None = None
    used: list[OmeImage] = field(default_factory=list)
    objective: str = ""


@dataclass(frozen=True)
class _Alone:
    """A file without a plate: its path, the file whose OME-XML describes it, and what that says."""

    path: str
    holder: str
    document: OmeDocument


class _Reader:
    """Plates while files are read; files that an earlier file's OME-XML covers are not opened."""

    def __init__(self, tree: Tree, present: set[str], options: ReadOptions) -> None:
        self._tree = tree
        self._present = present
        self._options = options
        channels = Channels(options.channels)
        self._plates: dict[str, _Plate] = defaultdict(
            lambda: _Plate(PlateBuilder(present, channels, options=options, where=tree.where, once=_ONCE))
        )
        self._problems: list[Problem] = []
        self._documents: dict[str, OmeDocument] = {}

    def read(self, files: Sequence[str]) -> None:
        """Read all files; those without a plate in their OME-XML are placed by the pattern of names."""
        covered: set[str] = set()
        alone: list[_Alone] = []
        for path in files:
            if path in covered:
                continue
            try:
                holder, document = self._document(path)
            except (NotOmeError, ContractError) as error:
                reason = error.problems[0].found if isinstance(error, ContractError) else str(error)
                self._fault(path, f"a file that {reason}", "TIFF with OME-XML")
                continue
            for plate in document.plates:
                covered |= self._take_plate(holder, document, plate)
            if not document.plates:
                alone.append(_Alone(path, holder, document))
        if alone:
            self._take_by_name(alone)

    def _document(self, path: str) -> tuple[str, OmeDocument]:
        """Return the document of a file, and the path that names in it count from."""
        document = parse_ome(self._description(path))
        if not document.elsewhere:
            return path, document
        companion = child(path.rpartition("/")[0], document.elsewhere)
        if companion is None or companion not in self._present:
            raise NotOmeError(f"points to {document.elsewhere[:100]!r}, which is not there")
        if companion not in self._documents:
            if companion.lower().endswith(COMPANION):
                data = self._tree.read(companion, at_most=MAX_XML_BYTES)
            else:
                data = self._description(companion)
            self._documents[companion] = parse_ome(data)
        return companion, self._documents[companion]

    def _description(self, path: str) -> bytes:
        file, _ = opened(self._tree, path)
        with file:
            try:
                with tifffile.TiffFile(file) as tiff:
                    text = tiff.pages.first.description
            except Exception as error:  # tifffile raises whatever it likes on damaged bytes
                raise NotOmeError(f"is no TIFF ({' '.join(str(error).split())[:100]})") from error
        return str(text).encode()

    def _take_plate(self, holder: str, document: OmeDocument, plate: OmePlate) -> set[str]:
        """Gather a plate of a document; returns the files that it names."""
        found = self._plates[plate.name]
        found.builder.acquisitions |= plate.acquisitions
        found.size, found.objective = plate.size, document.objective
        for fault in plate.faults:
            self._fault(holder, fault, "each well once")
        counts = Counter(
            self._file(holder, name) for image in document.images.values() for name, _ in image.planes.values()
        )
        for (row, column, index), name in plate.samples.items():
            acquisition = plate.acquired.get((row, column, index), "")
            site = self._site(plate, (row, column, index))
            image = document.images.get(name)
            if image is None:
                self._fault(holder, f"a field whose image {name[:40]!r} is not described", "images of all fields")
                continue
            self._take_image(found, holder, image, (row, column), site, counts, acquisition)
        return {path for path in counts if path is not None}

    def _site(self, plate: OmePlate, sample: tuple[int, int, int]) -> int:
        """Return the site of a sample; acquisitions of the same fields have the same sites."""
        if not self._options.join:
            return sample[2]
        own = plate.acquired.get(sample)
        before = [key for key in plate.samples if key[:2] == sample[:2] and key[2] < sample[2]]
        return 1 + sum(plate.acquired.get(key) == own for key in before)

    def _file(self, holder: str, name: str | None) -> str | None:
        return holder if name is None else child(holder.rpartition("/")[0], name)

    def _take_image(
        self,
        plate: _Plate,
        holder: str,
        image: OmeImage,
        place: tuple[int, int],
        site: int,
        counts: Counter[str | None],
        acquisition: str = "",
    ) -> None:
        if image.kind not in KINDS or image.samples != 1:
            found = f"pixels of type {image.kind[:20]!r} with {image.samples} sample(s)"
            self._fault(holder, found, f"grey values of type {' or '.join(KINDS)}")
            return
        plate.used.append(image)
        for (channel, z, t), (name, ifd) in sorted(image.planes.items()):
            label = image.channels[channel] if channel < len(image.channels) else ""
            stain = plate.builder.stain(label, str(channel + 1), told=label or f"channel {channel + 1}")
            if stain is None:
                continue
            path = self._file(holder, name)
            if path is None:
                self._fault(holder, f"the file name {str(name)[:100]!r}, which leads out of the folder", "a file name")
                continue
            # a file of one image is one that everybody can read as it is
            ref = ImageRef(path) if counts[path] == 1 else ImageRef(path, ifd)
            plate.builder.add(
                place, site, stain, ref, where=at(self._tree, path), plane=z, time=t, acquisition=acquisition
            )

    def _take_by_name(self, alone: Sequence[_Alone]) -> None:
        """Place files without a plate by their names, or by what Micro-Manager calls their positions."""
        pattern = None if self._options.pattern is None else checked_pattern(self._options.pattern, channel=False)
        matched = matches(pattern, [item.path for item in alone], self._tree.where) if pattern else {}
        unplaced: list[str] = []
        for item in alone:
            named = self._images_in(item)
            groups = matched.get(item.path, {}) if pattern else self._position(item, named)
            place, site = place_of(groups), number_of(groups.get("site") or "1")
            if place is None or site is None:
                unplaced.append(item.path)
                continue
            if len(named) != 1:
                self._fault(item.path, f"{len(named)} images", "one field a file")
                continue
            plate = self._plates[groups.get("plate") or self._tree.where.rstrip("/").rpartition("/")[2]]
            plate.objective = item.document.objective
            (own,) = named.values()
            self._take_image(plate, item.path, own, place, site, Counter({item.path: len(own.planes)}))
        if unplaced:
            expected = f"names as {pattern}" if pattern else "a plate, or a pattern of names"
            found = f"{len(unplaced)} file(s) without a plate in their OME-XML (the first: {unplaced[0]})"
            remedy = "Give --pattern with the groups well (or row and col), site and plate."
            self._problems.append(Problem(self._tree.where, found, expected, remedy))

    def _images_in(self, item: _Alone) -> dict[str, OmeImage]:
        """Return the images of a document that lie in one file, by their names; planes count in this file alone."""
        images = item.document.images
        found = {}
        for key, image in images.items():
            inside: dict[tuple[int, int, int], tuple[str | None, int]] = {
                place: (None, ifd)
                for place, (name, ifd) in image.planes.items()
                # a file that was renamed still carries its old name inside
                if len(images) == 1 or self._file(item.holder, name) == item.path
            }
            if inside:
                found[f"{item.document.names.get(key, '')}\0{key}"] = replace(image, planes=inside)
        return found

    def _position(self, item: _Alone, named: dict[str, OmeImage]) -> dict[str, str | None]:
        """Return well, site and plate of a position of Micro-Manager; empty where it is none."""
        hit = _POSITION.fullmatch(next(iter(named), "").partition("\0")[0].strip())
        if hit is None:
            return {}
        folder, _, name = item.path.rpartition("/")
        prefix = name.partition("_MMStack")[0] if "_MMStack" in name else folder.rpartition("/")[2]
        return {**hit.groupdict(), "plate": prefix}

    def _fault(self, path: str, found: str, expected: str) -> None:
        remedy = "Export the files again, or name them in a load_data table."
        self._problems.append(Problem(at(self._tree, path), found, expected, remedy))

    def plates(self) -> list[PlateListing]:
        """Return the plates; raises `ContractError` with all problems."""
        where = self._tree.where
        raise_if_any(ContractError, f"{where} cannot be imported.", few(self._problems, where))
        for name, plate in self._plates.items():
            sizes = {image.pixel_size_um for image in plate.used} - {None}
            if len(sizes) > 1:
                found = f"pixels of {', '.join(map(str, sorted(map(str, sizes))[:5]))} um"
                plate.builder.fault(f"{where}, plate {name}", found, "fields imaged with one pixel size")
        check(where, [plate.builder for plate in self._plates.values()])
        return [self._found(name, plate) for name, plate in sorted(self._plates.items())]

    def _found(self, name: str, plate: _Plate) -> PlateListing:
        sizes = {image.pixel_size_um for image in plate.used} - {None}
        modalities = {image.modality for image in plate.used}
        bits = [image.bits or (8 if image.kind == "uint8" else 0) for image in plate.used]
        return plate.builder.listing(
            name,
            wells=format_of_size(*plate.size) if plate.size else None,
            pixel_size_um=next(iter(sizes), None),
            modality=modalities.pop() if len(modalities) == 1 else None,
            objective=plate.objective if plate.objective.isprintable() else "",
            bit_depth=max(bits, default=0) or None,
        )
