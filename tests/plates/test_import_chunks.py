"""Chunks of zarr arrays: every codec reads right, and none unpacks to more than its array holds."""

import contextlib

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from instrument_trees import grey

from coda.plates.image_decoding import UnreadableImageError
from coda.plates.readers.chunk_guard import compression_of, unpacks_within
from coda.plates.readers.listing import ImageRef
from coda.plates.readers.planes import PlaneReader
from coda.plates.tree import LocalTree

DATA = np.stack([grey(value, (64, 48)) for value in (11, 22, 33)])
OLD = {
    "none": None, "zstd": numcodecs.Zstd(), "blosc": numcodecs.Blosc(), "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(), "lz4": numcodecs.LZ4(),
}  # fmt: skip
NEW = {
    "none": None, "zstd": zarr.codecs.ZstdCodec(), "blosc": zarr.codecs.BloscCodec(typesize=2),
    "gzip": zarr.codecs.GzipCodec(),
}  # fmt: skip


def write(folder, *, version, codec, chunks=(1, 32, 48), shards=None, data=DATA):
    array = zarr.create_array(
        folder / "p.zarr", shape=data.shape, chunks=chunks, shards=shards, dtype=data.dtype, zarr_format=version,
        compressors=codec, filters=None,
    )  # fmt: skip
    array[:] = data
    return folder


def read(folder, plane):
    with contextlib.closing(PlaneReader(LocalTree(folder))) as reader:
        return reader.read(ImageRef("p.zarr", plane))


CASES = [(2, name) for name in OLD] + [(3, name) for name in NEW]


@pytest.mark.parametrize(("version", "name"), CASES)
def test_every_codec_gives_the_pixels_that_were_written(version, name, tmp_path):
    write(tmp_path, version=version, codec=(OLD if version == 2 else NEW)[name])
    assert np.array_equal(read(tmp_path, 1), DATA[1])


def test_shards_give_the_pixels_that_were_written(tmp_path):
    write(tmp_path, version=3, codec=NEW["blosc"], chunks=(1, 16, 16), shards=(1, 64, 48))
    assert np.array_equal(read(tmp_path, 2), DATA[2])


@pytest.mark.parametrize(("version", "name"), CASES)
def test_a_chunk_that_would_fill_the_memory_is_refused_unpacked(version, name, tmp_path):
    """A chunk of the same codec that holds 32 MiB, in the place of one of 3 KiB."""
    codecs = OLD if version == 2 else NEW
    write(
        tmp_path / "big",
        version=version,
        codec=codecs[name],
        chunks=(1, 4096, 4096),
        data=np.ones((1, 4096, 4096), np.uint16),
    )
    write(tmp_path / "small", version=version, codec=codecs[name])
    chunks = [
        sorted(path for path in (tmp_path / side).rglob("*") if path.is_file() and path.name[0] in "0123456789")
        for side in ("big", "small")
    ]
    chunks[1][0].write_bytes(chunks[0][0].read_bytes())
    with pytest.raises(UnreadableImageError, match=r"unpacks to more|bytes"):
        read(tmp_path / "small", 0)
    assert np.array_equal(read(tmp_path / "small", 2), DATA[2])


@pytest.mark.parametrize("codec", [numcodecs.LZMA(), numcodecs.BZ2()])
def test_a_codec_without_a_limit_is_refused(codec, tmp_path):
    write(tmp_path, version=2, codec=codec)
    with pytest.raises(UnreadableImageError, match="not read"):
        read(tmp_path, 0)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([None, "zstd", "blosc", "gzip", "zlib", "lz4"]), st.integers(0, 1000))
def test_any_bytes_are_judged(data, compression, limit):
    assert unpacks_within(data, compression, limit) in {True, False}


def test_gzip_of_several_parts_is_counted_whole():
    part = bytes(OLD["gzip"].encode(bytes(1000)))
    assert unpacks_within(part * 3, "gzip", 3000)
    assert not unpacks_within(part * 3, "gzip", 2999)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200_000), st.integers(0, 200_000), st.sampled_from(["zstd", "blosc", "gzip", "zlib", "lz4"]))
def test_the_size_that_is_told_is_the_size_that_comes_out(size, limit, name):
    """The oracle is the codec itself."""
    packed = bytes(OLD[name].encode(bytes(size)))
    if size:
        assert unpacks_within(packed, name, limit) == (size <= limit)


keys = st.sampled_from(["codecs", "compressor", "filters", "name", "id", "configuration"])
leaves = st.none() | st.integers() | st.text("zstdblocgip", max_size=6)
documents = st.recursive(leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(keys, part, max_size=4))


@settings(deadline=None, max_examples=60)
@given(documents)
def test_any_metadata_names_a_codec_or_is_refused(value):
    document = value if isinstance(value, dict) else {"codecs": value}
    with contextlib.suppress(ValueError):
        assert compression_of(document) in {None, "zstd", "blosc", "gzip", "zlib", "lz4"}
