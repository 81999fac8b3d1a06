"""ImageXpress (MetaXpress): `.HTD` files describe plates, file names say well, site and wavelength.

A folder may lack its HTD; the names alone are enough then, but wavelengths have no names.
"""

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import chain

from coda.plates.layout import well_name
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.image_names import ImageName, parse_image
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check, format_of_size
from coda.plates.readers.read_options import ReadOptions, at, refusal
from coda.plates.tree import Tree

MAX_HTD_BYTES = 4 << 20
MAX_LINES = 10_000

_ONCE = "one file for each field, wavelength, step and time point"
_FOLDER = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>[0-9]{1,5})", re.IGNORECASE)


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds an HTD file, or images whose names carry a GUID."""
    names = [file.path.rpartition("/")[2] for file in tree.files()]
    if any(name.lower().endswith(".htd") for name in names):
        return True
    return any(found is not None and "guid" in found.fields for found in map(parse_image, names))


@dataclass(frozen=True)
class _Image:
    path: str
    name: ImageName
    plane: int | None
    time: int | None


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of a tree: a plate for each folder with images named as MetaXpress names them.

    Folders `TimePoint_<n>`, `ZStep_<n>` and `Images` belong to the plate above them. A folder that holds images of
    several prefixes holds several plates, which go by their prefixes then.

    Args:
        tree: One plate, or a folder with several.
        options: Names of wavelengths as the HTD has them, or their numbers ('w1' or '1') -> stain; step (`plane`) and
            time point of stacks.

    Raises:
        ContractError: There is no such image, an HTD cannot be read, or a stain of a field has several images.
    """
    paths = [file.path for file in tree.files()]
    folders: dict[str, list[_Image]] = defaultdict(list)
    for path in paths:
        folder, _, name = path.rpartition("/")
        parsed = parse_image(name)
        if parsed is not None and parsed.family == "imagexpress":
            plate, plane, time = _plate_folder(folder)
            folders[plate].append(_Image(path, parsed, plane, time))
    if not folders:
        raise refusal(tree.where, "no such image", "files named <plate>_A01_s1_w1<GUID>.tif")
    descriptions = _descriptions(tree, paths)
    present = set(paths)
    found = []
    for folder, images in sorted(folders.items()):
        prefixes = sorted({image.name.fields["plate"] for image in images})
        for prefix in prefixes:
            own = [image for image in images if image.name.fields["plate"] == prefix]
            name = prefix if len(prefixes) > 1 else (at(tree, folder).rstrip("/").rpartition("/")[2])
            htd = descriptions.get((folder, prefix)) or (descriptions.get((folder, "")) if len(prefixes) == 1 else None)
            found.append(_Plate(tree, folder, name, htd, present, options).read(own))
    check(tree.where, [builder for builder, _ in found])
    return [plate for _, plate in found]


def _plate_folder(folder: str) -> tuple[str, int | None, int | None]:
    """Return the folder of the plate, the step and the time point of a folder with images."""
    parts = folder.split("/") if folder else []
    plane = time = None
    while parts and (parts[-1].lower() == "images" or _FOLDER.fullmatch(parts[-1])):
        found = _FOLDER.fullmatch(parts.pop())
        if found and found["kind"].lower() == "zstep":
            plane = int(found["number"])
        elif found:
            time = int(found["number"])
    return "/".join(parts), plane, time


