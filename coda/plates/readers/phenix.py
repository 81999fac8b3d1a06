"""Opera Phenix and Operetta: the index of a measurement (`Index.idx.xml` or `Index.xml`, Harmony V5 to V7).

Up to V5 each image of the index carries all that is known of it. Since V6 an image has little more than its place,
file and channel number; name, lens and pixel size of the channel stand once, among the maps.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Literal
from xml.etree.ElementTree import Element

from coda.plates.readers.channel_names import Channels
from coda.plates.readers.family import plates_by_names
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check, format_of_size
from coda.plates.readers.read_options import Present, ReadOptions, at, child, refusal
from coda.plates.readers.xml import UnsafeXmlError, parse_xml
from coda.plates.tree import Tree

INDEX_NAMES = ("index.idx.xml", "index.xml", "index.ref.xml")
"""Names of an index in lower case, the better first: `ref` stands beside images that Harmony has corrected."""
MAX_INDEX_BYTES = 1 << 30

CHANNELS = {
    "HOECHST 33342": "DNA",
    "DAPI": "DNA",
    "Alexa 488": "ER",
    "488 650": "RNA",
    "Alexa 488 Em 650": "RNA",
    "488 long": "RNA",
    "Alexa 568": "AGP",
    "Alexa 647": "Mito",
}
"""Channel names seen in JUMP's Phenix plates -> stain; a laboratory may name its filters otherwise."""

_ONCE = "one channel a stain (--channel maps channels)"


def indexes_of(paths: Iterable[str]) -> list[str]:
    """Return the paths of the indexes among those of a tree, one for each folder."""
    chosen: dict[str, str] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name.lower() in INDEX_NAMES:
            chosen[folder] = min(chosen.get(folder, path), path, key=_rank)
    return [chosen[folder] for folder in sorted(chosen)]


def _rank(path: str) -> int:
    return INDEX_NAMES.index(path.rpartition("/")[2].lower())


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds an index."""
    return bool(indexes_of(file.path for file in tree.files()))


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of all measurements in a tree, each known by its index.

    Args:
        tree: One measurement, or a folder with several.
        options: Channel names or numbers -> stain, beside `CHANNELS`; plane and time point of stacks.
            Images without an index are read by their names; channels are numbers then.

    Raises:
        ContractError: There is no index, one cannot be read, or one names several images for a stain of a field.
    """
    paths = [file.path for file in tree.files()]
    indexes = indexes_of(paths)
    if not indexes:
        named = plates_by_names(tree, "phenix_operetta", options)
        if named:
            return named
        expected = "Index.idx.xml, Index.xml or Index.ref.xml in the folder or its 'Images'"
        raise refusal(tree.where, "neither of them", expected)
    present = Present(paths)
    return [_Measurement(tree, path, present, options).plate() for path in indexes]


