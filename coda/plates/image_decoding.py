"""Decoding one image file in memory, distrusting every byte of it.

Dimensions and counts are read from the header and held against limits before any pixel is decoded, so that a small
file cannot ask for a large memory; a file that ends early is refused, never filled up with zeros.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

Image = NDArray[np.uint16]

MIN_SIDE = 16
"""Smallest accepted side, in pixels: less holds no cell, and the quality statistics need it."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LZW = 5
COMPRESSIONS = {1: "none", LZW: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "Zstandard"}
"""TIFF compressions that are read; all of them lossless."""

KNOWN_KINDS = {
    b"\xff\xd8\xff": "a JPEG, which is not lossless", b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file", b"<": "an HTML or XML page", b"BM": "a BMP picture", b"GIF8": "a GIF picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
}  # fmt: skip
"""First bytes of files that are taken for images by mistake -> what they are."""

_MALFORMED = (
    tifffile.TiffFileError, ValueError, TypeError, KeyError,
    IndexError, AttributeError, ArithmeticError, EOFError, OSError, RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
"""What the decoders raise on bytes that are not what they seem; codec errors derive from RuntimeError."""


class UnreadableImageError(ValueError):
    """This file is no image that can be used; the text is the reason, as a part of a sentence."""


@contextmanager
def _distrusting() -> Iterator[None]:
    try:
        yield
    except UnreadableImageError:
        raise
    except _MALFORMED as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UnreadableImageError(f"cannot be decoded ({told})") from error


def decode_image(data: bytes, *, max_side: int) -> Image:
    """Decode a single-channel 8 or 16-bit TIFF, or an 8 or 16-bit grey PNG.

    Args:
        data: The whole file.
        max_side: Largest accepted height or width, in pixels.

    Returns:
        Grey values, uint16, shape (height, width), C order; 8-bit values stay as they are (0 to 255).

    Raises:
        UnreadableImageError: The bytes are no such image, are truncated, or have absurd dimensions.
    """
    if not data:
        raise UnreadableImageError("is empty (0 bytes)")
    if data.startswith(PNG_MAGIC):
        return _decode_png(data, max_side)
    if data.startswith(TIFF_MAGICS):
        return _decode_tiff(data, max_side)
    raise UnreadableImageError(f"is neither TIFF nor PNG{_likely_kind(data)}")


class TiffPages:
    """The images of a TIFF of several, each decoded when it is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read the header.

        Raises:
            UnreadableImageError: It is no TIFF.
        """
        self._file = file
        self._size = size
        try:
            with _distrusting():
                self._tiff = tifffile.TiffFile(file)
        except UnreadableImageError:
            file.close()
            raise

    def decode(self, number: int, *, max_side: int) -> Image:
        """Return the grey values of an image, as `decode_image` does.

        Args:
            number: Number of the image, from 0.
            max_side: Largest accepted height or width, in pixels.

        Raises:
            UnreadableImageError: There is no such image, or it is none that can be used.
        """
        with _distrusting():
            page = _full_page(self._tiff, number)
            _check_page(page, max_side, self._size)
            pixels = page.asarray()
        return _as_said(pixels, page)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()
        self._file.close()


def _likely_kind(data: bytes) -> str:
    """Return what a file that is no image of ours seems to be, in terms that its sender can recognise."""
    for magic, kind in KNOWN_KINDS.items():
        if data.startswith(magic):
            return f", but {kind}"
    if not any(data[:512]):
        return "; it begins with zeros, as a file does whose copying broke off"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:64]):
        return ", but text"
    return "; its beginning may be damaged"


def _check_sides(height: int, width: int, max_side: int) -> None:
    if not (MIN_SIDE <= height <= max_side and MIN_SIDE <= width <= max_side):
        sides = f"sides of {MIN_SIDE} to {max_side} are accepted"
        raise UnreadableImageError(f"says it is {height} x {width} pixels; {sides}")


