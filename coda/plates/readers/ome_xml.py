"""OME-XML: images, their channels and planes, and the plate they belong to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Literal
from xml.etree.ElementTree import Element

from coda.plates.readers.xml import UnsafeXmlError, parse_xml

MAX_PLANES = 200_000
"""Most planes (channels, planes, time points) of one image."""

_UNITS = {"": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}
_CONFOCAL = ("SpinningDiskConfocal", "LaserScanningConfocalMicroscopy", "SlitScanConfocal")


class NotOmeError(ValueError):
    """The text is no OME-XML that can be used; the text of the error is the reason, as a part of a sentence."""


@dataclass(frozen=True)
class OmeImage:
    """One image of a document.

    Attributes:
        channels: Names of the channels, in order; empty ones where they have none.
        sizes: Number of planes (Z) and of time points (T).
        kind: Type of the pixels, as 'uint16'.
        bits: Bits that carry something, where it is said.
        samples: Samples a pixel.
        pixel_size_um: Micrometres a pixel, where it is said.
        modalities: How the channels were acquired, as OME calls it, where it is said.
        planes: (channel, plane, time point) -> file name (None for the document's own file) and number of the image
            in that file, all from 0.
    """

    channels: tuple[str, ...]
    sizes: tuple[int, int]
    kind: str
    bits: int | None
    samples: int
    pixel_size_um: float | None
    modalities: frozenset[str]
    planes: dict[tuple[int, int, int], tuple[str | None, int]]

    @property
    def modality(self) -> Literal["widefield", "confocal"] | None:
        """Widefield or confocal, where all channels declare the same."""
        if self.modalities and all(name in _CONFOCAL for name in self.modalities):
            return "confocal"
        return "widefield" if self.modalities == {"WideField"} else None


@dataclass(frozen=True)
class OmePlate:
    """One plate of a document.

    Attributes:
        name: Name.
        size: Rows and columns, where they are said.
        samples: (row, column, site from 1) -> ID of the image.
        faults: What contradicts itself.
        acquisitions: ID of an acquisition -> its name.
        acquired: Row, column and site of a sample -> ID of the acquisition it belongs to.
    """

    name: str
    size: tuple[int, int] | None
    samples: dict[tuple[int, int, int], str]
    faults: tuple[str, ...] = ()
    acquisitions: dict[str, str] = field(default_factory=dict)
    acquired: dict[tuple[int, int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class OmeDocument:
    """What a document says.

    Attributes:
        images: ID -> image, in the order of the document.
        plates: Plates; empty where the document has none.
        objective: Magnification and numerical aperture of the first objective, where they are said.
        elsewhere: Name of the file that holds the document, where this one only points to it.
    """

    images: dict[str, OmeImage]
    plates: tuple[OmePlate, ...]
    objective: str = ""
    elsewhere: str = ""
    names: dict[str, str] = field(default_factory=dict)


def parse_ome(data: bytes) -> OmeDocument:
    """Return what an OME-XML document says.

    Raises:
        NotOmeError: It is none, or says something impossible.
    """
    try:
        root = parse_xml(data)
    except UnsafeXmlError as error:
        raise NotOmeError(str(error)) from error
    if root.tag != "OME":
        raise NotOmeError(f"is a document {root.tag[:60]!r}, not OME")
    only = root.find("./BinaryOnly")
    images = {image.get("ID", ""): _image(image) for image in root.iterfind("./Image")}
    names = {image.get("ID", ""): image.get("Name", "") for image in root.iterfind("./Image")}
    lens = root.find("./Instrument/Objective")
    parts = [(lens.get("NominalMagnification"), lens.get("LensNA"))] if lens is not None else []
    return OmeDocument(
        images=images,
        plates=tuple(_plate(plate) for plate in root.iterfind("./Plate")),
        objective=f"{parts[0][0]}x/{parts[0][1]}"[:100] if parts and all(parts[0]) else "",
        elsewhere=only.get("MetadataFile", "") if only is not None else "",
        names=names,
    )


def _whole(element: Element, name: str, default: int) -> int:
    text = element.get(name)
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,9}", text):
        raise NotOmeError(f"says {name}={text[:30]!r}, which is no whole number")
    return int(text)


def _image(image: Element) -> OmeImage:
    pixels = image.find("./Pixels")
    if pixels is None:
        raise NotOmeError(f"has an image {image.get('ID', '')[:40]!r} without pixels")
    channels = pixels.findall("./Channel")
    samples = max([_whole(channel, "SamplesPerPixel", 1) for channel in channels], default=1)
    sizes = {axis: _whole(pixels, f"Size{axis}", 1) for axis in "CZT"}
    if sizes["C"] * sizes["Z"] * sizes["T"] > MAX_PLANES:
        raise NotOmeError(f"says an image has {sizes['C']} x {sizes['Z']} x {sizes['T']} planes")
    names = [(channel.get("Name") or channel.get("Fluor") or "")[:100] for channel in channels]
    names += [""] * (sizes["C"] // max(1, samples) - len(names))
    bits = _whole(pixels, "SignificantBits", 0)
    return OmeImage(
        channels=tuple(names),
        sizes=(sizes["Z"], sizes["T"]),
        kind=pixels.get("Type", ""),
        bits=bits if 8 <= bits <= 16 else None,
        samples=samples,
        pixel_size_um=_pixel_size(pixels),
        modalities=frozenset(filter(None, (channel.get("AcquisitionMode") for channel in channels))),
        planes=_planes(pixels, sizes),
    )


def _pixel_size(pixels: Element) -> float | None:
    try:
        size = float(pixels.get("PhysicalSizeX", "")) * _UNITS[pixels.get("PhysicalSizeXUnit", "")]
    except (ValueError, KeyError):
        return None
    return size if 0.01 < size < 20 else None


def _planes(pixels: Element, sizes: dict[str, int]) -> dict[tuple[int, int, int], tuple[str | None, int]]:
    """Return where each plane is; if not declared, planes stand in a row in the document's own file."""
    order = [axis for axis in pixels.get("DimensionOrder", "XYCZT") if axis in "CZT"]
    if sorted(order) != ["C", "T", "Z"]:
        raise NotOmeError(f"says DimensionOrder={pixels.get('DimensionOrder', '')[:20]!r}")
    row = list(_in_order(order, sizes))
    found: dict[tuple[int, int, int], tuple[str | None, int]] = {}
    data = pixels.findall("./TiffData")
    if not data:
        return {place: (None, number) for number, place in enumerate(row)}
    position = {place: number for number, place in enumerate(row)}
    for item in data:
        first = (_whole(item, "FirstC", 0), _whole(item, "FirstZ", 0), _whole(item, "FirstT", 0))
        if first not in position:
            raise NotOmeError(f"has data for channel, plane and time point {first}, which the image does not have")
        ifd = _whole(item, "IFD", 0)
        count = _whole(item, "PlaneCount", 1 if item.get("IFD") is not None else len(row))
        uuid = item.find("./UUID")
        name = uuid.get("FileName") if uuid is not None else None
        start = position[first]
        for number, place in enumerate(row[start : start + min(count, len(row))]):
            found[place] = (name, ifd + number)
    return found


def _in_order(order: list[str], sizes: dict[str, int]) -> Iterator[tuple[int, int, int]]:
    """Yield (channel, plane, time point), the first axis of the order running fastest."""
    for numbers in product(*(range(sizes[axis]) for axis in reversed(order))):
        at = dict(zip(reversed(order), numbers, strict=True))
        yield at["C"], at["Z"], at["T"]


def _plate(plate: Element) -> OmePlate:
    samples: dict[tuple[int, int, int], str] = {}
    acquired: dict[tuple[int, int, int], str] = {}
    faults = []
    acquisitions = list(plate.iterfind("./PlateAcquisition"))
    member = {
        ref.get("ID", ""): item.get("ID", "")[:100] for item in acquisitions for ref in item.iterfind("./WellSampleRef")
    }
    for well in plate.iterfind("./Well"):
        row, column = _whole(well, "Row", 0), _whole(well, "Column", 0)
        refs = [
            (_whole(sample, "Index", number), ref.get("ID", ""), member.get(sample.get("ID", ""), ""))
            for number, sample in enumerate(well.iterfind("./WellSample"))
            if (ref := sample.find("./ImageRef")) is not None
        ]
        for site, (_, name, acquisition) in enumerate(sorted(refs), start=1):
            if (row, column, site) in samples:
                faults.append(f"row {row}, column {column} a second time")
            samples[row, column, site] = name
            acquired[row, column, site] = acquisition
    size = (_whole(plate, "Rows", 0), _whole(plate, "Columns", 0))
    return OmePlate(
        plate.get("Name") or plate.get("ID") or "plate",
        size if all(size) else None,
        samples,
        tuple(faults),
        {item.get("ID", "")[:100]: (item.get("Name") or "")[:100] for item in acquisitions},
        acquired,
    )
