"""Opera Phenix and Operetta: the index of a measurement (`Index.idx.xml` or `Index.xml`, Harmony V5 and later)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from coda.errors import ContractError, Problem
from coda.plates.adopt.found import FoundField, FoundPlate, safe_name
from coda.plates.adopt.xml import UnsafeXmlError, parse_xml
from coda.plates.layout import FORMATS

INDEX_NAMES = ("Index.idx.xml", "Index.xml")
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


def find_plates(folder: Path, channels: Mapping[str, str]) -> list[FoundPlate]:
    """Return the plate of a measurement folder (the one that holds the index, or whose `Images` does).

    Args:
        folder: Measurement folder.
        channels: Channel name -> stain; added to `CHANNELS`, and stronger.

    Raises:
        ContractError: There is no index, it cannot be read, or it describes several planes or time points of a field.
    """
    index = _index_of(folder)
    where = str(index)
    try:
        root = parse_xml(index.read_bytes())
    except UnsafeXmlError as error:
        raise _refusal(where, f"a file that {error}", "the instrument's own index") from error
    images = [_values(image) for image in root.iterfind("./Images/Image")]
    if not images:
        raise _refusal(where, "no image", "an index that lists the images of a plate")
    return [_plate(root, images, index, {**CHANNELS, **channels})]


def _index_of(folder: Path) -> Path:
    for place in (folder, folder / "Images", folder / "images"):
        for name in INDEX_NAMES:
            if (place / name).is_file():
                if (place / name).stat().st_size > MAX_INDEX_BYTES:
                    raise _refusal(str(place / name), "more than 1 GiB", "an index of one plate")
                return place / name
    raise _refusal(str(folder), "neither of them", f"{' or '.join(INDEX_NAMES)} in the folder or its 'Images'")


def _values(image: Element) -> dict[str, str]:
    return {item.tag: (item.text or "").strip() for item in image}


def _plate(root: Element, images: list[dict[str, str]], index: Path, channels: Mapping[str, str]) -> FoundPlate:
    where = str(index)
    left_out: Counter[str] = Counter()
    faulty = 0
    sites: dict[tuple[int, int, int], dict[str, Path]] = {}
    problems = []
    for image in images:
        name = image.get("ChannelName", "")
        if name not in channels:
            left_out[name] += 1
            continue
        if image.get("State", "Ok") != "Ok":
            faulty += 1
            continue
        try:
            key = (int(image["Row"]) - 1, int(image["Col"]) - 1, int(image["FieldID"]))
            path = _inside(index.parent, image["URL"])
        except (KeyError, ValueError) as error:
            problems.append(
                _problem(where, f"image {image.get('id')} with {error}", "Row, Col, FieldID and a file name")
            )
            continue
        files = sites.setdefault(key, {})
        if channels[name] in files:
            found = f"image {image.get('id')}: {channels[name]} of this field a second time"
            problems.append(_problem(where, found, "one plane, one time point and one filter a stain"))
            continue
        files[channels[name]] = path
    if problems:
        raise ContractError(f"{where} cannot be adopted.", problems[:20])
    first = images[0]
    return FoundPlate(
        plate=safe_name(root.findtext("./Plates/Plate/Name") or root.findtext("./Plates/Plate/PlateID") or "plate"),
        fields=tuple(FoundField(key[:2], key[2], sites[key]) for key in sorted(sites)),
        wells=_format(root),
        pixel_size_um=float(first["ImageResolutionX"]) * 1e6 if first.get("ImageResolutionX") else None,
        modality=_modality(first.get("AcquisitionType", "")),
        objective=f"{first.get('ObjectiveMagnification', '?')}x/{first.get('ObjectiveNA', '?')}",
        bit_depth=(int(float(first["MaxIntensity"])) - 1).bit_length() if first.get("MaxIntensity") else None,
        left_out=dict(left_out),
        notes=(f"{faulty} images the instrument itself marks as not Ok",) if faulty else (),
    )


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        message = f"the file name {name!r}, which leads out of the folder"
        raise ValueError(message)
    return path


def _format(root: Element) -> int | None:
    rows, columns = root.findtext("./Plates/Plate/PlateRows"), root.findtext("./Plates/Plate/PlateColumns")
    sizes = {size: wells for wells, size in FORMATS.items()}
    if rows is None or columns is None or not (rows.isdigit() and columns.isdigit()):
        return None
    return sizes.get((int(rows), int(columns)))


def _modality(acquisition: str) -> Literal["widefield", "confocal"] | None:
    if not acquisition:
        return None
    return "widefield" if "nonconfocal" in acquisition.replace("-", "").lower() else "confocal"


def _problem(where: str, found: str, expected: str) -> Problem:
    return Problem(where, found, expected, "Export the measurement again, or name the files in a load_data table.")


def _refusal(where: str, found: str, expected: str) -> ContractError:
    return ContractError(f"{where} cannot be adopted.", [_problem(where, found, expected)])