class _Measurement:
    """One index while it is read."""

    def __init__(self, tree: Tree, path: str, present: Present, options: ReadOptions) -> None:
        self._where = at(tree, path)
        self._folder = path.rpartition("/")[0]
        self._present = present
        self._options = options
        self._images: list[dict[str, str]] = []
        data = tree.read(path, at_most=MAX_INDEX_BYTES)
        try:
            self._root = parse_xml(data, {"Image": self._keep})
        except UnsafeXmlError as error:
            raise refusal(self._where, f"a file that {error}", "the instrument's own index") from error
        self._channels = self._channels_of_maps()
        self._wells = self._format()

    def _keep(self, image: Element) -> None:
        """Keep of an image what the plate needs; `Image` also stands for mere references to images, in the wells."""
        values = {item.tag: (item.text or "").strip() for item in image}
        if "URL" in values:
            self._images.append({name: sys.intern(values[name]) for name in _KEPT if name in values})

    def _channels_of_maps(self) -> dict[str, dict[str, str]]:
        """Return channel number -> what the maps say of it, which V6 and later no longer repeat for each image."""
        found: dict[str, dict[str, str]] = {}
        for entry in self._root.iterfind("./Maps/Map/Entry"):
            values = {item.tag: (item.text or "").strip() for item in entry}
            found.setdefault(entry.get("ChannelID", ""), {}).update(
                {name: values[name] for name in _KEPT if name in values}
            )
        return found

    def _format(self) -> int | None:
        plates = self._root.findall("./Plates/Plate")
        if len(plates) > 1:
            raise refusal(self._where, f"{len(plates)} plates in one index", "one plate")
        rows, columns = (self._root.findtext(f"./Plates/Plate/Plate{name}") or "" for name in ("Rows", "Columns"))
        if not (re.fullmatch("[0-9]{1,4}", rows) and re.fullmatch("[0-9]{1,4}", columns)):
            return None
        return format_of_size(int(rows), int(columns))

    def plate(self) -> PlateListing:
        """Return the plate; raises `ContractError` with all problems of the index."""
        if not self._images:
            raise refusal(self._where, "no image", "an index that lists the images of a plate")
        builder = PlateBuilder(
            self._present, Channels(self._options.channels, CHANNELS), options=self._options, where=self._where,
            wells=self._wells, once=_ONCE,
        )  # fmt: skip
        states: Counter[str] = Counter()
        used: set[tuple[str, ...]] = set()
        for image in self._images:
            values = {**self._channels.get(image.get("ChannelID", ""), {}), **image}
            name, number = values.get("ChannelName", ""), values.get("ChannelID", "")
            stain = builder.stain(name, number, f"ch{number}", told=name or f"channel {values.get('ChannelID', '?')}")
            if stain is None:
                continue
            if values.get("State", "Ok") != "Ok":
                states[values["State"]] += 1
                self._add(builder, values, None)
            else:
                self._add(builder, values, stain)
                used.add(tuple(values.get(name, "") for name in _OPTICS))
        optics = _Optics(used, builder, self._where)
        check(self._where, [builder])
        notes = [f"{sum(states.values())} images the instrument itself marks as not Ok ({_listed(states)})"] * bool(
            states
        )
        notes += self._flatfield_note()
        name = self._text("Name") or self._text("PlateID") or "plate"
        folder = self._where.rpartition("/")[0].removesuffix("/Images").rpartition("/")[2]
        return builder.listing(name, notes, measurement=folder, wells=self._wells, **vars(optics))

    def _text(self, name: str) -> str:
        return (self._root.findtext(f"./Plates/Plate/{name}") or "").strip()

    def _add(self, builder: PlateBuilder, values: dict[str, str], stain: str | None) -> None:
        entry = f"{self._where}, image {values.get('id', '?')[:40]}"
        numbers = [values.get(name, "") for name in ("Row", "Col", "FieldID")]
        path = self._file(values["URL"])
        if path is None:
            builder.fault(entry, f"the file name {values['URL'][:200]!r}, which leads out of the folder", "a file name")
        elif not all(re.fullmatch("[0-9]{1,6}", number) for number in numbers):
            builder.fault(entry, f"Row, Col, FieldID of {numbers}", "three whole numbers")
        else:
            row, column, site = map(int, numbers)
            plane, time = (whole(values.get(name, "")) for name in ("PlaneID", "TimepointID"))
            builder.add((row - 1, column - 1), site, stain, ImageRef(path), where=entry, plane=plane, time=time)

    def _file(self, url: str) -> str | None:
        """Return the path of an image: as the index names it, else beside the index or in its folder `Images`."""
        named = child(self._folder, url)
        if named is None:
            return None
        name = named.rpartition("/")[2]
        others = (named, child(self._folder, name) or "", child(self._folder, f"Images/{name}") or "")
        return next(filter(None, map(self._present.find, others)), named)

    def _flatfield_note(self) -> list[str]:
        profiles = [item.text or "" for item in self._root.iterfind("./Maps/Map/Entry/FlatfieldProfile")]
        shaped = sum("NonFlat" in text for text in profiles)
        if not shaped:
            return []
        return [f"the index has flatfield profiles of {shaped} channel(s); they are not used, ingest estimates its own"]


def whole(text: str) -> int | None:
    """Return a whole number that an index writes, None where it writes none."""
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else None


_KEPT = (
    "id", "State", "URL", "Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID", "ChannelName",
    "AcquisitionType", "ImageResolutionX", "MaxIntensity", "ObjectiveMagnification", "ObjectiveNA",
)  # fmt: skip


_OPTICS = ("AcquisitionType", "ImageResolutionX", "MaxIntensity", "ObjectiveMagnification", "ObjectiveNA")


class _Optics:
    """What the used images say of the microscope; where they differ, nothing (and a problem for the pixel size)."""

    def __init__(self, used: set[tuple[str, ...]], builder: PlateBuilder, where: str) -> None:
        columns = [set(column) for column in zip(*used, strict=True)] or [set()] * len(_OPTICS)
        acquisitions, sizes, largest = columns[:3]
        self.pixel_size_um = _pixel_size(sizes - {""}, builder, where)
        kinds = {_modality(text) for text in acquisitions}
        self.modality = kinds.pop() if len(kinds) == 1 else None
        lens = {values[3:] for values in used}
        self.objective = "{}x/{}".format(*lens.pop()) if len(lens) == 1 and all(next(iter(lens))) else ""
        greatest = max((_number(text) or 0 for text in largest), default=0)
        self.bit_depth = (int(greatest) - 1).bit_length() if 256 <= greatest <= 65536 else None


def _pixel_size(sizes: set[str], builder: PlateBuilder, where: str) -> float | None:
    metres = {_number(size) for size in sizes}
    if len(metres) > 1:
        builder.fault(where, f"pixels of {', '.join(sorted(sizes)[:5])} m", "stains imaged with one pixel size")
        return None
    size = metres.pop() if metres else None
    return size * 1e6 if size is not None and 1e-8 < size < 2e-5 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _modality(acquisition: str) -> Literal["widefield", "confocal"] | None:
    if not acquisition:
        return None
    return "widefield" if "nonconfocal" in acquisition.replace("-", "").lower() else "confocal"


def _listed(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state[:30]}" for state, count in sorted(states.items())[:5])
