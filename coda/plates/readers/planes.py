"""Images that are a part of a file: one plane of several, or one of several that lie side by side."""

import io
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from coda.errors import ContractError
from coda.plates.image_decoding import Image, TiffPages, UnreadableImageError, decode_image
from coda.plates.readers.listing import ImageRef
from coda.plates.readers.tree_store import ZipTree, read_array_plane
from coda.plates.tree import LocalTree, Tree, absent
from coda.quality.stats import image_focus

MAX_FILE_BYTES = 1 << 32
MAX_SIDE = 20_000
"""Largest accepted height or width of a plane, in pixels; ingest has a narrower limit of its own."""

PLANE_ENDING = ".tif"


def opened(tree: Tree, path: str) -> tuple[BinaryIO, int]:
    """Return a file of a tree open for reading, and its size: of a local one, only what is asked for is read.

    Raises:
        ContractError: There is no such file, or it is larger than any image.
    """
    if isinstance(tree, LocalTree):
        place = tree.path(path)
        if place is None or not place.is_file():
            raise absent(tree.where, path)
        return place.open("rb"), place.stat().st_size
    data = tree.read(path, at_most=MAX_FILE_BYTES)
    return io.BytesIO(data), len(data)


class PlaneReader:
    """Reads images that are a part of a file.

    Archives, and the file that was read last, stay open: the planes of a file are asked for one after the other, and
    each would otherwise cost the walk (or the download) of the whole file.
    """

    def __init__(self, tree: Tree, *, sparse: bool = False) -> None:
        """Keep the tree; nothing is read yet."""
        self._tree = tree
        self._sparse = sparse
        self._archives: dict[str, ZipTree] = {}
        self._pages: tuple[str, TiffPages] | None = None
        self._whole: tuple[str, Image] | None = None

    def read(self, image: ImageRef) -> Image:
        """Return the pixels of an image.

        Raises:
            UnreadableImageError: The file is damaged, has no such plane, or holds something else than grey values.
            TransientError: The storage is away.
        """
        if image.stack:
            return self._projected(image)
        try:
            if image.side_by_side > 1:
                return self._part(image)
            if image.plane is None:
                file, _ = opened(self._tree, image.path)
                with file:
                    return decode_image(file.read(), max_side=MAX_SIDE)
            if PurePosixPath(image.path).suffix.lower() in {".tif", ".tiff"}:
                return self._tiff(image.path).decode(image.plane or 0, max_side=MAX_SIDE)
            holder, folder = self.inside(image.path)
        except ContractError as error:
            raise UnreadableImageError("; ".join(problem.found for problem in error.problems)) from error
        return read_array_plane(holder, folder, image.plane or 0, max_side=MAX_SIDE, sparse=self._sparse)

    def _projected(self, image: ImageRef) -> Image:
        """Return a projection; one plane after the other is read, so that a stack takes the memory of two planes."""
        best = self.read(image.stack[0])
        total = best.astype(np.uint32)
        focus = image_focus(best) if image.projection == "best-focus" else 0.0
        for part in image.stack[1:]:
            plane = self.read(part)
            if plane.shape != best.shape:
                raise UnreadableImageError(f"is a stack of planes of {best.shape} and {plane.shape} pixels")
            if image.projection == "maximum":
                best = np.maximum(best, plane)
            elif image.projection == "mean":
                total += plane
            elif (other := image_focus(plane)) > focus:
                best, focus = plane, other
        if image.projection == "mean":
            count = len(image.stack)
            return np.asarray((total + count // 2) // count, dtype=np.uint16)
        return best

    def close(self) -> None:
        """Close what is open."""
        if self._pages is not None:
            self._pages[1].close()
        for archive in self._archives.values():
            archive.close()
        self._pages, self._whole, self._archives = None, None, {}

    def _tiff(self, path: str) -> TiffPages:
        if self._pages is None or self._pages[0] != path:
            if self._pages is not None:
                self._pages[1].close()
                self._pages = None
            self._pages = (path, TiffPages(*opened(self._tree, path)))
        return self._pages[1]

    def inside(self, path: str) -> tuple[Tree, str]:
        """Return the tree that really holds a path: one that runs through a zip archive lies in the archive.

        Raises:
            ContractError: The archive lies in object storage (its entries cannot be read one by one there), or is none.
        """
        parts = path.split("/")
        for number, part in enumerate(parts):
            if part.lower().endswith(".zip"):
                archive = "/".join(parts[: number + 1])
                if archive not in self._archives:
                    self._archives[archive] = _archive(self._tree, archive)
                return self._archives[archive], "/".join(parts[number + 1 :])
        return self._tree, path

    def _part(self, image: ImageRef) -> Image:
        if self._whole is None or self._whole[0] != image.path:
            self._whole = None
            file, _ = opened(self._tree, image.path)
            with file:
                self._whole = (image.path, decode_image(file.read(), max_side=MAX_SIDE))
        whole, count = self._whole[1], image.side_by_side
        if whole.shape[1] % count:
            raise UnreadableImageError(f"is {whole.shape[1]} pixels wide, which {count} channels do not share evenly")
        width = whole.shape[1] // count
        start = (image.plane or 0) * width
        return np.ascontiguousarray(whole[:, start : start + width])


def _archive(tree: Tree, path: str) -> ZipTree:
    place = tree.path(path) if isinstance(tree, LocalTree) else None
    if place is None:
        raise absent(tree.where, f"{path} as a file of this machine; unpack the archive, or copy it")
    return ZipTree(place, f"{tree.where}/{path}")


def encode_plane(pixels: Image) -> bytes:
    """Return a plane as a TIFF file of one image, in 8 bits where its values fit, compressed without loss."""
    values: NDArray[np.uint8] | Image = pixels.astype(np.uint8) if int(pixels.max(initial=0)) < 256 else pixels
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, values, photometric="minisblack", compression="zstd", rowsperstrip=values.shape[0], metadata=None
    )
    return buffer.getvalue()
