"""OME-Zarr plates (HCS): NGFF 0.4 on zarr 2 and NGFF 0.5 on zarr 3, in folders or in zip archives of this machine."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.image_decoding import UnreadableImageError
from coda.plates.layout import parse_well
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.planes import PlaneReader
from coda.plates.readers.plate_builder import PlateBuilder, check, format_of_size
from coda.plates.readers.read_options import ReadOptions, at, child, few, plain, refusal
from coda.plates.readers.tree_store import array_document, array_shape, read_json
from coda.plates.readers.well_images import ALL, WellImage, sites, variant, variants
from coda.plates.tree import Tree

DOCUMENTS = ("zarr.json", ".zattrs")
ARCHIVE = ".zarr.zip"
MAX_WELLS = 1536

_ONCE = "one image of each stain, plane and time point"
_UNITS = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}
_AXES = re.compile("t?c?z?yx")


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds zarr groups, or archives of them."""
    return any(
        file.path.lower().endswith(ARCHIVE) or file.path.rpartition("/")[2] in DOCUMENTS for file in tree.files()
    )


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the OME-Zarr plates of a tree.

    Args:
        tree: One plate, or a folder with several, each a folder or an archive (`*.zarr.zip`).
        options: Labels of channels (`omero` metadata), or their positions from 1 -> stain; plane and time point of
            stacks, from 0.

    Raises:
        ContractError: There is no plate, or one has problems; all of them together.
        TransientError: The storage is away.
    """
    with closing(PlaneReader(tree)) as reader:
        return _plates(tree, reader, options)


def _plates(tree: Tree, reader: PlaneReader, options: ReadOptions) -> list[PlateListing]:
    paths = [file.path for file in tree.files()]
    plates: list[_Plate] = []
    problems: list[Problem] = []
    holders = [("", tree, paths)]
    for archive in (path for path in paths if path.lower().endswith(ARCHIVE)):
        try:
            holder, _ = reader.inside(archive)
        except ContractError as error:
            problems.append(_problem(at(tree, archive), error.problems[0].found, "an archive of a plate"))
            continue
        holders.append((f"{archive}/", holder, [file.path for file in holder.files()]))
    for prefix, holder, inside in holders:
        groups = _Groups(holder, inside)
        for root in _highest(inside):
            try:
                metadata = groups.attributes(root).get("plate")
            except (ContractError, UnreadableImageError) as error:
                problems.append(_problem(at(tree, prefix + root), _reason(error), "an OME-Zarr plate"))
                continue
            if isinstance(metadata, dict):
                plates.append(_Plate(at(tree, prefix + root), prefix, groups, root, metadata, options))
    if not plates and not problems:
        expected = "a group with `plate` metadata (NGFF 0.4 or 0.5), or an archive *.zarr.zip"
        raise refusal(tree.where, "no OME-Zarr plate", expected)
    for plate in plates:
        plate.read()
        problems += plate.problems
    raise_if_any(ContractError, f"{tree.where} cannot be imported.", few(problems, tree.where))
    check(tree.where, [plate.builder for plate in plates])
    return [plate.found() for plate in plates]


def _highest(paths: Iterable[str]) -> list[str]:
    """Return the groups that lie in no other group."""
    groups = {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] in DOCUMENTS}
    found: list[str] = []
    for group in sorted(groups):
        parts = group.split("/")
        if group == "" or not any("/".join(parts[:count]) in groups for count in range(len(parts))):
            found.append(group)
    return found


class _Groups:
    """Metadata of the groups and arrays of one tree, or of one archive."""

    def __init__(self, tree: Tree, paths: Iterable[str]) -> None:
        self.tree = tree
        self._present = set(paths)

    def attributes(self, group: str) -> dict[str, Any]:
        """Return the OME metadata of a group, of either version; empty where it has none.

        Raises:
            ContractError: There is no such group.
            UnreadableImageError: Its metadata is no JSON object.
        """
        path = f"{group}/zarr.json" if group else "zarr.json"
        if path in self._present:
            attributes = read_json(self.tree, path).get("attributes")
            found = attributes.get("ome") if isinstance(attributes, dict) else None
            return found if isinstance(found, dict) else {}
        return read_json(self.tree, f"{group}/.zattrs" if group else ".zattrs")

    def shape(self, array: str) -> tuple[int, ...]:
        """Return the shape of an array; raises as `attributes` does, also when the array is not acceptable."""
        document = array_document(name for name in ("zarr.json", ".zarray") if f"{array}/{name}" in self._present)
        if document is None:
            raise UnreadableImageError("is no array")
        return array_shape(read_json(self.tree, f"{array}/{document}"))


@dataclass(frozen=True)
class _Multiscale:
    """One image: the array of its full resolution, what its axes are, and how large a pixel is."""

    array: str
    axes: str
    shape: tuple[int, ...]
    labels: tuple[str, ...]
    pixel_size_um: float | None

    def count(self, axis: str) -> int:
        """Return the length of an axis, 1 where the array has none of the name."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def plane(self, **numbers: int) -> int:
        """Return the number of a plane among those of the array."""
        plane = 0
        for axis in self.axes[:-2]:
            plane = plane * self.count(axis) + numbers[axis]
        return plane


