"""Reading arrays of a tree through zarr, with their metadata held against limits before any pixel is read."""

import json
import math
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from coda.errors import CodaError, ContractError
from coda.plates.image_decoding import MIN_SIDE, Image, UnreadableImageError
from coda.plates.junk import is_junk
from coda.plates.readers.chunk_guard import compression_of, unpacks_within
from coda.plates.tree import Tree, TreeFile, absent, too_large

MAX_METADATA_BYTES = 16 << 20
MAX_CHUNK_BYTES = 1 << 30
MAX_CHUNKS_OF_A_PLANE = 10_000
MAX_ENTRIES = 2_000_000
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class ZipTree:
    """The files in a zip archive of this machine, as a tree of their own."""

    def __init__(self, path: Path, where: str) -> None:
        """Read the directory of the archive.

        Raises:
            ContractError: It is no zip archive, or has too many entries.
        """
        self.where = where
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise absent(where, f"a zip archive ({error})") from error
        entries = [info for info in self._zip.infolist() if not (info.is_dir() or is_junk(info.filename))]
        if len(entries) > MAX_ENTRIES:
            raise too_large(where, "entries", len(entries), MAX_ENTRIES)
        self._entries = {info.filename: info for info in entries}
        self._names = sorted(self._entries)

    def files(self, under: str = "") -> list[TreeFile]:
        """Return the files below a folder of the archive; see `coda.plates.tree.Tree.files`."""
        folder = under.strip("/")
        # '0' is the character behind '/'
        first, last = bisect_left(self._names, f"{folder}/"), bisect_left(self._names, f"{folder}0")
        names = self._names[first:last] if folder else self._names
        return [TreeFile(name, self._entries[name].file_size) for name in names]

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `coda.plates.tree.Tree.read`."""
        info = self._entries.get(path)
        if info is None:
            raise absent(self.where, path)
        try:
            with self._zip.open(info) as file:
                data = file.read(at_most + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise absent(self.where, f"{path} (damaged: {error})") from error
        if len(data) > at_most:
            raise too_large(self.where, path, info.file_size, at_most)
        return data

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


class TreeStore(Store):
    """A folder of a tree as a read-only store of zarr."""

    def __init__(
        self,
        tree: Tree,
        folder: str,
        present: Iterable[str],
        *,
        compression: str | None,
        chunk_bytes: int,
        sparse: bool = False,
    ) -> None:
        """Keep the folder.

        Args:
            tree: The tree that holds it.
            folder: Folder of an array.
            present: Files that are there.
            compression: Compression of its chunks, see `coda.plates.readers.chunk_guard.compression_of`.
            chunk_bytes: Bytes of an unpacked chunk.
            sparse: Whether a chunk (or shard) that is not there is one of nothing but fill values; else it is lost.
        """
        super().__init__(read_only=True)
        self._compression = compression
        self._chunk_bytes = chunk_bytes
        self._tree = tree
        self._folder = folder
        self._present = frozenset(present)
        self._sparse = sparse

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a file, or a part of it; None when there is no such file.

        Raises:
            UnreadableImageError: It is a chunk that did not arrive.
        """
        path = f"{self._folder}/{key}" if self._folder else key
        if path not in self._present:
            if self._sparse or key.rpartition("/")[2] in METADATA:
                return None
            raise UnreadableImageError(f"lacks the chunk {key}: it was not delivered (or never written: --sparse)")
        data = self._tree.read(path, at_most=max(MAX_METADATA_BYTES, self._chunk_bytes + self._chunk_bytes // 8))
        if isinstance(byte_range, RangeByteRequest):
            data = data[byte_range.start : byte_range.end]
        elif isinstance(byte_range, OffsetByteRequest):
            data = data[byte_range.offset :]
        elif isinstance(byte_range, SuffixByteRequest):
            data = data[max(0, len(data) - byte_range.suffix) :]
        # the index of a shard lies at its end and is not packed
        packed = not path.endswith(METADATA) and not isinstance(byte_range, SuffixByteRequest)
        if packed and not unpacks_within(data, self._compression, self._chunk_bytes):
            found = f"has a chunk that unpacks to more than the {self._chunk_bytes} bytes of a chunk"
            raise UnreadableImageError(found)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        return (f"{self._folder}/{key}" if self._folder else key) in self._present

    async def list(self) -> AsyncIterator[str]:
        """Yield all files."""
        for path in sorted(self._present):
            yield path.removeprefix(f"{self._folder}/")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the files that begin with a text."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what lies directly in a folder."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        seen = {key.removeprefix(start).split("/")[0] for key in [item async for item in self.list_prefix(start)]}
        for name in sorted(seen):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse; the store is read-only."""
        raise NotImplementedError(key)

    async def delete(self, key: str) -> None:
        """Refuse; the store is read-only."""
        raise NotImplementedError(key)

    supports_writes = supports_deletes = False
    supports_listing = True

    def __eq__(self, value: object) -> bool:
        return isinstance(value, TreeStore) and (value._tree, value._folder) == (self._tree, self._folder)

    __hash__ = None  # type: ignore[assignment]


def read_json(tree: Tree, path: str) -> dict[str, Any]:
    """Return a metadata document.

    Raises:
        ContractError: There is none.
        UnreadableImageError: It is no JSON object.
    """
    try:
        value = json.loads(tree.read(path, at_most=MAX_METADATA_BYTES))
    except (ValueError, RecursionError) as error:
        raise UnreadableImageError(f"has metadata that is no JSON ({str(error)[:100]})") from error
    if not isinstance(value, dict):
        raise UnreadableImageError("has metadata that is no JSON object")
    return value


def array_document(names: Iterable[str]) -> str | None:
    """Return the name of the document that describes an array, among the names in its folder."""
    present = set(names)
    return next((name for name in ("zarr.json", ".zarray") if name in present), None)


def array_shape(document: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of an array from its metadata, after holding shape, chunks and type against the limits.

    Raises:
        UnreadableImageError: It is no array of 8 or 16-bit counts, or its chunks or sides are absurd.
    """
    chunks = _chunk_shape(document)
    shape, kind = document.get("shape"), document.get("data_type", document.get("dtype"))
    if not (isinstance(shape, list) and isinstance(chunks, list) and _sizes(shape) and _sizes(chunks)
            and len(shape) == len(chunks) and 2 <= len(shape) <= 5):  # fmt: skip
        raise UnreadableImageError(f"has the shape {str(shape)[:60]} in chunks of {str(chunks)[:60]}")
    if kind not in ("uint8", "uint16", "|u1", "<u2", ">u2"):
        raise UnreadableImageError(f"holds values of type {str(kind)[:40]}; expected 8 or 16-bit counts")
    if math.prod(chunks) * 2 > MAX_CHUNK_BYTES:
        raise UnreadableImageError(f"has chunks of {chunks}, more than {MAX_CHUNK_BYTES >> 20} MiB")
    pieces = math.ceil(shape[-2] / chunks[-2]) * math.ceil(shape[-1] / chunks[-1])
    if pieces > MAX_CHUNKS_OF_A_PLANE:
        raise UnreadableImageError(f"has {pieces} chunks in a plane")
    try:
        compression_of(document)
    except ValueError as error:
        raise UnreadableImageError(f"is packed by {error}, which is not read") from error
    return tuple(shape)


def _chunk_shape(document: dict[str, Any]) -> Any:
    grid = document.get("chunk_grid", {"configuration": {"chunk_shape": document.get("chunks")}})
    settings = grid.get("configuration") if isinstance(grid, dict) else None
    return settings.get("chunk_shape") if isinstance(settings, dict) else None


def _chunk_bytes(document: dict[str, Any]) -> int:
    """Return the bytes of an unpacked chunk, after `array_shape` has accepted the metadata."""
    kind = str(document.get("data_type", document.get("dtype")))
    return int(math.prod(_chunk_shape(document))) * (1 if kind in {"uint8", "|u1"} else 2)


def _sizes(value: list[Any]) -> bool:
    return all(type(item) is int and 1 <= item <= 1 << 31 for item in value)


def read_array_plane(tree: Tree, folder: str, plane: int, *, max_side: int, sparse: bool = False) -> Image:
    """Return one plane of an array: the last two axes are height and width, all others together count the planes.

    Args:
        tree: The tree (or the archive) that holds the array's folder.
        folder: Folder of the array.
        plane: Number of the plane, in C order of the leading axes.
        max_side: Largest accepted height or width, in pixels.
        sparse: Whether chunks that were never written stand for the array's fill value.

    Raises:
        UnreadableImageError: There is no such array or plane, a chunk of it is absent, or it cannot be decoded.
        TransientError: The storage is away.
    """
    try:
        present = [file.path for file in tree.files(folder)]
        document = _document(tree, folder, present)
        shape = _plane_shape(document, plane, max_side)
        store = TreeStore(
            tree,
            folder,
            present,
            compression=compression_of(document),
            chunk_bytes=_chunk_bytes(document),
            sparse=sparse,
        )
        array = zarr.open_array(store, mode="r")
        index: Any = tuple(int(number) for number in np.unravel_index(plane, shape[:-2])) if len(shape) > 2 else ()
        pixels = np.asarray(array[index])
    except UnreadableImageError:
        raise
    except ContractError as error:
        raise UnreadableImageError("; ".join(problem.found for problem in error.problems)) from error
    except CodaError:
        raise
    except Exception as error:  # zarr and its codecs raise whatever they like on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UnreadableImageError(f"cannot be decoded ({reason})") from error
    if pixels.shape != shape[-2:]:
        raise UnreadableImageError(f"decodes to shape {pixels.shape}, not the shape of its metadata")
    return np.ascontiguousarray(pixels, dtype=np.uint16)


def _document(tree: Tree, folder: str, present: list[str]) -> dict[str, Any]:
    name = array_document(path.rpartition("/")[2] for path in present if path.rpartition("/")[0] == folder)
    if name is None:
        raise UnreadableImageError("is no array")
    return read_json(tree, f"{folder}/{name}" if folder else name)


def _plane_shape(document: dict[str, Any], plane: int, max_side: int) -> tuple[int, ...]:
    shape = array_shape(document)
    if not all(MIN_SIDE <= side <= max_side for side in shape[-2:]):
        raise UnreadableImageError(f"says it is {shape[-2]} x {shape[-1]} pixels")
    if plane >= math.prod(shape[:-2]):
        raise UnreadableImageError(f"has no plane {plane}")
    return shape
