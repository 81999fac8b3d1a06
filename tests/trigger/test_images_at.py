"""The trigger and manifests whose images lie elsewhere: allowed places alone, and files looked for where they are."""

import pytest
from conftest_trigger import Immediate, manifest_of

from coda.contracts import BatchManifest
from coda.errors import TransientError
from coda.storage import image_places
from coda.trigger.batch_versions import missing_files, read_arrival
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger


def arrive(platform, images_at, *, tables=True):
    """Deliver tables and a manifest that names another place for its one image."""
    manifest = BatchManifest.model_validate(dict(manifest_of("lab_b", "b1")) | {"images_at": images_at})
    for name in ("map.csv", "load.csv") if tables else ():
        platform.landing.put(f"lab_b/b1/{name}", b"abc")
    platform.landing.put("lab_b/b1/manifest.json", manifest.to_json().encode())
    return manifest


def trigger_of(platform, params, roots, cluster):
    settings = platform.settings.model_copy(update={"image_roots": roots})
    return Trigger(settings, cluster, params=params, pace=Pace(backoff_s=0.0, tick_s=0.0, recheck_s=0.0))


def test_a_place_that_is_not_allowed_refuses_the_batch_at_once_and_starts_nothing(platform, demo_params, tmp_path):
    arrive(platform, str(tmp_path))
    cluster = Immediate(platform.store)
    (handled,) = trigger_of(platform, demo_params, "/nowhere", cluster).run_once()
    assert handled.state == "refused"
    assert "found " + str(tmp_path) in " ".join(handled.reasons)
    assert "CODA_IMAGE_ROOTS" in " ".join(handled.reasons)
    assert cluster.requests == []


def test_images_are_looked_for_where_the_manifest_says(platform, demo_params, tmp_path):
    arrive(platform, str(tmp_path))
    # an image beside the manifest is not the one that is meant
    platform.landing.put("lab_b/b1/a b/im+1.tif", b"abc")
    cluster = Immediate(platform.store)
    trigger = trigger_of(platform, demo_params, str(tmp_path), cluster)
    assert trigger.run_once() == []
    (state,) = Ledger(platform.store).newest()
    assert "plate p1: found 1 of 3 files absent (a b/im+1.tif)" in " ".join(state.reasons)
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "im+1.tif").write_bytes(b"abc")
    (handled,) = trigger.run_once()
    assert handled.state == "released"


def test_tables_are_looked_for_beside_the_manifest(platform, tmp_path):
    manifest = arrive(platform, str(tmp_path), tables=False)
    settings = platform.settings.model_copy(update={"image_roots": str(tmp_path)})
    for name in ("map.csv", "load.csv", "a b/im+1.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    arrival = read_arrival(platform.landing, "lab_b/b1/manifest.json", settings)
    missing = missing_files(platform.landing, arrival.version, manifest, settings)
    assert missing.count == 2
    assert "(map.csv, load.csv)" in missing.problems[0].found


def test_another_place_that_is_away_holds_up_this_batch_alone(platform, demo_params, monkeypatch):
    class Away:
        def __init__(self, uri, endpoint=None, *, unsigned=False):
            self.uri = uri

        def list(self, prefix=""):
            raise TransientError("The object store does not answer.")

    monkeypatch.setattr(image_places, "ObjectStore", Away)
    arrive(platform, "s3://scope/plates")
    trigger = trigger_of(platform, demo_params, "s3://scope", Immediate(platform.store))
    assert trigger.run_once() == []
    (state,) = Ledger(platform.store).newest()
    assert state.state == "landed"
    assert "images_at: found The object store does not answer" in " ".join(state.reasons)


@pytest.mark.parametrize("roots", ["s3://scope", "unsigned+s3://scope#https://s3.example.org"])
def test_only_the_folders_of_the_plates_are_listed(platform, monkeypatch, roots):
    listed = []

    class Scope:
        def __init__(self, uri, endpoint=None, *, unsigned=False):
            self.uri, self.endpoint, self.unsigned = uri, endpoint, unsigned

        def list(self, prefix=""):
            listed.append((self.uri, self.endpoint, self.unsigned, prefix))
            return iter(())

    monkeypatch.setattr(image_places, "ObjectStore", Scope)
    manifest = arrive(platform, "s3://scope/huge")
    settings = platform.settings.model_copy(update={"image_roots": roots})
    arrival = read_arrival(platform.landing, "lab_b/b1/manifest.json", settings)
    assert missing_files(platform.landing, arrival.version, manifest, settings).count == 1
    unsigned = roots.startswith("unsigned")
    assert listed == [("s3://scope/huge", "https://s3.example.org" if unsigned else None, unsigned, "a b/")]
