"""Decoding of image files that are sound, damaged, or hostile."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from batches import tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.plates.image_decoding import UnreadableImageError, decode_image

IMAGE = np.random.default_rng(0).integers(0, 4000, (48, 56)).astype(np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "packbits"},
        {"tile": (16, 16), "compression": "lzw"},
        {"rowsperstrip": 7},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zstd"},
    ],
)
def test_lossless_tiffs_come_back_as_they_were(options):
    decoded = decode_image(tiff(IMAGE, **options), max_side=100)
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, IMAGE)


def test_eight_bit_values_keep_their_scale():
    small = (IMAGE % 251).astype(np.uint8)
    assert np.array_equal(decode_image(tiff(small), max_side=100), small)
    assert np.array_equal(decode_image(bytes(imagecodecs.png_encode(small)), max_side=100), small)
    assert np.array_equal(decode_image(bytes(imagecodecs.png_encode(IMAGE)), max_side=100), IMAGE)


def pages():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(IMAGE)
        writer.write(IMAGE)
    return buffer.getvalue()


def patched_tiff(tag, value):
    """A sound TIFF whose header says something else in one tag."""
    data = bytearray(tiff(IMAGE, rowsperstrip=48))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        found = file.pages[0].tags[tag]
        size = {3: 2, 4: 4}[int(found.dtype)]
        data[found.valueoffset : found.valueoffset + size] = value.to_bytes(size, "little")
    return bytes(data)


def png_bomb(side):
    """A PNG of few bytes that says it is `side` pixels wide and high."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "neither TIFF nor PNG, but text"),
        (b"\xff\xd8\xff\xe0" + b"\1" * 99, "neither TIFF nor PNG, but a JPEG"),
        (b"<!DOCTYPE html><html>Sign in</html>", "neither TIFF nor PNG, but an HTML or XML page"),
        (b"\0" * 900, "begins with zeros"),
        (b"\xbe\xc3\xb1czw\x9b\xec" * 9, "neither TIFF nor PNG; its beginning may be damaged"),
        (b"II*\0" + b"\xff" * 40, "cannot be decoded"),
        (tiff(IMAGE)[:-500], "truncated"),
        (pages(), "several images"),
        (tiff(IMAGE.astype(np.float32)), "floating-point"),
        (tiff(IMAGE.astype(np.int16)), "signed"),
        (tiff(IMAGE.astype(np.uint32)), "32-bit"),
        (tiff(np.dstack([IMAGE] * 3).astype(np.uint8), photometric="rgb"), "3 samples"),
        (tiff(IMAGE[:8, :8]), "8 x 8 pixels"),
        (tiff(np.zeros((16, 101), np.uint16)), "16 x 101 pixels"),
        (patched_tiff("ImageWidth", 2_000_000_000), "2000000000"),
        (patched_tiff("ImageLength", 96), "strips"),
        (patched_tiff("StripOffsets", 10**6), "truncated"),
        (patched_tiff("Compression", 7), "compressed by method 7"),
        (png_bomb(60_000), "60000 x 60000"),
        (png_bomb(80), "cannot be decoded"),
        (bytes(imagecodecs.png_encode(IMAGE))[:-200], "truncated"),
        (bytes(imagecodecs.png_encode(np.dstack([IMAGE] * 3))), "colour type 2"),
    ],
)
def test_what_is_no_single_grey_image_is_refused_with_its_reason(data, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(data, max_side=100)


def test_a_deflate_bomb_does_not_unpack_beyond_the_image():
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    data = bytearray(tiff(IMAGE, compression="zlib", rowsperstrip=48))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = file.pages[0].tags
        offset, count = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    data[offset : offset + 4] = len(data).to_bytes(4, "little")
    data[count : count + 4] = len(bomb).to_bytes(4, "little")
    try:
        pixels = decode_image(bytes(data) + bomb, max_side=100)
    except UnreadableImageError:
        return
    assert pixels.shape == IMAGE.shape


SOUND = [tiff(IMAGE), tiff(IMAGE, compression="lzw"), tiff(IMAGE, compression="zlib", tile=(16, 16)),
         bytes(imagecodecs.png_encode(IMAGE))]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sound=st.sampled_from(SOUND),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    head=st.booleans(),
)
def test_any_damage_gives_an_image_of_plausible_shape_or_a_reason(sound, cut, flips, head):
    data = bytearray(sound[: max(1, int(len(sound) * cut))] if cut < 0.9 else sound)
    reach = min(len(data), 200) if head else len(data)
    for place, value in flips:
        data[int(place * reach)] = value
    try:
        pixels = decode_image(bytes(data), max_side=100)
    except UnreadableImageError:
        return
    assert pixels.dtype == np.uint16
    assert 16 <= min(pixels.shape) <= max(pixels.shape) <= 100
