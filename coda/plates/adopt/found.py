"""One description of a plate, whatever instrument it came from."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class FoundField:
    """One field of view in a folder: where it is on the plate, and the file of each stain that was found."""

    place: tuple[int, int]
    site: int
    files: dict[str, Path]


@dataclass(frozen=True)
class FoundPlate:
    """One plate in a folder, with what the instrument's own files say about it.

    Attributes:
        plate: Name, made safe for paths.
        fields: Fields in the order of rows, columns and sites.
        wells: Wells of the plate format, where it is written down.
        pixel_size_um: Edge of a pixel, where it is written down.
        modality: Widefield or confocal, where it is written down.
        objective: Magnification and numerical aperture, where they are written down.
        bit_depth: Bits of the grey values, where they are written down.
        left_out: Channel names that are no stain of ours, with the number of their images.
        notes: Other things worth telling.
    """

    plate: str
    fields: tuple[FoundField, ...]
    wells: int | None = None
    pixel_size_um: float | None = None
    modality: Literal["widefield", "confocal"] | None = None
    objective: str = ""
    bit_depth: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def safe_name(text: str) -> str:
    """Return a name that is safe in paths and object keys; other characters than letters, digits and ``._-`` go."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).strip("-._")[:100]
    return name or "unnamed"
