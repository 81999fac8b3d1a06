"""Channels, planes and time points that are the pages of one TIFF: what ImageJ, Fiji and NIS-Elements write."""

from dataclasses import dataclass

import tifffile

from coda.plates.readers.planes import opened
from coda.plates.tree import Tree

MAX_PAGES = 10_000


@dataclass(frozen=True)
class Page:
    """One page: its channel (name, empty where none is written, and position from 1), plane and time point from 0."""

    number: int
    label: str
    channel: int
    plane: int
    time: int


class NoPagesError(ValueError):
    """The file's pages cannot be distinguished; the text is the reason, as a part of a sentence."""


def pages_of(tree: Tree, path: str, names: list[str]) -> list[Page]:
    """Return what the pages of a TIFF are, by ImageJ's metadata; without any, each page is a channel.

    Args:
        tree: The tree that holds the file.
        path: The file.
        names: Names of the channels in their order, where the file's own name says them; else empty.

    Raises:
        NoPagesError: It is no TIFF, or its pages are not as many as it says, or as there are names.
    """
    file, _ = opened(tree, path)
    with file:
        try:
            with tifffile.TiffFile(file) as tiff:
                count = len(tiff.pages)
                said = tiff.imagej_metadata or {}
        except Exception as error:  # tifffile raises whatever it likes on damaged bytes
            raise NoPagesError(f"is no TIFF ({' '.join(str(error).split())[:100]})") from error
    sizes = [_whole(said.get(name)) for name in ("channels", "slices", "frames")]
    if not said or not any(name in said for name in ("channels", "slices", "frames")):
        sizes = [count, 1, 1]
    channels, planes, times = sizes
    if channels * planes * times != count or count > MAX_PAGES:
        raise NoPagesError(f"has {count} pages, but says {channels} channels x {planes} planes x {times} time points")
    if names and len(names) != channels:
        raise NoPagesError(f"has {channels} channels, but its name says {', '.join(names)[:100]}")
    labels = said.get("Labels")
    written = [str(label)[:100] for label in labels] if isinstance(labels, list) and len(labels) == count else []
    found = []
    for number in range(count):  # ImageJ: channels run fastest, then planes, then time points
        channel, rest = number % channels, number // channels
        label = names[channel] if names else written[channel] if written else ""
        found.append(Page(number, label, channel + 1, rest % planes, rest // planes))
    return found


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= MAX_PAGES else 1
