"""Images of a well of an OME-Zarr plate: which are fields, and which are other versions of the same fields.

Names such as `0`, `1` are fields. `0_illumcorr` beside `0`, or `raw` beside `corrected`, are two images of one field;
the user says which of them counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

ALL = "all"
"""What a user says when images of different kinds of name are fields of their own."""

_NUMBER = re.compile("[0-9]{1,4}")


@dataclass(frozen=True)
class WellImage:
    """One image as a well lists it: path of its group, and id of its acquisition (empty where there is none)."""

    path: str
    acquisition: str


def variant(path: str) -> str:
    """Return what a path says apart from the number of the field: '' of '0', '#_illumcorr' of '0_illumcorr'."""
    if _NUMBER.fullmatch(path):
        return ""
    return _NUMBER.sub("#", path, count=1)


def variants(images: Sequence[WellImage]) -> dict[str, str]:
    """Return kind of name -> an example, in the order they are met."""
    found: dict[str, str] = {}
    for image in images:
        found.setdefault(variant(image.path), image.path)
    return found


def sites(images: Sequence[WellImage], *, by_position: bool) -> dict[WellImage, int]:
    """Return the site of each image.

    Args:
        images: Images of one well, of one kind of name (or all, as fields of their own).
        by_position: Whether a site is the place among the images of its acquisition, so that acquisitions of the same
            fields have the same sites; else it is the number in the name, where all names are numbers that differ.
    """
    numbers = [_NUMBER.search(image.path) for image in images]
    own = [int(found.group()) for found in numbers if found]
    if not by_position and len(own) == len(images) == len(set(own)) and len({variant(i.path) for i in images}) == 1:
        return dict(zip(images, own, strict=True))
    counts: dict[str, int] = {}
    result = {}
    for image in images:
        counts[image.acquisition if by_position else ""] = position = (
            counts.get(image.acquisition if by_position else "", 0) + 1
        )
        result[image] = position
    return result
