"""One description of a plate, whatever instrument it came from."""

import re
from dataclasses import dataclass, field
from typing import Literal

PROJECTIONS = ("maximum", "mean", "best-focus")
"""Ways to make one image of the planes of a stack."""


@dataclass(frozen=True)
class ImageRef:
    """One image of a tree.

    Attributes:
        path: File, relative to the tree; for an image of an OME-Zarr plate the path of its array.
        plane: None where the file is the image; else the number of the plane in a file (or array) of several, which
            only an import, that writes it out as a file of its own, can use.
        side_by_side: Number of images of equal width that lie side by side in one plane of the file; `plane` counts
            them from the left then.
        stack: Images of several planes of which this one is to be made; `path` is that of the first.
        projection: How, one of `PROJECTIONS`; empty where there is no stack.
    """

    path: str
    plane: int | None = None
    side_by_side: int = 1
    stack: tuple["ImageRef", ...] = ()
    projection: str = ""

    @property
    def parts(self) -> tuple["ImageRef", ...]:
        """The images it is made of; itself where it is one."""
        return self.stack or (self,)

    @property
    def is_file(self) -> bool:
        """Whether a file of the tree is the image, as it is."""
        return self.plane is None and not self.stack


@dataclass(frozen=True)
class FieldListing:
    """One field of view in a tree: where it is on the plate (row, column from 0), and the image of each stain."""

    place: tuple[int, int]
    site: int
    files: dict[str, ImageRef]


@dataclass(frozen=True)
class PlateListing:
    """One plate in a folder, with what the instrument's own files say about it.

    Attributes:
        plate: Name; as the reader found it, then made safe for paths (or as the user renamed it).
        raw: Name as the laboratory writes it.
        measurement: Folder of the measurement, where a tree may hold several of one plate.
        acquisitions: Ids and names of the acquisitions that it was imaged in.
        channels: All names that its channels go by.
        fields: Fields in the order of rows, columns and sites.
        wells: Wells of the plate format, where it is written down.
        pixel_size_um: Edge of a pixel, where it is written down.
        modality: Widefield or confocal, where it is written down.
        objective: Magnification and numerical aperture, where they are written down.
        bit_depth: Bits of the grey values, where they are written down.
        illumination: Stain -> npy file with its illumination function, relative to the tree.
        left_out: Channel names that are no stain of ours, with the number of their images.
        notes: Other things worth telling.
    """

    plate: str
    fields: tuple[FieldListing, ...]
    wells: int | None = None
    pixel_size_um: float | None = None
    modality: Literal["widefield", "confocal"] | None = None
    objective: str = ""
    bit_depth: int | None = None
    illumination: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    raw: str = ""
    measurement: str = ""
    acquisitions: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def safe_name(text: str) -> str:
    """Return a name that is safe in paths and object keys; other characters than letters, digits and ``._-`` go."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).strip("-._")[:100]
    return name or "unnamed"