def _png_header(data: bytes, max_side: int) -> tuple[int, int]:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImageError("is a PNG without a header")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    _check_sides(height, width, max_side)
    if colour != 0 or bits not in {8, 16}:
        raise UnreadableImageError(f"is a PNG of colour type {colour} with {bits} bits; expected grey with 8 or 16")
    return height, width


def _decode_png(data: bytes, max_side: int) -> Image:
    height, width = _png_header(data, max_side)
    if b"IEND" not in data[-12:]:
        raise UnreadableImageError("is a PNG that ends early (truncated)")
    with _distrusting():
        pixels = np.asarray(imagecodecs.png_decode(data))
    if pixels.shape != (height, width):
        raise UnreadableImageError(f"decodes to shape {pixels.shape}, not the {height} x {width} of its header")
    return np.ascontiguousarray(pixels, dtype=np.uint16)


def _decode_tiff(data: bytes, max_side: int) -> Image:
    with _distrusting(), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_page(file)
        _check_page(page, max_side, len(data))
        pixels = _pixels(page, data)
    return _as_said(pixels, page)


def _as_said(pixels: NDArray[np.generic], page: tifffile.TiffPage) -> Image:
    if pixels.shape != (page.imagelength, page.imagewidth):
        raise UnreadableImageError(f"decodes to shape {pixels.shape}, not the shape of its header")
    return np.ascontiguousarray(pixels, dtype=np.uint16)


def _pixels(page: tifffile.TiffPage, data: bytes) -> NDArray[np.generic]:
    """Decode a page that was checked: LZW by libtiff, which is half as fast again as tifffile with imagecodecs."""
    if int(page.compression) == LZW:
        return np.asarray(imagecodecs.tiff_decode(data))
    return page.asarray()


def _full_page(file: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    try:
        page = file.pages.get(number)
    except IndexError as error:
        raise UnreadableImageError(f"has no image {number}") from error
    if not isinstance(page, tifffile.TiffPage):
        raise UnreadableImageError(f"has no image {number}")
    return page


def _only_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    page = file.pages.first
    if not isinstance(page, tifffile.TiffPage):
        raise UnreadableImageError("is a TIFF without an image")
    try:
        file.pages.get(1)
    except IndexError:
        return page
    raise UnreadableImageError("is a TIFF of several images; expected one image a file")


def _check_page(page: tifffile.TiffPage, max_side: int, size: int) -> None:
    """Refuse a page before its pixels are decoded: sides, type, codec, and strips that lie beyond the file's end."""
    _check_sides(page.imagelength, page.imagewidth, max_side)
    if page.samplesperpixel != 1 or page.imagedepth != 1:
        raise UnreadableImageError(f"has {page.samplesperpixel} samples a pixel; expected one grey value")
    if page.dtype is None or page.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise UnreadableImageError(f"holds {page.bitspersample}-bit {_kind(page)} values; expected 8 or 16-bit counts")
    if int(page.compression) not in COMPRESSIONS:
        known = ", ".join(sorted(set(COMPRESSIONS.values())))
        raise UnreadableImageError(f"is compressed by method {int(page.compression)}; accepted are {known}")
    if page.tilelength > 2 * max_side or page.tilewidth > 2 * max_side:
        raise UnreadableImageError(f"has tiles of {page.tilelength} x {page.tilewidth} pixels")
    rows, columns = page.chunks[-3:-1] if len(page.chunks) >= 3 else page.chunks
    wanted = -(-page.imagelength // max(1, rows)) * -(-page.imagewidth // max(1, columns))
    if not len(page.dataoffsets) == len(page.databytecounts) == wanted:
        raise UnreadableImageError(f"lists {len(page.dataoffsets)} strips or tiles of pixels; expected {wanted}")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count <= 0 or offset <= 0 or offset + count > size:
            raise UnreadableImageError("ends before its pixels do (truncated)")


def _kind(page: tifffile.TiffPage) -> str:
    return {2: "signed", 3: "floating-point"}.get(int(page.sampleformat), "unsigned")
