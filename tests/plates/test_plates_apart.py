"""Plates ingested apart, in groups: the same batch as in one piece, each plate once, and found again by its content."""

import json
from itertools import pairwise

import pytest
from batches import deliver
from hypothesis import given
from hypothesis import strategies as st

from coda.contracts.placement import STORES_NAME, StoreReferences
from coda.errors import ConfigError
from coda.plates import batch_ingest as plates_batch
from coda.steps import plates as plates_step
from coda.steps.ingest import ingest
from coda.steps.plates import GROUP_FIELDS, MOST_GROUPS, ingest_group, plan_groups
from coda.storage.clone import object_key
from coda.storage.objects import store_for
from coda.storage.plate_shelf import StoredShelf
from coda.storage.plate_stores import md5_of

STORE = ".ome.zarr.zip"


@pytest.fixture
def services(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def read(monkeypatch):
    """Names of the plates whose images were read, in order."""
    names = []
    original = plates_batch.ingest_plate

    def ingest_plate(files, manifest, plan, *more, **named):
        names.append(plan.entry.plate)
        return original(files, manifest, plan, *more, **named)

    monkeypatch.setattr(plates_batch, "ingest_plate", ingest_plate)
    return names


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(st.lists(st.integers(0, 5 * GROUP_FIELDS), min_size=1, max_size=300))
def test_groups_hold_every_plate_once_and_are_neither_small_nor_many(fields):
    starts = plates_step._divided(fields)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert len(starts) <= MOST_GROUPS
    sums = [sum(fields[first:last]) for first, last in pairwise([*starts, len(fields)])]
    assert all(total >= GROUP_FIELDS for total in sums[:-1])


def test_plates_ingested_apart_make_the_same_batch(
    services, delivered, dataset, small_params, tmp_path, monkeypatch, read
):
    monkeypatch.setattr(plates_step, "GROUP_FIELDS", 1)
    params = small_params()
    groups = plan_groups([delivered.uri], params=params, settings=services)
    assert groups == ["1/2", "2/2"]
    for group in reversed(groups):
        shelf = StoredShelf(services, "r1")
        assert ingest_group([delivered.uri], group, params=params, settings=services, shelf=shelf) == 1
    assert read == ["b1_p2", "b1_p1"]
    ingest([delivered.uri], tmp_path / "out", params=params, settings=services, shelf=StoredShelf(services, "r1"))
    assert len(read) == 2, "a plate was ingested twice"
    whole, apart = files_of(dataset / "lab_a" / "b1"), files_of(tmp_path / "out" / "lab_a" / "b1")
    references = StoreReferences.model_validate_json(apart.pop(STORES_NAME))
    stores = {name for name in whole if name.endswith(STORE)}
    assert apart == {name: data for name, data in whole.items() if name not in stores}
    assert {item.store: (item.md5, item.size_bytes) for item in references.stores} == {
        name: (md5_of(dataset / "lab_a" / "b1" / name), len(whole[name])) for name in stores
    }


def test_a_plate_is_found_by_any_later_run_and_in_a_larger_delivery(services, small_params, tmp_path, read):
    first = deliver(tmp_path / "one", plates=1)
    ingest([first.uri], tmp_path / "a", params=small_params(), settings=services, shelf=StoredShelf(services, "r1"))
    second = deliver(tmp_path / "two", plates=2)
    ingest([second.uri], tmp_path / "b", params=small_params(), settings=services, shelf=StoredShelf(services, "r2"))
    assert read == ["b1_p1", "b1_p2"]
    ingest([second.uri], tmp_path / "b", params=small_params(), settings=services, shelf=StoredShelf(services, "r2"))
    assert len(read) == 2
    # other parameters decide other pixels
    changed = small_params("ingest.plate_high_percentile=99.0")
    ingest([second.uri], tmp_path / "c", params=changed, settings=services, shelf=StoredShelf(services, "r3"))
    assert len(read) == 4


def test_a_plate_that_lacked_files_is_kept_for_its_own_run_alone(services, small_params, tmp_path, read):
    delivery = deliver(tmp_path / "in", sites=3)
    late = delivery.folder / delivery.images()[0]
    data = late.read_bytes()
    late.unlink()

    def fields(run_id, out):
        shelf = StoredShelf(services, run_id)
        (report,) = ingest([delivery.uri], tmp_path / out, params=small_params(), settings=services, shelf=shelf)
        return report.fields_accepted

    assert ingest_group(
        [delivery.uri], "1/1", params=small_params(), settings=services, shelf=StoredShelf(services, "r1")
    ) == 1  # fmt: skip
    assert fields("r1", "a") == 11
    assert len(read) == 1
    late.write_bytes(data)
    assert fields("r2", "b") == 12
    assert fields("r3", "c") == 12
    assert len(read) == 2


@pytest.mark.parametrize("harm", ["record", "store", "table", "no table named", "another plate's record"])
def test_what_was_kept_and_is_not_whole_is_made_again(services, small_params, tmp_path, read, harm):
    delivery = deliver(tmp_path / "in")
    run = {"params": small_params(), "settings": services}
    ingest([delivery.uri], tmp_path / "a", **run, shelf=StoredShelf(services, "r1"))
    expected = files_of(tmp_path / "a")
    platform = store_for(services.platform, services)
    (key,) = [item.key for item in platform.list("plates/") if item.key.endswith("record.json")]
    record = json.loads(platform.get(key))
    if harm == "record":
        platform.put(key, platform.get(key)[:-20])
    elif harm == "store":
        store_for(services.data_remote, services).delete(object_key(record["reference"]["md5"]))
    elif harm == "table":
        platform.put(key.replace("record.json", "index.parquet"), b"PAR1")
    elif harm == "no table named":
        del record["parts"]["index.parquet"]
        platform.put(key, json.dumps(record).encode())
    else:
        record["outcome"]["plate"] = "other"
        platform.put(key, json.dumps(record).encode())
    ingest([delivery.uri], tmp_path / "b", **run, shelf=StoredShelf(services, "r2"))
    assert read == ["b1_p1", "b1_p1"]
    assert files_of(tmp_path / "b") == expected


def test_a_finished_batch_whose_store_was_lost_is_made_again(services, small_params, tmp_path, read):
    delivery = deliver(tmp_path / "in")
    run = {"params": small_params(), "settings": services, "shelf": StoredShelf(services, "r1")}
    ingest([delivery.uri], tmp_path / "a", **run)
    (reference,) = StoreReferences.read(tmp_path / "a" / "lab_a" / "b1" / STORES_NAME).stores
    store_for(services.data_remote, services).delete(object_key(reference.md5))
    ingest([delivery.uri], tmp_path / "a", **run)
    assert read == ["b1_p1", "b1_p1"]
    assert run["shelf"].holds(reference)


@pytest.mark.parametrize("group", ["", "0/1", "1", "a/b", "1/1/1", "-1/2"])
def test_a_group_of_another_form_is_refused(services, delivered, small_params, group):
    with pytest.raises(ConfigError, match="<number>/<groups>"):
        ingest_group(
            [delivered.uri], group, params=small_params(), settings=services, shelf=StoredShelf(services, "r1")
        )
