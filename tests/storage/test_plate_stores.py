"""Plate stores in the data store: the same pixels as on a disk, few requests, and damage told."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Moto

from coda.contracts.placement import StoreReference
from coda.errors import IntegrityError
from coda.plates.store import PlateStoreWriter, StoredField, checksum, encode
from coda.plates.store_reading import StoreFile
from coda.plates.stored import Place, StoredFields
from coda.settings import Settings
from coda.storage.clone import object_key
from coda.storage.objects import ObjectStore
from coda.storage.plate_stores import TAIL_BYTES, DataObject, DataStore

STAINS = ("DNA", "AGP")
SHAPE = (2, 24, 20)


@pytest.fixture
def services(moto_server: Moto, tmp_path: Path) -> Settings:
    return moto_server.settings(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Ranges that were asked of the object store, in order."""
    spans: list[tuple[int, int]] = []
    original = ObjectStore.get

    def get(self: ObjectStore, key: str, **how: object) -> bytes:
        spans.append(how["span"])  # type: ignore[arg-type]
        return original(self, key, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "get", get)
    return spans


def make_store(folder: Path, fields: int, seed: int = 0) -> tuple[Path, list[np.ndarray], list[Place]]:
    rng = np.random.default_rng(seed)
    path, images, places = folder / "p1.ome.zarr.zip", [], []
    folder.mkdir(parents=True, exist_ok=True)
    with PlateStoreWriter(path, "p1", 384, STAINS, (1.0, 1.0), {"ingest": {}}) as writer:
        for number in range(fields):
            pixels = rng.integers(0, 255, SHAPE, dtype=np.uint8)
            chunk = encode(pixels)
            array = writer.add(StoredField((number // 9 // 24, number // 9 % 24), number % 9 + 1, SHAPE, chunk))
            images.append(pixels)
            places.append(Place(path, array, SHAPE, STAINS, "", checksum(chunk), f"f{number}"))
    return path, images, places


def remote(places: list[Place], at: DataObject) -> StoredFields:
    there = tuple(dataclasses.replace(place, store=at) for place in places)
    return StoredFields(there, pd.DataFrame({"image_id": [place.image_id for place in places]}), STAINS, 20)


def test_pixels_are_those_of_the_disk_with_one_request_a_field(services, asked, tmp_path: Path) -> None:
    path, _images, places = make_store(tmp_path / "a", 60)
    data = DataStore(services)
    reference = data.keep(path)
    assert reference.size_bytes == path.stat().st_size > TAIL_BYTES
    here = StoredFields(tuple(places), remote(places, data.at(reference)).table, STAINS, 20)
    fields = remote(places, data.at(reference))
    assert np.array_equal(fields.read(range(60), threads=4), here.read(range(60), threads=1))
    before = len(asked)
    assert before <= 60 + 3
    assert sum(length for _, length in asked) < 1.35 * path.stat().st_size
    assert StoreFile(data.at(reference)).document("zarr.json")
    assert len(asked) <= before + 1, "the directory of a store is held by its address"


def test_what_is_kept_is_fetched_once_and_leaves_nothing(services, asked, tmp_path: Path) -> None:
    path, images, places = make_store(tmp_path / "a", 20)
    data = DataStore(services)
    kept = remote(places, data.at(data.keep(path))).kept_in(tmp_path / "kept")
    for _ in range(3):
        for row in (3, 7, 3, 19):
            assert np.array_equal(kept.read_one(row), images[row][:, 2:22])
    fields = [span for span in asked if span[0] < path.stat().st_size - TAIL_BYTES]
    assert len(fields) <= 3
    assert list((tmp_path / "kept").iterdir()) == [], "a killed process would leave gigabytes"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(start=st.integers(0, 3 * TAIL_BYTES), length=st.integers(1, 2 * TAIL_BYTES))
def test_any_range_is_the_file_s(moto_server: Moto, tmp_path: Path, start: int, length: int) -> None:
    services, path = moto_server.settings(tmp_path), tmp_path / "any.ome.zarr.zip"
    content = np.random.default_rng(1).bytes(2 * TAIL_BYTES + 123)
    path.write_bytes(content)
    data = DataStore(services)
    at = data.at(data.keep(path))
    assert at.range(start, length) == content[start : start + length]
    source, buffer = at.open(None), bytearray(length)
    count = source.read_into(memoryview(buffer), start)
    assert bytes(buffer[:count]) == content[start : start + length]


@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_a_lost_or_changed_store_is_told_and_never_used(services, tmp_path: Path, harm: str) -> None:
    path, _, places = make_store(tmp_path / "a", 40)
    data = DataStore(services)
    reference = data.keep(path)
    store = ObjectStore(services.data_remote, services.s3_endpoint)
    key = object_key(reference.md5)
    if harm == "gone":
        store.delete(key)
    elif harm == "cut":
        store.put(key, path.read_bytes()[: reference.size_bytes // 2])
    else:
        store.put(key, make_store(tmp_path / "b", 40, seed=1)[0].read_bytes()[: reference.size_bytes])
    with pytest.raises(IntegrityError) as caught:
        remote(places, data.at(reference)).read(range(40), threads=2)
    assert "p1.ome.zarr.zip at s3://" in str(caught.value)
    assert data.holds(reference) is (harm == "other")


def test_a_store_is_sent_once(services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, _ = make_store(tmp_path / "a", 3)
    sent: list[str] = []
    original = ObjectStore.upload
    monkeypatch.setattr(
        ObjectStore, "upload", lambda self, file, key, kind="": (sent.append(key), original(self, file, key, kind))[1]
    )
    data = DataStore(services)
    first = data.keep(path)
    assert data.keep(path) == first == StoreReference(store=path.name, md5=first.md5, size_bytes=path.stat().st_size)
    assert sent == [object_key(first.md5)]


def test_a_store_behind_a_network_is_read_by_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for an answer needs no core: with one a core, reading would be bound by the latency."""
    monkeypatch.setattr("coda.plates.stored.os.cpu_count", lambda: 2)
    reference = StoreReference(store="plate.ome.zarr.zip", md5="0" * 32, size_bytes=1)
    elsewhere = DataObject(ObjectStore("s3://bucket/dvc", "http://127.0.0.1:1"), reference)
    for store, readers in ((Path("plate.zip"), 2), (elsewhere, 16)):
        place = Place(store, "A/1/0", (1, 4, 4), ("DNA",), "", 0, "a")
        assert StoredFields((place,), pd.DataFrame({"image_id": ["a"]}), ("DNA",), 4).readers == readers
