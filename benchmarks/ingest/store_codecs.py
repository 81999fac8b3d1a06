"""Codecs and chunk shapes for the plate store, and what the way in costs beside the codec that was chosen."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks.ingest.ingest_stages import TICK_S
from coda.plates.store import CRC_BYTES
from coda.plates.store_reading import StoreFile
from coda.plates.stored import StoredFields

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class CodecRow:
    """One way to keep a field.

    Attributes:
        codec: Name and options.
        chunks: 'field' (one chunk) or 'stain' (one chunk a stain).
        threads: Threads of the codec.
        size: Encoded bytes over pixels.
        encode_mb_s: Pixels encoded a second, in MB (10**6 bytes).
        decode_mb_s: Pixels decoded a second.
        decode_three_mb_s: The same when three of five stains are wanted, in MB of wanted pixels.
    """

    codec: str
    chunks: str
    threads: int
    size: float
    encode_mb_s: float
    decode_mb_s: float
    decode_three_mb_s: float


def codec_table(fields: Sequence[Pixels], *, threads: int, turns: int = 3) -> list[CodecRow]:
    """Measure codecs on fields as they are stored, (channels, height, width); the best of some turns counts.

    Args:
        fields: Pixels.
        threads: Threads for the rows with more than one.
        turns: Times everything is measured.
    """
    rows = []
    for name, options in _blosc():
        for chunks in ("field", "stain"):
            rows += [_measured(name, chunks, 1, fields, turns, *_coders(options, 1))]
        if threads > 1:
            rows += [_measured(name, "field", threads, fields, turns, *_coders(options, threads))]
    png = lambda data: bytes(imagecodecs.png_encode(data, level=6))  # noqa: E731
    rows.append(_measured("PNG, level 6", "stain", 1, fields, turns, png, imagecodecs.png_decode))
    return rows


def _blosc() -> Iterator[tuple[str, dict[str, Any]]]:
    for compressor, level in (("lz4", 5), ("lz4", 9), ("zstd", 1), ("zstd", 5)):
        for shuffle in ("noshuffle", "bitshuffle"):
            yield (
                f"blosc {compressor}, level {level}, {shuffle}",
                {
                    "compressor": compressor,
                    "level": level,
                    "shuffle": shuffle,
                    "typesize": 1,
                },
            )


def _coders(options: dict[str, Any], threads: int) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    def encode(data: Any) -> bytes:
        return bytes(imagecodecs.blosc_encode(np.ascontiguousarray(data).tobytes(), numthreads=threads, **options))

    return encode, lambda chunk: imagecodecs.blosc_decode(chunk, numthreads=threads)


def _measured(
    codec: str,
    chunks: str,
    threads: int,
    fields: Sequence[Pixels],
    turns: int,
    encode: Callable[[Any], bytes],
    decode: Callable[[bytes], Any],
) -> CodecRow:
    parts = [[field] if chunks == "field" else list(field) for field in fields]
    encoded = [[encode(part) for part in field] for field in parts]
    pixels = sum(field.nbytes for field in fields)
    three = pixels * 3 / len(fields[0])
    # a chunk of all stains has to be decoded whole for three of them
    few = encoded if chunks == "field" else [field[:3] for field in encoded]
    return CodecRow(
        codec,
        chunks,
        threads,
        sum(len(chunk) for field in encoded for chunk in field) / pixels,
        pixels / 1e6 / _best(lambda: [[encode(part) for part in field] for field in parts], turns, threads),
        pixels / 1e6 / _best(lambda: [[decode(chunk) for chunk in field] for field in encoded], turns, threads),
        three / 1e6 / _best(lambda: [[decode(chunk) for chunk in field] for field in few], turns, threads),
    )


def _best(work: Callable[[], object], turns: int, threads: int) -> float:
    """Return seconds: CPU time of one thread, which other programs hardly touch; wall time of several."""
    clock = time.process_time if threads == 1 else time.perf_counter
    spent = []
    for _ in range(turns):
        begin = clock()
        work()
        spent.append(clock() - begin)
    return max(min(spent), TICK_S)


@dataclass(frozen=True)
class LoadTimes:
    """CPU seconds to have all stored fields of a plate in memory, turn by turn.

    Attributes:
        codec: The codec alone, on chunks that are in memory.
        ours: `StoredFields.read`, with every checksum verified, in one thread.
        zarr: zarr-python, array by array.
        fields: Fields that were loaded.
        pixel_bytes: Bytes of all their pixels.
    """

    codec: tuple[float, ...]
    ours: tuple[float, ...]
    zarr: tuple[float, ...]
    fields: int
    pixel_bytes: int

    @property
    def over_codec(self) -> float:
        """Our time over that of the codec alone, each at its best turn."""
        return min(self.ours) / min(self.codec)

    @property
    def zarr_over_codec(self) -> float:
        """Zarr's time over that of the codec alone, each at its best turn."""
        return min(self.zarr) / min(self.codec)


def load_times(stored: StoredFields, *, turns: int) -> LoadTimes:
    """Measure how long the fields of plate stores take to load, each way in turn.

    Args:
        stored: Fields; every stain whole, so that all ways do the same work.
        turns: Times each way is measured.
    """
    paths = list(dict.fromkeys(place.store for place in stored.places if isinstance(place.store, Path)))
    files: dict[object, StoreFile] = {path: StoreFile(path) for path in paths}
    # as the codec wants them: without the checksum behind
    chunks = [
        files[place.store].document(f"{place.array}/c/0/0/0", at_most=2**30)[:-CRC_BYTES] for place in stored.places
    ]
    spent: dict[str, list[float]] = {"codec": [], "ours": [], "zarr": []}
    with ExitStack() as opened:
        stores: dict[object, Any] = {path: opened.enter_context(_zarr(path)) for path in paths}
        ways: dict[str, Callable[[], object]] = {
            "codec": lambda: _decoded(chunks, stored.shape[1:]),
            "ours": lambda: stored.read(range(len(stored)), threads=1),
            "zarr": lambda: _by_zarr(stored, stores),
        }
        for _ in range(turns + 1):  # the first turn warms caches
            for name, work in ways.items():
                begin = time.process_time()
                work()
                spent[name].append(max(time.process_time() - begin, TICK_S))
    kept = {name: tuple(values[1:]) for name, values in spent.items()}
    return LoadTimes(kept["codec"], kept["ours"], kept["zarr"], len(stored), math.prod(stored.shape))


@contextmanager
def _zarr(path: Path) -> Iterator[Any]:
    store = zarr.storage.ZipStore(path, mode="r")
    try:
        yield zarr.open_group(store, mode="r")
    finally:
        store.close()


def _by_zarr(stored: StoredFields, stores: Mapping[object, Any]) -> Pixels:
    images = np.zeros(stored.shape, dtype=np.uint8)
    for place, image in zip(stored.places, images, strict=True):
        image[:] = stores[place.store][place.array][:]
    return images


def _decoded(chunks: Sequence[bytes], shape: tuple[int, ...]) -> Pixels:
    """Decode into one array, which any way of loading has to fill."""
    images = np.zeros((len(chunks), *shape), dtype=np.uint8)
    for chunk, image in zip(chunks, images, strict=True):
        target: Any = image.reshape(-1)
        imagecodecs.blosc_decode(chunk, numthreads=1, out=target)
    return images