class _Plate:
    """One plate while it is read."""

    def __init__(
        self, where: str, prefix: str, groups: _Groups, root: str, metadata: dict[str, Any], options: ReadOptions
    ) -> None:
        self._where = where
        self._prefix = prefix
        self._groups = groups
        self._root = root
        self._metadata = metadata
        self._options = options
        self._arrays: set[str] = set()
        self._sizes: set[float] = set()
        self._other_versions = 0
        self._lost: list[str] = []
        self.builder = PlateBuilder(self._arrays, Channels(options.channels), options=options, where=where, once=_ONCE)
        self._kinds: dict[str, str] = {}
        self._refused: Counter[str] = Counter()
        self.problems: list[Problem] = []

    def read(self) -> None:
        """Read all wells and images."""
        listed = self._metadata.get("acquisitions")
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, dict) and item.get("id") is not None:
                self.builder.acquisitions[str(item["id"])[:40]] = str(item.get("name") or "")[:100]
        wells = self._metadata.get("wells")
        if not isinstance(wells, list) or not 0 < len(wells) <= MAX_WELLS:
            found = f"{len(wells)} wells" if isinstance(wells, list) else "no list of wells"
            self.problems.append(_problem(self._where, found, f"1 to {MAX_WELLS} wells"))
            return
        for well in wells:
            path = well.get("path") if isinstance(well, dict) else None
            group = child(self._root, path) if isinstance(path, str) else None
            place = _place(well) if group else None
            if group is None or place is None:
                self.problems.append(_problem(self._where, f"the well {str(well)[:100]}", "a path such as 'A/1'"))
                continue
            self._read_well(group, place)
        self._check_kinds()
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{size:g}" for size in sorted(self._sizes)[:5])
            self.problems.append(_problem(self._where, f"pixels of {sizes} um", "fields imaged with one pixel size"))

    def _read_well(self, group: str, place: tuple[int, int]) -> None:
        try:
            well = self._groups.attributes(group).get("well")
        except (ContractError, UnreadableImageError) as error:
            self._lost.append(f"{group}: {_reason(error)}")
            return
        images = well.get("images") if isinstance(well, dict) else None
        named = [
            WellImage(item["path"], "" if item.get("acquisition") is None else str(item["acquisition"])[:40])
            for item in (images if isinstance(images, list) else [])
            if isinstance(item, dict) and isinstance(item.get("path"), str) and item["path"]
        ]
        if not named:
            self._lost.append(f"{group}: no images")
        for item, site in sites(self._of_one_kind(named), by_position=self._options.join).items():
            image = child(group, item.path)
            if image is None:
                found = f"the path {item.path[:60]!r}"
                self.problems.append(_problem(f"{self._where}: {group}", found, "a path inside"))
                continue
            try:
                self._take(self._multiscale(image), place, site, item.acquisition)
            except (ContractError, UnreadableImageError) as error:
                self._lost.append(f"{image}: {_reason(error)}")
                self.builder.add(place, site, None, ImageRef(image), where=image, acquisition=item.acquisition)

    def _of_one_kind(self, images: list[WellImage]) -> list[WellImage]:
        """Return the images of a well that count; several kinds of names are versions of the same fields."""
        wish, kinds = self._options.image, variants(images)
        self._kinds |= {kind: example for kind, example in kinds.items() if kind not in self._kinds}
        if wish == ALL or (wish is None and len(kinds) < 2):
            return images
        if wish is None:
            self._refused[", ".join(kinds.values())] += 1
            return []
        chosen = [image for image in images if image.path == wish or variant(image.path) == variant(wish)]
        self._other_versions += len(images) - len(chosen)
        return chosen

    def _check_kinds(self) -> None:
        """Refuse a plate whose images were not chosen among, or of which the user named one that is not there."""
        wish = self._options.image
        examples = ", ".join(plain(example) for example in list(self._kinds.values())[:20])
        remedy = (
            f"Choose one (--image {next(iter(self._kinds.values()), '0')!r}), or --image all for fields of their own."
        )
        if self._refused:
            found = f"several images of a field in {sum(self._refused.values())} wells (such as {examples})"
            self.problems.append(Problem(self._where, plain(found, 600), "one image of each field", remedy))
        elif wish not in {None, ALL} and variant(str(wish)) not in self._kinds:
            found = f"no image like {plain(str(wish))!r}"
            self.problems.append(Problem(self._where, found, f"one of {examples}", remedy))

    def _multiscale(self, image: str) -> _Multiscale:
        attributes = self._groups.attributes(image)
        try:
            scales = attributes["multiscales"][0]
            axes = "".join(axis["name"] if isinstance(axis, dict) else axis for axis in scales["axes"])
            first = scales["datasets"][0]
            array = child(image, first["path"])
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise UnreadableImageError(f"lacks what an image needs ({type(error).__name__}: {error})") from error
        if array is None or not _AXES.fullmatch(axes):
            raise UnreadableImageError(f"has the axes {axes[:20]!r}, or an array outside")
        shape = self._groups.shape(array)
        if len(shape) != len(axes):
            raise UnreadableImageError(f"has an array of shape {shape} for the axes {axes!r}")
        return _Multiscale(array, axes, shape, _labels(attributes), _pixel_size(scales, first))

    def _take(self, image: _Multiscale, place: tuple[int, int], site: int, acquisition: str) -> None:
        if math.prod(image.shape[:-2]) > 10_000:
            raise UnreadableImageError(f"has the shape {image.shape}")
        path = self._prefix + image.array
        self._arrays.add(path)
        if image.pixel_size_um is not None:
            self._sizes.add(round(image.pixel_size_um, 6))
        for channel in range(image.count("c")):
            label = image.labels[channel] if channel < len(image.labels) else ""
            stain = self.builder.stain(label, str(channel + 1), told=label or f"channel {channel + 1}")
            if stain is None:
                continue
            for time in range(image.count("t")):
                for plane in range(image.count("z")):
                    ref = ImageRef(path, image.plane(t=time, c=channel, z=plane))
                    where = f"{self._where}: {image.array}"
                    self.builder.add(
                        place, site, stain, ref, where=where, plane=plane, time=time, acquisition=acquisition
                    )

    def found(self) -> PlateListing:
        """Return the plate."""
        notes = [f"{self._other_versions} other images of the same fields left out"] * bool(self._other_versions)
        if self._lost:
            notes.append(f"{len(self._lost)} wells or fields cannot be read (the first: {self._lost[0][:200]})")
        rows, columns = (self._metadata.get(name) for name in ("rows", "columns"))
        size = (len(rows), len(columns)) if isinstance(rows, list) and isinstance(columns, list) else (0, 0)
        name = str(self._metadata.get("name") or "")
        folder = self._where.removesuffix(".zip").rpartition("/")[2]
        return self.builder.listing(
            name or folder.removesuffix(".zarr").removesuffix(".ome"), notes,
            wells=format_of_size(*size), pixel_size_um=next(iter(self._sizes), None),
        )  # fmt: skip


