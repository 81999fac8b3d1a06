"""OME-TIFF: plates described by the OME-XML in their files, or one file for each field placed by a pattern of names."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import tifffile

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.adopt.channels import Channels
from coda.plates.adopt.finding import Finding, at, child, few, refusal
from coda.plates.adopt.found import FoundPlate, ImageRef, safe_name
from coda.plates.adopt.gather import Gathering, check, format_of_size
from coda.plates.adopt.ome_xml import NotOmeError, OmeDocument, OmeImage, OmePlate, parse_ome
from coda.plates.adopt.pattern import checked_pattern, matches, number_of, place_of
from coda.plates.adopt.planes import opened
from coda.plates.tree import Tree

ENDINGS = (".ome.tif", ".ome.tiff")
COMPANION = ".companion.ome"
MAX_XML_BYTES = 256 << 20
KINDS = ("uint8", "uint16")

_ONCE = "one plane and one time point a stain (--plane and --time choose one; OME counts them from 0)"


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds OME-TIFF files."""
    return any(file.path.lower().endswith(ENDINGS) for file in tree.files())


def find_plates(tree: Tree, finding: Finding) -> list[FoundPlate]:
    """Return the plates of a tree of OME-TIFF files.

    Args:
        tree: Folder of the files.
        finding: Channel names of the OME-XML, or their positions from 1 -> stain; plane and time point of stacks
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
    reader = _Reader(tree, set(paths), finding)
    reader.read(files)
    return reader.plates()


@dataclass
class _Plate:
    """What is gathered of one plate."""

    gathering: Gathering
    size: tuple[int, int] | None = None
    used: list[OmeImage] = field(default_factory=list)
    objective: str = ""
    other: int = 0


class _Reader:
    """Plates while files are looked at; files that an earlier file's OME-XML covers are not opened."""

    def __init__(self, tree: Tree, present: set[str], finding: Finding) -> None:
        self._tree = tree
        self._present = present
        self._finding = finding
        self._channels = Channels(finding.channels)
        self._plates: dict[str, _Plate] = defaultdict(lambda: _Plate(Gathering(present, once=_ONCE)))
        self._problems: list[Problem] = []
        self._documents: dict[str, OmeDocument] = {}

    def read(self, files: Sequence[str]) -> None:
        """Read all files; those without a plate in their OME-XML are placed by the pattern of names."""
        covered: set[str] = set()
        alone: list[tuple[str, OmeDocument]] = []
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
                alone.append((path, document))
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
        found = self._plates[safe_name(plate.name)]
        found.size, found.objective = plate.size, document.objective
        for fault in plate.faults:
            self._fault(holder, fault, "each well once")
        counts = Counter(
            self._file(holder, name) for image in document.images.values() for name, _ in image.planes.values()
        )
        for (row, column, site), name in plate.samples.items():
            image = document.images.get(name)
            if image is None:
                self._fault(holder, f"a field whose image {name[:40]!r} is not described", "images of all fields")
                continue
            self._take_image(found, holder, image, (row, column), site, counts)
        return {path for path in counts if path is not None}

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
    ) -> None:
        if image.kind not in KINDS or image.samples != 1:
            found = f"pixels of type {image.kind[:20]!r} with {image.samples} sample(s)"
            self._fault(holder, found, f"grey values of type {' or '.join(KINDS)}")
            return
        plate.used.append(image)
        wanted = (self._finding.plane, self._finding.time)
        for (channel, z, t), (name, ifd) in sorted(image.planes.items()):
            label = image.channels[channel] if channel < len(image.channels) else ""
            stain = self._channels.stain(label, str(channel + 1))
            if stain is None:
                plate.gathering.leave_out(label or f"channel {channel + 1}")
                continue
            if any(number not in {None, value} for number, value in zip(wanted, (z, t), strict=True)):
                plate.other += 1
                continue
            path = self._file(holder, name)
            if path is None:
                self._fault(holder, f"the file name {str(name)[:100]!r}, which leads out of the folder", "a file name")
                continue
            # a file of one image is one that everybody can read as it is
            ref = ImageRef(path) if counts[path] == 1 else ImageRef(path, ifd)
            plate.gathering.add(place, site, stain, ref, where=at(self._tree, path))

    def _take_by_name(self, alone: Sequence[tuple[str, OmeDocument]]) -> None:
        """Place files of one field each by their names."""
        if self._finding.pattern is None:
            found = f"{len(alone)} file(s) without a plate in their OME-XML (the first: {alone[0][0]})"
            remedy = "Give --pattern with the groups well (or row and col), site and plate."
            self._problems.append(Problem(self._tree.where, found, "a plate, or a pattern of names", remedy))
            return
        pattern = checked_pattern(self._finding.pattern, channel=False)
        matched = matches(pattern, [path for path, _ in alone], self._tree.where)
        for path, document in alone:
            groups = matched.get(path, {})
            place, site = place_of(groups), number_of(groups.get("site") or "1")
            if place is None or site is None or len(document.images) != 1:
                found = f"{len(document.images)} images" if place else "a name that does not say the well"
                self._fault(path, found, f"one image a file, and a name as {pattern}")
                continue
            plate = self._plates[safe_name(groups.get("plate") or self._tree.where.rstrip("/").rpartition("/")[2])]
            plate.objective = document.objective
            (image,) = document.images.values()
            # a file that was renamed still carries its old name inside
            own = replace(image, planes={key: (None, ifd) for key, (_, ifd) in image.planes.items()})
            self._take_image(plate, path, own, place, site, Counter({path: len(own.planes)}))

    def _fault(self, path: str, found: str, expected: str) -> None:
        remedy = "Export the files again, or name them in a load_data table."
        self._problems.append(Problem(at(self._tree, path), found, expected, remedy))

    def plates(self) -> list[FoundPlate]:
        """Return the plates; raises `ContractError` with all problems."""
        where = self._tree.where
        raise_if_any(ContractError, f"{where} cannot be adopted.", few(self._problems, where))
        for name, plate in self._plates.items():
            sizes = {image.pixel_size_um for image in plate.used} - {None}
            if len(sizes) > 1:
                found = f"pixels of {', '.join(map(str, sorted(map(str, sizes))[:5]))} um"
                plate.gathering.fault(f"{where}, plate {name}", found, "fields imaged with one pixel size")
        check(where, [plate.gathering for plate in self._plates.values()])
        return [self._found(name, plate) for name, plate in sorted(self._plates.items())]

    def _found(self, name: str, plate: _Plate) -> FoundPlate:
        sizes = {image.pixel_size_um for image in plate.used} - {None}
        modalities = {image.modality for image in plate.used}
        bits = [image.bits or (8 if image.kind == "uint8" else 0) for image in plate.used]
        notes = [f"{plate.other} images of other planes or time points left out"] * bool(plate.other)
        return FoundPlate(
            plate=name,
            fields=plate.gathering.fields(),
            wells=format_of_size(*plate.size) if plate.size else None,
            pixel_size_um=next(iter(sizes), None),
            modality=modalities.pop() if len(modalities) == 1 else None,
            objective=plate.objective if plate.objective.isprintable() else "",
            bit_depth=max(bits, default=0) or None,
            left_out=dict(plate.gathering.left_out),
            notes=(*notes, *self._channels.remarks.values(), *plate.gathering.notes()),
        )
