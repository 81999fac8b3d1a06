"""The store of a million objects against what S3 says of listings, and against the project's own client."""

import hashlib
import io
import os

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale import crowd
from benchmarks.scale.crowded_store import Bucket
from coda.contracts import BatchManifest
from coda.storage.objects import store_for

KEYS = st.lists(st.text("ab/ü", min_size=1, max_size=6), unique=True, max_size=30)


def listed(bucket, prefix, delimiter, most):
    """All keys and folders, page by page."""
    keys, folders, token, pages = [], [], "", 0
    while True:
        some, others, token = bucket.page(prefix, delimiter, token, most)
        assert len(some) + len(others) <= most
        keys += some
        folders += others
        pages += 1
        assert pages < 100
        if not token:
            return keys, folders


@given(KEYS, st.text("ab/ü", max_size=3), st.sampled_from(["", "/"]), st.integers(1, 5))
def test_pages_are_the_listing_of_s3(keys, prefix, delimiter, most):
    bucket = Bucket()
    for key in keys:
        bucket.put(key, key.encode())
    below = sorted(key for key in keys if key.startswith(prefix))
    inside = {key for key in below if delimiter and delimiter in key[len(prefix) :]}
    folders = sorted({prefix + key[len(prefix) :].split("/")[0] + "/" for key in inside})
    assert listed(bucket, prefix, delimiter, most) == ([key for key in below if key not in inside], folders)


@given(KEYS, st.data())
def test_what_is_deleted_is_listed_no_more(keys, data):
    bucket = Bucket()
    bucket.load([[key, None, 7] for key in keys])
    gone = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    for key in gone:
        bucket.delete(key)
    assert listed(bucket, "", "", 3)[0] == sorted(set(keys) - set(gone))


@pytest.fixture
def environment():
    """What the benchmark changes of this process's environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_store_answers_the_projects_client_and_counts_what_it_asks(environment):
    with crowd.crowded_store() as endpoint:
        settings = crowd.settings_at(endpoint)
        landing, platform = store_for(settings.landing, settings), store_for(settings.platform, settings)
        objects = [(f"lab/b{number}/images/{place}.tiff", None, place) for number in range(3) for place in range(700)]
        assert crowd.load(endpoint, crowd.LANDING, [*objects, ("lab/b1/manifest.json", '{"ü": 1}', 0)]) == 2101
        crowd.counts(endpoint)
        assert {item.key: item.size for item in landing.list()} == {
            **{key: size for key, _, size in objects}, "lab/b1/manifest.json": len('{"ü": 1}'.encode()),
        }  # fmt: skip
        counted = crowd.counts(endpoint)
        assert counted.pop("bytes") > 2100 * 100
        assert counted == {"LIST": 3}
        assert landing.get("lab/b1/manifest.json") == '{"ü": 1}'.encode()
        assert landing.get("lab/b0/images/9.tiff") == bytes(9)
        assert sorted(landing.folders("lab/")) == ["b0", "b1", "b2"]
        assert landing.size("lab/b2/images/699.tiff") == 699
        assert landing.find("lab/none") is None
        assert platform.put_if_absent("claim", b"first")
        assert not platform.put_if_absent("claim", b"second")
        platform.put("claim2", b"x" * 100)
        assert platform.get("claim") == b"first"
        platform.delete("claim")
        assert not platform.exists("claim")
        assert [item.key for item in platform.list()] == ["claim2"]


def test_a_small_batch_is_one_that_the_trigger_takes(environment):
    version, objects = crowd.small_batch(7)
    assert len(objects) == crowd.BATCH_OBJECTS
    assert version.key == objects[0][0] == f"{version.source}/{version.batch}/manifest.json"
    assert len({key for key, _, _ in objects}) == len(objects)


def test_a_large_batch_names_every_image_in_the_list_of_its_plate():
    batch = crowd.large_batch(2)
    manifest = BatchManifest.parse(batch.manifest.to_json(), "manifest.json")
    assert manifest == batch.manifest
    assert [plate.file_count for plate in manifest.plates] == [17_282, 17_282]
    listed = []
    for plate in manifest.plates:
        body = batch.lists[plate.file_list.path]
        assert hashlib.sha256(body).hexdigest() == plate.file_list.sha256
        listed += pq.read_table(io.BytesIO(body)).column("path").to_pylist()
    assert listed == batch.images
    assert len(set(listed)) == 2 * 17_280
    assert len(list(batch.objects())) == 2 * 17_282


def test_a_single_large_plate_lists_its_images_itself():
    batch = crowd.large_batch(1)
    assert batch.lists == {}
    assert len(batch.manifest.plates[0].files) == 17_282


def test_a_look_at_known_batches_costs_the_pages_of_the_prefix(environment):
    from benchmarks.scale.parts_of_years import measure_looks

    found = measure_looks(300, 5)
    assert (found["objects"], found["versions"]) == (300, 5)
    assert found["states"][0].startswith("released")
    assert 0 < found["then"]["look"]["requests"] <= found["first"]["look"]["requests"]
    # whatever a round reads at first, it reads no version again that came to its end
    assert found["then"]["round"]["requests"] < 5
    assert found["peak_bytes"] > 2**20
