"""Yokogawa CellVoyager (CV7000, CV8000): `MeasurementData.mlf` lists the images, `MeasurementDetail.mrf` the optics.

The `.mes` that the latter names says what the channels are for. Channels are numbers otherwise, and no number means
the same stain in two laboratories.
"""

import re
from collections import Counter
from typing import Literal
from xml.etree.ElementTree import Element

from coda.plates.layout import well_name
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.choosing import PROJECTION
from coda.plates.readers.family import plates_by_names
from coda.plates.readers.image_names import parse_image
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check, format_of_size
from coda.plates.readers.read_options import Present, ReadOptions, at, child, refusal
from coda.plates.readers.xml import Takers, UnsafeXmlError, parse_xml
from coda.plates.tree import Tree

INDEX_NAME = "MeasurementData.mlf"
DETAIL_NAME = "MeasurementDetail.mrf"
MAX_INDEX_BYTES = 1 << 30
MAX_SETTING_BYTES = 64 << 20

_ONCE = "one action a stain (--channel maps channels)"
_ENDINGS = (".tif", ".tiff", ".png")


def indexes_of(paths: list[str]) -> list[str]:
    """Return the paths of the indexes among those of a tree."""
    return sorted(path for path in paths if path.rpartition("/")[2].lower() == INDEX_NAME.lower())


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds an index."""
    return bool(indexes_of([file.path for file in tree.files()]))


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of all measurements in a tree, each known by its `MeasurementData.mlf`.

    Args:
        tree: One measurement, or a folder with several.
        options: Channel numbers ('C01' or '1'), or targets and light sources named by the `.mes` -> stain; plane and
            time point of stacks. Images without an index are read by their names.

    Raises:
        ContractError: There is no index, one cannot be read, or one names several images for a stain of a field.
    """
    paths = [file.path for file in tree.files()]
    indexes = indexes_of(paths)
    if not indexes:
        named = plates_by_names(tree, "cellvoyager", options)
        if named:
            return named
        raise refusal(tree.where, f"no {INDEX_NAME}", f"{INDEX_NAME} beside the images")
    present = Present(paths)
    return [_Measurement(tree, path, present, options).plate() for path in indexes]


def _read(tree: Tree, path: str, at_most: int, root: str, each: Takers | None = None) -> Element:
    where = at(tree, path)
    try:
        found = parse_xml(tree.read(path, at_most=at_most), each)
    except UnsafeXmlError as error:
        raise refusal(where, f"a file that {error}", "the instrument's own file") from error
    if found.tag != root:
        raise refusal(where, f"a document {found.tag[:60]!r}", f"a document {root!r}")
    return found


class _Measurement:
    """One measurement while it is read."""

    def __init__(self, tree: Tree, path: str, present: Present, options: ReadOptions) -> None:
        self._where = at(tree, path)
        self._folder = path.rpartition("/")[0]
        self._present = present
        self._options = options
        self._details = _Details(tree, self._folder, present)
        self._builder = PlateBuilder(
            present, Channels(options.channels), options=options, where=self._where, wells=self._details.wells,
            once=_ONCE,
        )  # fmt: skip
        self._records: list[Element] = []
        self._errors: list[str] = []
        self._used: set[str] = set()
        self._prefixes: Counter[str] = Counter()
        _read(tree, path, MAX_INDEX_BYTES, "MeasurementData", {"MeasurementRecord": self._records.append})

    def plate(self) -> PlateListing:
        """Return the plate; raises `ContractError` with all problems of the index."""
        raw = any(item.get("Type") == "IMG" and not item.get("ZImageProcessing") for item in self._records)
        for record in self._records:
            if record.get("Type") == "ERR":
                if self._options.time is None or _time(record) in {self._options.time, None}:
                    self._error(record)
            elif record.get("Type") == "IMG":
                self._image(record)
        fields = self._builder.fields()
        if not fields and not self._builder.problems() and not self._builder.left_out:
            raise refusal(self._where, "no image", "records of type IMG")
        pixel = self._details.pixel_size(self._used, self._builder, self._where)
        check(self._where, [self._builder])
        folder = self._where.split("/")[-2]
        name = next(iter(self._prefixes)) if len(self._prefixes) == 1 else self._details.plate or folder
        return self._builder.listing(
            name,
            self._notes(raw=raw),
            measurement=folder,
            wells=self._details.wells,
            pixel_size_um=pixel,
            modality=self._details.modality(self._used),
            objective=self._details.objective(self._used),
            bit_depth=self._details.bit_depth(self._used),
        )

    def _error(self, record: Element) -> None:
        """Keep a record of what the instrument could not image; its field stays on the plate."""
        place, numbers = _place(record), _numbers(record, "FieldIndex")
        text = " ".join((record.text or "").split())[:80]
        where = f"well {well_name(*place)}" if place and max(place) < 48 else "a well that is not said"
        if place and numbers:
            where += f" field {numbers[0]}"
            time = _time(record)
            self._builder.add(place, numbers[0], None, ImageRef(""), where=self._where, time=time)
        self._errors.append(f"{where}: {text or 'no reason given'}")

    def _image(self, record: Element) -> None:
        name = (record.text or "").strip()
        entry = f"{self._where}, image {name[:100]}"
        place, numbers = _place(record), _numbers(record, "FieldIndex", "Ch")
        if place is None or numbers is None:
            self._builder.fault(entry, "no Row, Column, FieldIndex or Ch", "whole numbers in all of them")
            return
        site, channel = numbers
        stain = self._builder.stain(*self._details.names(channel), told=self._details.label(channel))
        if stain is None:
            return
        path = self._file(name)
        if path is None:
            self._builder.fault(entry, "a file name that leads out of the folder", "a file name")
            return
        parsed = parse_image(path.rpartition("/")[2])
        if parsed is not None and "plate" in parsed.fields:
            self._prefixes[parsed.fields["plate"]] += 1
        self._used.add(str(channel))
        depth = _numbers(record, "ZIndex")
        plane = PROJECTION if record.get("ZImageProcessing") else depth[0] if depth else None
        self._builder.add(place, site, stain, ImageRef(path), where=entry, plane=plane, time=_time(record))

    def _file(self, name: str) -> str | None:
        """Return the path of an image; a measurement may have been converted to another kind of file."""
        named = child(self._folder, name)
        if named is None:
            return None
        stem = named.rpartition(".")[0]
        names = (named, *(stem + ending for ending in _ENDINGS))
        return next(filter(None, map(self._present.find, names)), named)

    def _notes(self, *, raw: bool) -> list[str]:
        notes = []
        if self._errors:
            shown = "; ".join(self._errors[:5])
            more = f"; and {len(self._errors) - 5} more" if len(self._errors) > 5 else ""
            notes.append(f"{len(self._errors)} errors that the instrument recorded: {shown}{more}")
        if not raw and any(record.get("ZImageProcessing") for record in self._records):
            notes.append("the images are projections over the planes, made by the instrument")
        return notes


