"""Ways of preparing images: given functions, a common pixel, images that come prepared, the scratch disk."""

import io
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from batches import deliver, field, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.transform import resize

from coda.contracts import STAINS
from coda.errors import Problem
from coda.plates import work
from coda.plates.compress import percentile
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.reading import read_fields
from coda.plates.scratch import Scratch
from coda.plates.store_reading import read_arrays

SHAPE = (64, 80)


def npy(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def with_functions(delivery, make, stains=STAINS):
    """Add an illumination function for each stain to the delivery's plates."""
    for entry in delivery.manifest["plates"]:
        entry["illumination"] = {}
        for stain in stains:
            path = f"illum/{entry['plate']}_Illum{stain}.npy"
            entry["files"].append({"path": path})
            entry["illumination"][stain] = path
            delivery.put(path, make(stain))
    delivery.write()
    return delivery


def light(stain):
    rows, columns = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    return 1 / (1 - (0.2 + 0.05 * STAINS.index(stain)) * (rows**2 + columns**2) / 2)


def stored(folder):
    """Return image_id -> pixels of a batch folder."""
    index = BatchFolder(folder).index
    pixels = {}
    for store, rows in index.groupby("store"):
        shapes = [(5, row.height, row.width) for row in rows.itertuples()]
        read = read_arrays(folder / str(store), rows["array"].tolist(), shapes)
        pixels |= dict(zip(rows["image_id"], read, strict=True))
    return pixels


def test_a_given_function_is_what_images_are_divided_by(tmp_path, run):
    delivery = with_functions(deliver(tmp_path / "in"), lambda stain: npy(light(stain)))
    report = run(delivery)
    assert report.plates[0].illumination == "given"
    assert report.fields_accepted == 8
    for image_id, pixels in stored(tmp_path / "out" / "lab_a" / "b1").items():
        well, site = image_id.split("/")[3:]
        raw = field(("B02", "B03", "C02", "C03").index(well) * 100 + int(site))
        for channel, stain in enumerate(STAINS):
            even = raw[stain] / light(stain)
            half = resize(even, (32, 40), order=1, mode="reflect", anti_aliasing=True, preserve_range=True)
            low, high = np.percentile(half, (0.05, 99.95))
            difference = np.clip((half - low) / (high - low), 0, 1) * 255 - pixels[channel]
            # the plate's own percentile may cut a little lower than the image's
            assert np.quantile(np.abs(difference), 0.98) <= 3


def test_the_provenance_keeps_where_the_function_came_from(tmp_path, run):
    run(with_functions(deliver(tmp_path / "in"), lambda stain: npy(light(stain).astype(np.float32))))
    with np.load(tmp_path / "out" / "lab_a" / "b1" / "illumination.npz", allow_pickle=False) as kept:
        function = kept["b1_p1/function"]
        assert np.allclose(function[0], resize(light("DNA"), function.shape[1:], anti_aliasing=True), rtol=0.05)


@pytest.mark.parametrize(
    ("change", "stains", "outcome"),
    [("ingest.illumination.prefer_given=false", STAINS, "estimated"), ("seed=0", STAINS[:3], "estimated"),
     ("ingest.illumination.enabled=false", STAINS, "off")],
)  # fmt: skip
def test_functions_are_left_where_they_are_not_wanted_or_not_complete(tmp_path, run, change, stains, outcome):
    report = run(with_functions(deliver(tmp_path / "in"), lambda stain: npy(light(stain)), stains), change)
    assert report.plates[0].illumination == outcome
    assert any("for some stains only" in note for note in report.notes) == (len(stains) < 5)


HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 4000000000), }"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(np.ones((10, 10))), "has the shape 10 x 10"),
        (npy(np.zeros(SHAPE)), "not above 0"),
        (npy(np.full(SHAPE, np.nan)), "not finite"),
        (npy(np.full(SHAPE, np.inf)), "not finite"),
        (npy(np.ones(SHAPE, dtype=np.int64)), "values of type int64"),
        (npy(np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True), "values of type object"),
        (npy(np.ones(SHAPE))[:-8], "no numpy array"),
        (b"no array at all", "no numpy array"),
        (HUGE.ljust(127) + b"\n", "has the shape 4000000000"),
        (npy(np.ones((700, 700))), "bytes"),
    ],
)
def test_a_function_that_cannot_be_used_refuses_its_plate_with_the_reason(tmp_path, run, data, words):
    delivery = with_functions(deliver(tmp_path / "in"), lambda stain: data if stain == "ER" else npy(light(stain)))
    report = run(delivery)
    assert report.plates[0].outcome == "refused"
    (problem,) = report.problems
    assert problem.where == "plate b1_p1, illum/b1_p1_IllumER.npy"
    assert words in problem.found
    assert "illumination function of ER" in problem.expected


