"""The trigger and batches whose plates have file lists: it asks for what is read first, and for no image."""

import json
from collections import Counter

import pytest
from conftest_trigger import HEX, Immediate, manifest_of

from coda.contracts import BatchManifest
from coda.trigger import batch_versions as batches
from coda.trigger.batch_versions import missing_files, read_arrival
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

KEY = "lab_b/b1/manifest.json"


def indexed(count=1, **changes):
    """A manifest of plates of 1,000 images each, which are listed elsewhere."""
    entries = []
    for number in range(1, count + 1):
        tables = [f"{kind}/p{number}.csv" for kind in ("map", "load")]
        entries.append({
            "plate": f"p{number}", "plate_map": tables[0], "load_data": tables[1], "sites_per_well": 1,
            "files": [{"path": path, "size_bytes": 3, "sha256": HEX} for path in tables],
            "file_list": {"path": f"lists/p{number}.parquet", "size_bytes": 3, "sha256": HEX, "rows": 1000},
        })  # fmt: skip
    raw = manifest_of("lab_b", "b1").model_dump(mode="json")
    text = raw | {"schema_version": 2, "plates": entries} | changes
    return BatchManifest.model_validate_json(json.dumps(text))


def arrive(landing, manifest, *, but=()):
    for plate in manifest.plates:
        for path in (*(file.path for file in plate.files), *([plate.file_list.path] if plate.file_list else [])):
            if path not in but:
                landing.put(f"lab_b/b1/{path}", b"abc")
    landing.put(KEY, manifest.to_json().encode())


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store):
        self.store, self.asked = store, Counter()

    def __getattr__(self, name):
        def ask(*words, **options):
            self.asked[(name, *words)] += 1
            return getattr(self.store, name)(*words, **options)

        return ask if name in {"list", "size"} else getattr(self.store, name)


def missing(platform, manifest):
    store = Counting(platform.landing)
    version = read_arrival(platform.landing, KEY, platform.settings).version
    return missing_files(store, version, manifest, platform.settings), store.asked


def test_no_image_is_asked_for_and_no_folder_of_images_is_listed(platform):
    manifest = indexed(5)
    arrive(platform.landing, manifest)
    for number in range(100):
        platform.landing.put(f"lab_b/b1/images/{number}.tiff", b"abc")
    lacking, asked = missing(platform, manifest)
    assert not lacking
    assert asked == {("list", f"lab_b/b1/{folder}/"): 1 for folder in ("lists", "load", "map")}


def test_a_batch_starts_without_its_images_and_waits_for_its_lists(platform, demo_params):
    manifest = indexed(2)
    arrive(platform.landing, manifest, but=["lists/p2.parquet"])
    cluster = Immediate(platform.store)
    pace = Pace(backoff_s=0.0, tick_s=0.0, recheck_s=0.0)
    trigger = Trigger(platform.settings, cluster, params=demo_params, pace=pace)
    assert trigger.run_once() == []
    (state,) = Ledger(platform.store).newest()
    assert "plate p2: found 1 of 3 files absent (lists/p2.parquet)" in " ".join(state.reasons)
    platform.landing.put("lab_b/b1/lists/p2.parquet", b"longer than it says")
    assert trigger.run_once() == []
    platform.landing.put("lab_b/b1/lists/p2.parquet", b"abc")
    (handled,) = trigger.run_once()
    assert handled.state == "released"


@pytest.mark.parametrize("absent", [(), ("lists/p1.parquet", "map/p3.csv")])
def test_tables_among_many_images_are_asked_for_one_by_one(platform, monkeypatch, absent):
    monkeypatch.setattr(batches, "MOST_LISTED", 3)
    manifest = indexed(3)
    arrive(platform.landing, manifest, but=absent)
    for number in range(10):
        platform.landing.put(f"lab_b/b1/map/{number}.tiff", b"abc")
    lacking, asked = missing(platform, manifest)
    assert lacking.count == len(absent)
    assert sum(count for (name, *_), count in asked.items() if name == "list") == 3
    assert 0 < sum(count for (name, *_), count in asked.items() if name == "size") <= 9


def test_images_elsewhere_are_left_to_ingest_and_tables_are_not(platform, tmp_path):
    manifest = indexed(images_at=str(tmp_path))
    arrive(platform.landing, manifest)
    platform.settings = platform.settings.model_copy(update={"image_roots": str(tmp_path)})
    assert missing(platform, manifest)[0].count == 0
    platform.landing.delete("lab_b/b1/load/p1.csv")
    assert missing(platform, manifest)[0].count == 1


def test_plates_that_list_their_files_are_looked_at_as_before(platform):
    inline = manifest_of("lab_b", "b1").plates[0].model_dump(mode="json")
    plates = [*(plate.model_dump(mode="json") for plate in indexed().plates), {**inline, "plate": "p0"}]
    manifest = indexed(plates=plates)
    arrive(platform.landing, manifest, but=["a b/im+1.tif"])
    lacking, asked = missing(platform, manifest)
    assert [problem.where for problem in lacking.problems] == ["plate p0"]
    assert asked == {("list", "lab_b/b1/"): 1}