def _place(record: Element) -> tuple[int, int] | None:
    numbers = _numbers(record, "Row", "Column")
    return (numbers[0] - 1, numbers[1] - 1) if numbers and min(numbers) >= 1 else None


def _time(record: Element) -> int | None:
    numbers = _numbers(record, "TimePoint")
    return numbers[0] if numbers else None


def _numbers(record: Element, *names: str) -> list[int] | None:
    texts = [record.get(name, "").strip() for name in names]
    if not all(re.fullmatch("[0-9]{1,6}", text) for text in texts):
        return None
    return [int(text) for text in texts]


class _Details:
    """Optics and channels of a measurement, as far as they are written beside it."""

    def __init__(self, tree: Tree, folder: str, present: Present) -> None:
        self.wells: int | None = None
        self.plate = ""
        self._optics: dict[str, Element] = {}
        self._settings: dict[str, Element] = {}
        path = present.find(child(folder, DETAIL_NAME) or "")
        if path is None:
            return
        root = _read(tree, path, MAX_SETTING_BYTES, "MeasurementDetail")
        size = _numbers(root, "RowCount", "ColumnCount")
        self.wells = format_of_size(*size) if size else None
        sample = root.find("./MeasurementSamplePlate")
        self.plate = (sample.get("Name", "") if sample is not None else "").strip()
        self._optics = {item.get("Ch", ""): item for item in root.iterfind("./MeasurementChannel")}
        setting = present.find(child(folder, root.get("MeasurementSettingFileName", "")) or "")
        if setting is not None:
            mes = _read(tree, setting, MAX_SETTING_BYTES, "MeasurementSetting")
            for item in mes.iterfind("./ChannelList/Channel"):
                self._settings.setdefault(item.get("Ch", ""), item)

    def names(self, channel: int) -> tuple[str, ...]:
        """Return the ways to call a channel: number, target, fluorophore, light sources."""
        setting = self._settings.get(str(channel))
        named = [f"C{channel:02d}", f"C{channel}", str(channel)]
        if setting is not None:
            lights = [(item.text or "").strip() for item in setting.iterfind("./LightSourceName")]
            named += [setting.get("Target", ""), setting.get("Fluorophore", ""), "+".join(lights)]
        return tuple(named)

    def label(self, channel: int) -> str:
        """Return a channel's label for people."""
        target = "; ".join(name for name in self.names(channel)[3:] if name.strip())
        return f"C{channel:02d}" + (f" ({target[:80]})" if target else "")

    def pixel_size(self, used: set[str], builder: PlateBuilder, where: str) -> float | None:
        """Return micrometres a pixel; channels that differ are a problem of the plate."""
        sizes = {self._optics[name].get("HorizontalPixelDimension", "") for name in used if name in self._optics} - {""}
        if len(sizes) > 1:
            builder.fault(where, f"pixels of {', '.join(sorted(sizes)[:5])} um", "stains imaged with one pixel size")
        try:
            size = float(sizes.pop()) if len(sizes) == 1 else 0.0
        except ValueError:
            return None
        return size if 0.01 < size < 20 else None

    def bit_depth(self, used: set[str]) -> int | None:
        """Return bits of the grey values."""
        bits = [self._optics[name].get("InputBitDepth", "") for name in used if name in self._optics]
        known = [int(text) for text in bits if re.fullmatch("[0-9]{1,2}", text) and 8 <= int(text) <= 16]
        return max(known, default=None)

    def modality(self, used: set[str]) -> Literal["widefield", "confocal"] | None:
        """Return the modality where the setting names one kind for all used channels."""
        kinds = {self._settings[name].get("Kind", "").casefold() for name in used if name in self._settings}
        if kinds and all("confocal" in kind and "non" not in kind for kind in kinds):
            return "confocal"
        return "widefield" if kinds and all("epi" in kind or "wide" in kind for kind in kinds) else None

    def objective(self, used: set[str]) -> str:
        """Return the objective where it is one for all used channels."""
        names = {self._settings[name].get("Objective", "").strip() for name in used if name in self._settings}
        name = names.pop() if len(names) == 1 else ""
        return name[:100] if name.isprintable() else ""