def test_a_function_that_was_not_delivered_is_read_when_it_comes(tmp_path, run):
    delivery = with_functions(deliver(tmp_path / "in"), lambda stain: npy(light(stain)))
    place = delivery.folder / "illum" / "b1_p1_IllumER.npy"
    kept = place.read_bytes()
    place.unlink()
    first = run(delivery)
    assert (first.plates[0].outcome, first.delivered) == ("refused", False)
    place.write_bytes(kept)
    assert run(delivery).plates[0].outcome == "accepted"


@pytest.mark.parametrize(("raw_um", "side"), [(0.6, (32, 40)), (0.8, (42, 53)), (1.2, (64, 80))])
def test_a_common_pixel_size_is_reached_from_every_microscope(tmp_path, run, raw_um, side):
    delivery = deliver(tmp_path / "in")
    delivery.manifest["instrument"]["pixel_size_um"] = raw_um
    delivery.write()
    run(delivery, "ingest.pixel_size_um=1.2")
    index = BatchFolder(tmp_path / "out" / "lab_a" / "b1").index
    assert set(zip(index["height"], index["width"], strict=True)) == {side}
    assert index["Metadata_PixelSize_um"].between(1.19, 1.23).all()


def test_pixels_are_never_made_up(tmp_path, run):
    delivery = deliver(tmp_path / "in")
    delivery.manifest["instrument"]["pixel_size_um"] = 1.3
    delivery.write()
    report = run(delivery, "ingest.pixel_size_um=1.2")
    assert report.plates[0].outcome == "refused"
    (problem,) = report.batch_problems
    assert (problem.found, problem.plate) == ("pixels of 1.3 um", "")
    assert "ingest.pixel_size_um to 1.3" in problem.remedy


def prepared(folder):
    """Return a delivery of 8-bit PNG images, as DeepProfiler's `prepare` leaves them."""
    delivery = deliver(folder)
    delivery.manifest["preparation"] = "deepprofiler"
    for path in delivery.images():
        well, site, stain = path.rsplit("/", 1)[1].removesuffix(".tiff").split("_")
        image = field(10 * int(well[1:]) + int(site[1:]))[stain]
        delivery.put(path, bytes(imagecodecs.png_encode((image >> 6).astype(np.uint8))))
    delivery.write()
    return delivery


def test_prepared_images_are_stored_as_they_are(tmp_path, run):
    delivery = prepared(tmp_path / "in")
    report = run(delivery)
    assert (report.plates[0].illumination, report.fields_accepted) == ("prepared", 8)
    for image_id, pixels in stored(tmp_path / "out" / "lab_a" / "b1").items():
        well, site = image_id.split("/")[3:]
        for channel, stain in enumerate(STAINS):
            data = (delivery.folder / f"images/b1_p1/{well}_s{site}_{stain}.tiff").read_bytes()
            assert np.array_equal(pixels[channel], imagecodecs.png_decode(data))
    index = BatchFolder(tmp_path / "out" / "lab_a" / "b1").index
    assert (index["Metadata_PixelSize_um"] == 0.6).all()


