"""Writes the files of a delivery and describes them as the manifest does."""

import hashlib
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from coda.contracts.manifest import FileEntry


def write_image(path: Path, counts: NDArray[np.uint16], pixel_size_um: float, compression: str) -> None:
    """Write one stain of one field as a single-page 16-bit TIFF with its pixel size.

    The bytes depend on the pixels and arguments alone (no time stamp).

    Args:
        path: Where; its folder exists.
        counts: Pixels, shape (height, width).
        pixel_size_um: Edge of a pixel, written as the resolution.
        compression: ``none`` or ``lzw``.
    """
    per_cm = 1e4 / pixel_size_um
    tifffile.imwrite(
        path,
        counts,
        photometric="minisblack",
        compression=None if compression == "none" else compression,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        software="coda.simulation",
        metadata=None,
    )


def describe_file(folder: Path, path: str) -> FileEntry:
    """Return the manifest's entry of a file below the batch folder."""
    content = (folder / path).read_bytes()
    return FileEntry(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
