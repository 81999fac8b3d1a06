"""The plate store as other people's tools see it, and the way back into memory."""

import hashlib
import json
import zipfile

import numpy as np
import ome_zarr_models
import pandas as pd
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Plate, Reader
from zarr.storage import ZipStore

from coda.contracts import STAINS, QualityReport
from coda.errors import ConfigError, IntegrityError
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.store import PlateStoreWriter, StoredField, decode, encode
from coda.plates.store_reading import read_arrays


@pytest.fixture
def folder(dataset):
    return dataset / "lab_a" / "b1"


def zipped(path):
    return zarr.open_group(ZipStore(path, mode="r"), mode="r")


def test_zarr_alone_reads_every_field_with_the_recorded_digest(folder):
    index = pd.read_parquet(folder / "index.parquet")
    for store, rows in index.groupby("store"):
        group = zipped(folder / store)
        for row in rows.itertuples():
            array = group[row.array]
            assert array.shape == array.chunks == (5, row.height, row.width)
            assert hashlib.sha256(array[:].tobytes()).hexdigest() == row.sha256
            assert array.metadata.dimension_names == ("c", "y", "x")


def test_the_ome_models_accept_plate_well_and_image(folder):
    group = zipped(folder / "b1_p1.ome.zarr.zip")
    plate = ome_zarr_models.open_ome_zarr(group)
    assert type(plate).__name__ == "HCS"
    assert plate.attributes.ome.version == "0.5"
    assert [well.path for well in plate.attributes.ome.plate.wells] == ["B/2", "B/3", "C/2", "C/3"]
    assert type(ome_zarr_models.open_ome_zarr(group["B/2"])).__name__ == "Well"
    image = ome_zarr_models.open_ome_zarr(group["B/2/1"])
    assert type(image).__name__ == "Image"
    scale = group["B/2/1"].attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [1.0, 1.2, 1.2]
    assert [c["label"] for c in group["B/2/1"].attrs["ome"]["omero"]["channels"]] == list(STAINS)


def test_provenance_says_what_the_store_was_made_from(folder):
    coda = dict(zipped(folder / "b1_p1.ome.zarr.zip").attrs)["coda"]
    ingest = json.loads((folder / "ingest.json").read_text())
    assert coda["manifest_digest"] == ingest["manifest_digest"]
    assert coda["content_key"] == ingest["plates"][0]["content_key"]
    assert coda["ingest"]["scaling_factor"] == 0.5
    assert coda["illumination"]["fields"] == 8


def test_the_reader_of_ome_zarr_shows_the_plate(folder, tmp_path):
    with zipfile.ZipFile(folder / "b1_p1.ome.zarr.zip") as store:
        store.extractall(tmp_path)
    node = next(iter(Reader(parse_url(tmp_path))()))
    assert any(isinstance(spec, Plate) for spec in node.specs)
    stitched = node.data[0]
    assert stitched.shape == (5, 8 * 32, 12 * 40)
    first = np.asarray(stitched[:, 32:64, 40:80])
    index = pd.read_parquet(folder / "index.parquet")
    assert hashlib.sha256(first.tobytes()).hexdigest() == index["sha256"].iloc[0]


def test_chunks_round_trip_and_foreign_bytes_are_refused():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 30)).astype(np.uint8)
    assert np.array_equal(decode(encode(pixels), (3, 20, 30)), pixels)
    for chunk in (b"", b"\2\1\1\1" + b"\xff" * 12, encode(pixels)[:-40], encode(pixels)[:8]):
        with pytest.raises(ValueError, match="chunk"):
            decode(chunk, (3, 20, 30))


def test_a_store_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "p.ome.zarr.zip"

    def write(*, fail):
        with PlateStoreWriter(path, "p", 96, ("DNA",), (1.0, 1.0), {}) as writer:
            writer.add(StoredField((0, 0), 1, (1, 16, 16), encode(np.ones((1, 16, 16), np.uint8))))
            assert not path.exists()
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fail=True)
    assert list(tmp_path.iterdir()) == []
    write(fail=False)
    assert [item.name for item in tmp_path.iterdir()] == ["p.ome.zarr.zip"]
    first = path.read_bytes()
    path.unlink()
    write(fail=False)
    assert path.read_bytes() == first