def test_sixteen_bits_are_no_prepared_image(tmp_path, run):
    delivery = prepared(tmp_path / "in")
    delivery.put(delivery.images()[0], tiff(field(1)["DNA"]))
    delivery.write()
    report = run(delivery, "quality.plate_quorum=0.5")
    assert "prepared already have 8 bits" in report.quarantined[0].reason
    assert report.fields_accepted == 7


@pytest.mark.parametrize("gib", [0, 0.0001, 40])
def test_the_scratch_disk_changes_nothing_but_the_number_of_readings(
    tmp_path, run, dataset, delivered, monkeypatch, gib
):
    readings = []
    monkeypatch.setattr(work, "read_fields", lambda *args: readings.append(len(args[1])) or read_fields(*args))
    run(delivered, f"ingest.scratch_gib={gib}")
    assert sum(readings) == {0: 32, 0.0001: 28, 40: 16}[gib]
    for name in ("b1_p1.ome.zarr.zip", "b1_p2.ome.zarr.zip", "index.parquet"):
        mine, other = (folder / "lab_a" / "b1" / name for folder in (tmp_path / "out", dataset))
        assert mine.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "out").rglob("*.scratch"))


def test_a_scratch_disk_that_is_full_is_done_without(tmp_path):
    images = list(field(0).values())
    scratch = Scratch(tmp_path / "none", (5, *SHAPE))
    scratch.keep("B02-1", images)
    assert scratch.take("B02-1") is None
    (tmp_path / "none").mkdir()
    scratch.keep("B02-1", images)
    assert scratch.has("B02-1")
    taken = scratch.take("B02-1")
    assert taken is not None
    assert all(np.array_equal(a, b) for a, b in zip(taken, images, strict=True))
    assert scratch.take("B02-1") is None, "what was taken is forgotten"


def test_scratch_of_a_killed_ingest_is_swept_away(tmp_path, run, delivered):
    left = tmp_path / "out" / "lab_a" / "b1" / ".work" / "b1_p1.scratch"
    left.mkdir(parents=True)
    (left / "B02-1.raw").write_bytes(b"of another life")
    assert run(delivered).fields_accepted == 16


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 65535, width=32)),
    st.floats(0, 100),
)
def test_percentiles_are_those_of_numpy(image, percent):
    assert percentile(image, percent) == pytest.approx(float(np.percentile(image.astype(float), percent)), rel=1e-6)


def test_a_chunk_that_is_not_the_indexed_one_is_named(tmp_path, run, delivered):
    run(delivered)
    folder = tmp_path / "out" / "lab_a" / "b1"
    index = pd.read_parquet(folder / "index.parquet")
    index.loc[3, "crc32c"] ^= 1
    index.to_parquet(folder / "index.parquet")
    with pytest.raises(Exception, match="not the ones ingested") as caught:
        load_fields(open_batches(tmp_path / "out"), ("DNA",), 8)
    (problem,) = caught.value.problems
    assert isinstance(problem, Problem)
    assert index.loc[3, "image_id"] in problem.where


def test_the_scratch_disk_leaves_half_of_the_free_space(tmp_path, monkeypatch):
    free = [100, 60, 49, 80]
    monkeypatch.setattr("coda.plates.scratch.shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop(0)))
    scratch = Scratch(tmp_path, (5, *SHAPE), least_free=50)
    for name in "abcd":
        scratch.keep(name, list(field(0).values()))
    assert [scratch.has(name) for name in "abcd"] == [True, True, False, True]


def test_the_height_of_a_given_function_means_nothing(tmp_path, run):
    indexes = []
    for name, height in (("a", 1.0), ("b", 0.25)):
        run(
            with_functions(deliver(tmp_path / name), lambda stain, h=height: npy(light(stain) * h)),
            out=tmp_path / "o" / name,
        )
        indexes.append(BatchFolder(tmp_path / "o" / name / "lab_a" / "b1").index)
    assert indexes[0]["sha256"].tolist() == indexes[1]["sha256"].tolist()
