"""Names of image files of three families of microscopes, and the keys of the public Cell Painting gallery.

Families: Opera Phenix and Operetta (`r01c02f03p01-ch6sk1fk1fl1.tiff`), CellVoyager
(`<plate>_A01_T0001F001L01A01Z01C06.tif`) and ImageXpress (`<prefix>_A01_s1_w3<GUID>.tif`: the number after `w` is the
channel, and the GUID follows without a separator).
"""

import re
from dataclasses import dataclass
from typing import Literal

from coda.plates.addresses import spellings
from coda.plates.layout import parse_well

Family = Literal["phenix_operetta", "cellvoyager", "imagexpress"]

MAX_NAME = 255
"""Longest file name that is looked at; no file system has longer ones."""

_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_PHENIX = re.compile(
    r"r(?P<row>[0-9]{2})c(?P<col>[0-9]{2})f(?P<site>[0-9]{2,4})p(?P<plane>[0-9]{2,4})-ch(?P<channel>[0-9]{1,2})"
    r"sk(?P<sk>[0-9]{1,4})fk[0-9]{1,3}fl[0-9]{1,3}\.tiff?",
    re.IGNORECASE,
)
_CELLVOYAGER = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}[0-9]{2})_T(?P<t>[0-9]{4})F(?P<site>[0-9]{3,4})L(?P<l>[0-9]{2})"
    r"A(?P<action>[0-9]{2})Z(?P<z>[0-9]{2,4})C(?P<channel>[0-9]{2})\.(?:(?i:tiff?|png))"
)
_IMAGEXPRESS = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}[0-9]{2})(?:_s(?P<site>[0-9]{1,4}))?(?:_w(?P<channel>[0-9]{1,2}))?"
    rf"(?P<thumb>_[Tt]humb)?(?P<guid>{_GUID})?\.(?i:tiff?)"
)


@dataclass(frozen=True)
class ImageName:
    """What the name of an image file says.

    Attributes:
        family: Family of the name.
        fields: The parts as they stand in the name, by the family's own words; absent ones are left out.
        place: Row and column from 0.
        site: Number of the field as the instrument counts.
        channel: Channel number.
        plane: Number of the plane; None where the name has none.
        time: Number of the time point; None where the name has none.
        thumbnail: Whether it is a small copy.
    """

    family: Family
    fields: dict[str, str]
    place: tuple[int, int]
    site: int
    channel: int
    plane: int | None
    time: int | None
    thumbnail: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Ways to write the channel: as the family does ('ch6', 'C06', 'w6'), and the bare number."""
        mark = {"phenix_operetta": "ch", "cellvoyager": "C", "imagexpress": "w"}[self.family]
        return tuple(dict.fromkeys((f"{mark}{self.fields.get('channel', '1')}", f"{mark}{self.channel}",
                                    f"{mark}{self.channel:02d}", str(self.channel))))  # fmt: skip


def parse_image(name: str) -> ImageName | None:
    """Return what a file name (without folders) says, or None when it is of no family."""
    if len(name) > MAX_NAME:
        return None
    return _phenix(name) or _cellvoyager(name) or _imagexpress(name)


def _phenix(name: str) -> ImageName | None:
    found = _PHENIX.fullmatch(name)
    if found is None:
        return None
    parts = found.groupdict()
    time = int(parts.pop("sk"))
    place = (int(parts["row"]) - 1, int(parts["col"]) - 1)
    return ImageName(
        "phenix_operetta", parts, place, int(parts["site"]), int(parts["channel"]), int(parts["plane"]), time
    )


def _cellvoyager(name: str) -> ImageName | None:
    found = _CELLVOYAGER.fullmatch(name)
    place = parse_well(found["well"]) if found else None
    if found is None or place is None:
        return None
    parts = found.groupdict()
    return ImageName(
        "cellvoyager", parts, place, int(parts["site"]), int(parts["channel"]), int(parts["z"]), int(parts["t"])
    )


def _imagexpress(name: str) -> ImageName | None:
    found = _IMAGEXPRESS.fullmatch(name)
    place = parse_well(found["well"]) if found else None
    if found is None or place is None:
        return None
    parts = {key: value for key, value in found.groupdict().items() if value is not None}
    thumbnail = parts.pop("thumb", None) is not None
    site, channel = int(parts.get("site", "1")), int(parts.get("channel", "1"))
    return ImageName("imagexpress", parts, place, site, channel, None, None, thumbnail)


@dataclass(frozen=True)
class GalleryKey:
    """A key of the gallery, below a project.

    Attributes:
        source: Laboratory, 'source_4'.
        kind: What lies there: images, illumination functions, workspace, or whatever else the second part says.
        batch: Batch.
        folder: Folder of the plate as it is written; for images longer than the plate's name, and other than it.
        name: File name.
        image: What the file name says, for images.
        stain: Stain of an illumination function.
        under: Part of the workspace, 'load_data_csv'; empty elsewhere.
    """

    source: str
    kind: str
    batch: str
    folder: str
    name: str
    image: ImageName | None = None
    stain: str = ""
    under: str = ""

    @property
    def plate(self) -> str:
        """The plate's name as far as the folder says it: what follows `__` is the measurement's date and number.

        A laboratory may put more around it (`P01_ADMJUM001` is ADMJUM001): the tables say the true name.
        """
        return self.folder.partition("__")[0]


_KEY = re.compile(r"(?:.*/)?(?P<source>source_[0-9]+)/(?P<kind>images|workspace|workspace_dl)/(?P<rest>.+)")
_ILLUM = re.compile(r"(?P<plate>.+)_Illum(?P<stain>[A-Za-z0-9][A-Za-z0-9_-]*)\.npy")


def parse_key(key: str) -> GalleryKey | None:
    """Return the parts of a key (or `s3://` address) of the gallery, or None when it is built otherwise.

    Images stand at ``<source>/images/<batch>/images/<plate folder>/[Images/]<file>``, illumination functions at
    ``<source>/images/<batch>/illum/<plate>/<file>``, tables at ``<source>/workspace/<part>/<batch>/<plate>/<file>``.
    """
    read = spellings(key)
    found = _KEY.fullmatch("/".join(read.get("decoded") or read["literal"]))
    if found is None:
        return None
    source, kind, parts = found["source"], found["kind"], found["rest"].split("/")
    if kind == "images" and len(parts) >= 4 and parts[1] == "images":
        return GalleryKey(source, "images", parts[0], parts[2], parts[-1], image=parse_image(parts[-1]))
    if kind == "images" and len(parts) == 4 and parts[1] == "illum":
        illum = _ILLUM.fullmatch(parts[3])
        return GalleryKey(source, "illum", parts[0], parts[2], parts[3], stain=illum["stain"] if illum else "")
    if kind != "images" and len(parts) >= 4:
        return GalleryKey(source, kind, parts[1], parts[2], parts[-1], under=parts[0])
    return None
