"""The declared size of a compressed chunk, read from its first bytes before anything is unpacked.

A few kilobytes can stand for gigabytes. The formats that zarr arrays use say the unpacked size in their header (or can
be unpacked piece by piece up to a limit); a chunk that says more than its array's chunks hold is refused.
"""

import struct
import zlib
from typing import Any

CODECS = {"blosc", "zstd", "gzip", "zlib", "lz4"}
"""Compressions that are read, as the metadata of zarr 2 and zarr 3 call them."""

HARMLESS = {"bytes", "endian", "crc32c", "transpose", "sharding_indexed", "delta", "shuffle"}

_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20


def compression_of(document: dict[str, Any]) -> str | None:
    """Return the compression of an array from its metadata, of either version; None when its chunks are not packed.

    Raises:
        ValueError: It has a compression or filter that is not read; the text is its name.
    """
    if "codecs" not in document:
        packed, filters = document.get("compressor"), document.get("filters") or []
        names = [item.get("id") if isinstance(item, dict) else item for item in [*_list(filters), packed] if item]
    else:
        names = list(_names(_list(document["codecs"]), depth=0))
    unknown = [str(name)[:40] for name in names if name not in (*CODECS, *HARMLESS)]
    if unknown:
        raise ValueError(unknown[0])
    packing = [str(name) for name in names if name in tuple(CODECS)]
    if len(packing) > 1:
        raise ValueError(" and ".join(packing)[:80])
    return packing[0] if packing else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _names(codecs: list[Any], depth: int) -> list[Any]:
    found: list[Any] = []
    for item in codecs:
        name = item.get("name") if isinstance(item, dict) else item
        found.append(name)
        settings = item.get("configuration") if isinstance(item, dict) else None
        if name == "sharding_indexed" and isinstance(settings, dict) and depth == 0:
            found += _names(_list(settings.get("codecs")), depth=1)
    return found


def unpacks_within(data: bytes, compression: str | None, limit: int) -> bool:
    """Return whether packed bytes unpack to at most a number of bytes.

    Args:
        data: One packed chunk.
        compression: What `compression_of` says of its array.
        limit: Bytes that a chunk of the array holds.
    """
    if compression == "blosc":
        return len(data) < 16 or int(struct.unpack("<I", data[4:8])[0]) <= limit
    if compression == "lz4":
        return len(data) < 4 or int(struct.unpack("<I", data[:4])[0]) <= limit
    if compression == "zstd":
        size = _zstd_size(data)
        return size is not None and size <= limit
    if compression in {"gzip", "zlib"}:
        return _inflates_within(data, 31 if compression == "gzip" else 15, limit)
    return len(data) <= limit + 64


def _zstd_size(data: bytes) -> int | None:
    """Return the size that the header of a zstd frame says; None where it says none, as no writer of zarr does."""
    if not data.startswith(_ZSTD) or len(data) < 6:
        return 0  # no frame at all: the codec will say so
    descriptor = data[4]
    single = bool(descriptor & 0x20)
    kind = descriptor >> 6
    width = {0: 1 if single else 0, 1: 2, 2: 4, 3: 8}[kind]
    if width == 0:
        return None
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if width == 2 else size


def _inflates_within(data: bytes, kind: int, limit: int) -> bool:
    """Unpack piece by piece, keeping nothing, until the end or the limit."""
    machine = zlib.decompressobj(kind)
    total, rest = 0, data
    try:
        while rest:
            if machine.eof:  # gzip may be several in a row
                machine = zlib.decompressobj(kind)
            total += len(machine.decompress(rest, _BLOCK))
            rest = machine.unused_data if machine.eof else machine.unconsumed_tail
            if total > limit:
                return False
    except zlib.error:
        return True  # damaged: the codec will say so
    return True