def _place(well: dict[str, Any]) -> tuple[int, int] | None:
    """Return row and column of a well: by the names in its path, else by its indexes into the plate's lists."""
    place = parse_well(str(well["path"]).replace("/", ""))
    if place is not None:
        return place
    indexes = [well.get(name) for name in ("rowIndex", "columnIndex")]
    if all(type(index) is int and 0 <= index < 48 for index in indexes):
        return int(indexes[0] or 0), int(indexes[1] or 0)
    return None


def _labels(attributes: dict[str, Any]) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    return tuple(str(item.get("label") or "")[:100] if isinstance(item, dict) else "" for item in channels[:1000])


def _pixel_size(scales: dict[str, Any], first: dict[str, Any]) -> float | None:
    """Return micrometres a pixel of the full resolution, where unit and scale are declared."""
    axis = scales["axes"][-1]
    unit = _UNITS.get(str(axis.get("unit"))) if isinstance(axis, dict) else None
    size = 1.0
    said = False
    for holder in (scales, first):
        items = holder.get("coordinateTransformations")
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict) and item.get("type") == "scale" and isinstance(item.get("scale"), list):
                factor = item["scale"][-1] if item["scale"] else None
                if isinstance(factor, int | float):
                    size, said = size * factor, True
    if unit is None or not said or not 0.01 < size * unit < 20:
        return None
    return size * unit


def _reason(error: Exception) -> str:
    return error.problems[0].found if isinstance(error, ContractError) else f"something that {error}"


def _problem(where: str, found: str, expected: str) -> Problem:
    return Problem(where, found, expected, "Write the plate again, or name its images in a load_data table.")
