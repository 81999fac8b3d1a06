"""What is new is what costs: requests are counted, never seconds."""

import json
import threading

import pytest
from conftest_trigger import Cluster, Immediate, deliver, manifest_of

from coda.contracts import BatchManifest
from coda.trigger.awaited import REMEMBERED
from coda.trigger.ledger import Ledger
from coda.trigger.server import TriggerService
from coda.trigger.service import Pace, Trigger

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0)


@pytest.fixture
def make(platform, demo_params):
    def make_trigger(submitter, **more):
        return Trigger(platform.settings, submitter, params=demo_params, **{"pace": FAST, **more})

    return make_trigger


def asked(platform, act, place="landing"):
    """Return what was asked of a bucket while something was done."""
    platform.disk.asked.clear()
    act()
    return [
        (verb, url.removeprefix(f"s3://{place}/"))
        for verb, url in platform.disk.asked
        if url.startswith(f"s3://{place}/")
    ]


def large(files):
    """Return a manifest of one plate with so many images."""
    raw = json.loads(manifest_of("lab_b", "b1").to_json())
    plate = raw["plates"][0]
    image = plate["files"][-1]
    plate["files"] = plate["files"][:-1] + [{**image, "path": f"i/{number:05d}.tif"} for number in range(files)]
    return BatchManifest.parse(json.dumps(raw), "test")


def put_files(platform, manifest, names):
    for name in names:
        platform.landing.put(f"lab_b/b1/{name}", b"abc")


def test_recheck_of_a_batch_with_late_files_costs_two_requests_and_reads_nothing(platform, make):
    manifest = large(3 * REMEMBERED)
    names = [file.path for file in manifest.plates[0].files]
    late = names[100:]
    put_files(platform, manifest, names[:100])
    platform.landing.put("lab_b/b1/manifest.json", manifest.to_json().encode())
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    trigger.run_once()
    for name in late[:-1]:
        platform.landing.put(f"lab_b/b1/{name}", b"abc")
        if name == late[len(late) // 2]:
            recheck = [("HEAD", "in/lab_b/b1/manifest.json"), ("HEAD", f"in/lab_b/b1/{late[-1]}")]
            assert asked(platform, trigger.advance) == recheck
    platform.landing.put(f"lab_b/b1/{late[-1]}", b"ab")
    assert asked(platform, trigger.advance) == recheck
    assert cluster.started == []
    platform.landing.put(f"lab_b/b1/{late[-1]}", b"abc")
    last = asked(platform, trigger.advance)
    # each of the remembered once, then all of them by one listing: what came before may have gone meanwhile
    assert len([verb for verb, _ in last if verb == "HEAD"]) <= REMEMBERED + 2
    assert [key for verb, key in last if verb == "LIST"] == ["in/lab_b/b1/"]
    assert len(cluster.started) == 1


def test_file_that_went_while_others_were_awaited_is_missed_before_the_run(platform, make):
    deliver(platform.landing)
    platform.landing.delete("lab_b/b1/load.csv")
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    trigger.run_once()
    platform.landing.delete("lab_b/b1/map.csv")
    platform.landing.put("lab_b/b1/load.csv", b"abc")
    trigger.advance()
    assert cluster.started == []
    platform.landing.put("lab_b/b1/map.csv", b"abc")
    trigger.advance()
    assert len(cluster.started) == 1


def test_manifest_that_is_replaced_while_files_are_awaited_is_history_at_once(platform, make):
    deliver(platform.landing, files=False)
    trigger = make(Immediate(platform.store))
    trigger.run_once()
    deliver(platform.landing, note=" new", files=False)
    trigger.advance()
    assert [state.state for state in Ledger(platform.store).newest()] == ["refused"]


def test_waiting_for_a_first_release_reads_no_manifest(platform, make):
    (key,) = [key for key in platform.disk.objects if "/releases/" in key]
    release = platform.disk.objects.pop(key)
    for number in range(20):
        deliver(platform.landing, "lab_b", f"b{number:02}")
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    trigger.look()
    assert asked(platform, trigger.advance) == []
    platform.disk.objects[key] = release
    trigger.run_once()
    assert len(cluster.started) == 20


def test_heartbeats_do_not_wait_for_a_look(platform, make, monkeypatch):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    trigger = make(cluster, pace=Pace(backoff_s=0.0, tick_s=0.0, lease_s=0.0))
    trigger.look()
    trigger.advance()
    beaten, slow, end = threading.Event(), threading.Event(), threading.Event()
    beat = Ledger.beat

    def look(**_):
        slow.set()
        assert end.wait(30)

    def beat_once_slow(self, version):
        beat(self, version)
        if slow.is_set():
            beaten.set()

    monkeypatch.setattr(trigger, "look", look)
    monkeypatch.setattr(Ledger, "beat", beat_once_slow)
    service = TriggerService(trigger)
    loop = threading.Thread(target=service.serve)
    loop.start()
    try:
        assert beaten.wait(30), "no sign of life while the look goes on"
    finally:
        end.set()
        service.stop()
        loop.join(30)
    assert not loop.is_alive()


def test_setting_that_a_look_finds_wrong_ends_the_service(platform, make, monkeypatch):
    from coda.errors import ConfigError

    def look(**_):
        raise ConfigError("The store overwrites.")

    trigger = make(Immediate(platform.store))
    monkeypatch.setattr(trigger, "look", look)
    with pytest.raises(ConfigError, match="overwrites"):
        TriggerService(trigger).serve(grace_s=0)