class _Htd:
    """A description of a plate: comma-separated lines, each a name and its values."""

    def __init__(self, tree: Tree, path: str) -> None:
        where = at(tree, path)
        text = tree.read(path, at_most=MAX_HTD_BYTES).decode("latin-1").lstrip("\ufeff").removeprefix("ï»¿")
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > MAX_LINES or not lines or "HTSInfoFile" not in lines[0][:40]:
            raise refusal(where, "a file that does not begin with HTSInfoFile", "the instrument's own HTD file")
        try:
            rows = list(csv.reader(lines, skipinitialspace=True))
        except csv.Error as error:
            raise refusal(where, f"a damaged file ({error})", "the instrument's own HTD file") from error
        self._values = {row[0].strip(): [value.strip() for value in row[1:]] for row in rows if row}

    def number(self, name: str) -> int | None:
        """Return a whole number, or None when there is none."""
        text = next(iter(self._values.get(name, [])), "")
        return int(text) if re.fullmatch("[0-9]{1,4}", text) else None

    def wave(self, number: int) -> str:
        """Return the name of a wavelength, empty when it has none."""
        return next(iter(self._values.get(f"WaveName{number}", [])), "")[:100]

    @property
    def wells(self) -> int | None:
        """Wells of the plate format."""
        return format_of_size(self.number("YWells") or 0, self.number("XWells") or 0)

    @property
    def selected(self) -> set[tuple[int, int]]:
        """Places of the wells that were to be imaged."""
        return {
            (row, column)
            for row in range(min(self.number("YWells") or 0, 32))
            for column, value in enumerate(self._values.get(f"WellsSelection{row + 1}", [])[:48])
            if value.upper() == "TRUE"
        }


def _descriptions(tree: Tree, paths: list[str]) -> dict[tuple[str, str], _Htd]:
    """Return (plate folder, prefix) -> description; the prefix is empty for the only description of a folder."""
    folders: dict[str, dict[str, _Htd]] = defaultdict(dict)
    for path in paths:
        if path.lower().endswith(".htd"):
            folder, _, name = path.rpartition("/")
            folders[_plate_folder(folder)[0]][name[:-4]] = _Htd(tree, path)
    alone = {(folder, ""): next(iter(some.values())) for folder, some in folders.items() if len(some) == 1}
    return alone | dict(
        chain.from_iterable((((folder, name), htd) for name, htd in some.items()) for folder, some in folders.items())
    )


class _Plate:
    """One plate while its images are read."""

    def __init__(
        self, tree: Tree, folder: str, name: str, htd: _Htd | None, present: set[str], options: ReadOptions
    ) -> None:
        self._where = at(tree, folder)
        self._name = name
        self._htd = htd
        # what stands in step 0 is a projection, where steps count from 1
        options = replace(options, made_planes=(0,))
        wells = htd.wells if htd else None
        channels = Channels(options.channels)
        self._builder = PlateBuilder(present, channels, options=options, where=self._where, wells=wells, once=_ONCE)

    def read(self, images: list[_Image]) -> tuple[PlateBuilder, PlateListing]:
        """Return what was gathered, with its problems, and the plate."""
        thumbnails = sum(image.name.thumbnail for image in images)
        full = [image for image in images if not image.name.thumbnail]
        for image in full:
            labels = image.name.labels
            wave = self._htd.wave(image.name.channel) if self._htd else ""
            stain = self._builder.stain(wave, *labels, told=labels[0] + (f" ({wave})" if wave else ""))
            if stain is not None:
                self._builder.add(
                    image.name.place, image.name.site, stain, ImageRef(image.path),
                    where=f"{self._where}: {image.path}", plane=image.plane, time=image.time,
                )  # fmt: skip
        notes = [f"{thumbnails} thumbnails left out"] * bool(thumbnails)
        notes += self._absent({item.place for item in self._builder.fields()})
        wells = self._htd.wells if self._htd else None
        return self._builder, self._builder.listing(self._name, notes, wells=wells)

    def _absent(self, imaged: set[tuple[int, int]]) -> list[str]:
        absent = sorted(self._htd.selected - imaged) if self._htd else []
        if not absent:
            return ["no HTD file; wavelengths go by their numbers"] * (self._htd is None)
        shown = ", ".join(well_name(*place) for place in absent[:5])
        return [f"{len(absent)} wells that the HTD selects have no image ({shown}{', ...' * (len(absent) > 5)})"]