def test_fields_come_back_in_the_order_of_the_index_with_the_channels_asked_for(dataset, folder):
    index = pd.read_parquet(folder / "index.parquet")
    fields = load_fields(open_batches(dataset), ("Mito", "DNA"), 16)
    assert fields.images.shape == (16, 2, 16, 16)
    assert fields.table["image_id"].tolist() == index["image_id"].tolist()
    assert not [name for name in fields.table.columns if name.startswith("QC_")]
    for number in (0, 9, 15):
        whole = zipped(folder / index["store"][number])[index["array"][number]][:]
        assert np.array_equal(fields.images[number, 0], whole[4, 8:24, 12:28])
        assert np.array_equal(fields.images[number, 1], whole[0, 8:24, 12:28])


def test_small_fields_are_padded_with_zeros_around_them(dataset, folder):
    fields = load_fields(open_batches(dataset), ("DNA",), 50)
    index = pd.read_parquet(folder / "index.parquet")
    whole = zipped(folder / index["store"][0])[index["array"][0]][0]
    assert np.array_equal(fields.images[0, 0, 9:41, 5:45], whole)
    assert fields.images[0, 0].sum(dtype=int) == whole.sum(dtype=int)


def test_batches_come_in_the_order_asked_for_and_an_empty_folder_has_none(dataset, tmp_path):
    (batch,) = open_batches(dataset)
    twice = load_fields([batch, batch], ("DNA",), 8)
    assert len(twice) == 32
    assert np.array_equal(twice.images[:16], twice.images[16:])
    assert open_batches(tmp_path) == []
    assert len(load_fields([], ("DNA",), 8)) == 0
    assert batch.batch_id == "lab_a/b1"
    assert len(batch.wells) == 8


def judged(batch, **changes):
    values = {
        "source": "lab_a", "batch": "b1", "manifest_digest": batch.ingest.manifest_digest, "suite_version": "v1",
        "verdict": "accepted_with_warnings", "sentence": "", "fields_expected": 16, "fields_accepted": 8,
        "plates_accepted": ("b1_p1",), "plates_refused": ("b1_p2",),
    }  # fmt: skip
    return QualityReport(**(values | changes))


def test_refused_plates_and_batches_are_not_loaded(dataset, folder, tmp_path):
    import shutil

    shutil.copytree(dataset, tmp_path / "d")
    place = tmp_path / "d/lab_a/b1"
    batch = BatchFolder(place)
    judged(batch).write(place / "quality.json")
    fields = load_fields(open_batches(tmp_path / "d"), ("DNA",), 8)
    assert set(fields.table["Metadata_Plate"]) == {"b1_p1"}
    judged(batch, verdict="refused").write(place / "quality.json")
    assert len(load_fields(open_batches(tmp_path / "d"), ("DNA",), 8)) == 0


def test_changed_pixels_are_an_integrity_error(dataset, folder, tmp_path):
    place = tmp_path / "lab_a" / "b1"
    place.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            (place / path.name).write_bytes(path.read_bytes())
    store = place / "b1_p2.ome.zarr.zip"
    index = pd.read_parquet(place / "index.parquet")
    row = index[index["store"] == store.name].iloc[3]
    other = PlateStoreWriter(store, "b1_p2", 96, STAINS, (1.2, 1.2), {})
    with other as writer:
        for item in index[index["store"] == store.name].itertuples():
            shape = (5, item.height, item.width)
            pixels = next(iter(read_arrays(folder / store.name, [item.array], [shape]))).copy()
            if item.image_id == row["image_id"]:
                pixels[2, 5, 5] ^= 1
            line, column = item.array.split("/")[:2]
            writer.add(StoredField((ord(line) - 65, int(column) - 1), item.Metadata_Site, shape, encode(pixels)))
    with pytest.raises(IntegrityError) as caught:
        load_fields(open_batches(tmp_path), ("DNA",), 8)
    assert row["image_id"] in caught.value.problems[0].where
    store.write_bytes(store.read_bytes()[:-30])
    with pytest.raises(IntegrityError, match="damaged"):
        load_fields(open_batches(tmp_path), ("DNA",), 8)
    store.unlink()
    with pytest.raises(IntegrityError):
        load_fields(open_batches(tmp_path), ("DNA",), 8)


def test_a_stain_that_was_not_stored_is_told(dataset):
    with pytest.raises(ConfigError, match="lacks channels") as caught:
        load_fields(open_batches(dataset), ("DNA", "Actin"), 8)
    assert "Actin" in caught.value.problems[0].expected
