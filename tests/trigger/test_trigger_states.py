"""What the trigger does with what arrives and with how runs end."""

import json
import unicodedata
from datetime import timedelta

import pytest
from conftest_trigger import Cluster, Immediate, deliver, manifest_of

from coda.errors import ConfigError, Problem, ServiceRefusedError, TransientError
from coda.trigger.interventions import retry
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0)


@pytest.fixture
def make(platform, demo_params):
    def make_trigger(submitter, **more):
        return Trigger(platform.settings, submitter, params=demo_params, **{"pace": FAST, **more})

    return make_trigger


def words(platform, source="lab_b"):
    return [state.state for entry in Ledger(platform.store).entries(source) for state in entry.states]


def test_complete_batch_is_run_once_and_its_end_is_written_down(platform, make):
    digest = deliver(platform.landing).digest()
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    (handled,) = trigger.run_once()
    assert (handled.source, handled.batch, handled.state, handled.digest) == ("lab_b", "b1", "released", digest)
    assert words(platform) == ["landed", "claimed", "running", "released"]
    (request,) = cluster.requests
    assert request.run_id == f"adapt-lab_b-b1-{digest[:16]}"
    assert request.manifest_uri == "s3://landing/in/lab_b/b1/manifest.json"
    assert request.manifest_digest == digest
    assert trigger.run_once() == []
    assert make(cluster).run_once() == []
    assert len(cluster.started) == 1


@pytest.mark.parametrize("outcome", ["incumbent_kept", "held", "refused"])
def test_every_end_of_a_run_is_final(platform, make, outcome):
    deliver(platform.landing)
    (handled,) = make(Immediate(platform.store, outcome)).run_once()
    assert (handled.state, handled.reasons) == (outcome, ("It ended.",))


def test_changed_manifest_is_a_new_version_and_the_same_again_is_not(platform, make):
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    deliver(platform.landing)
    trigger.run_once()
    deliver(platform.landing, note=" serviced")
    assert len(trigger.run_once()) == 1
    deliver(platform.landing)
    assert trigger.run_once() == []
    assert len(set(cluster.started)) == len(cluster.started) == 2


def test_incomplete_batch_waits_with_the_missing_files_named(platform, make):
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    deliver(platform.landing, files=False)
    platform.landing.put("lab_b/b1/map.csv", b"ab")
    assert trigger.run_once() == []
    (state,) = Ledger(platform.store).newest()
    assert state.state == "landed"
    text = " ".join(state.reasons)
    assert "waits for 3 file(s)" in text
    assert "plate p1: found 2 of 3 files absent (load.csv, a b/im+1.tif)" in text
    assert "1 of 3 files with another size (map.csv has 2 bytes instead of 3)" in text
    deliver(platform.landing, manifest=False)
    (handled,) = trigger.run_once()
    assert handled.state == "released"


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(("said", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_of_a_mac_are_found_by_names_in_the_other_form(platform, make, tmp_path, said, stored, elsewhere):
    said, stored = (unicodedata.normalize(form, "Größe/é ö.tif") for form in (said, stored))
    manifest = json.loads(manifest_of("lab_b", "b1").to_json().replace("a b/im+1.tif", said))
    tables = ("map.csv", "load.csv")
    if elsewhere:
        manifest["images_at"] = str(tmp_path)
        platform.settings = platform.settings.model_copy(update={"image_roots": str(tmp_path)})
    for name in tables:
        platform.landing.put(f"lab_b/b1/{name}", b"abc")

    def put(name):
        if elsewhere:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"abc")
        else:
            platform.landing.put(f"lab_b/b1/{name}", b"abc")

    looks_alike = unicodedata.normalize("NFC", stored).replace("é", "e\u0301")
    put(stored)
    put(looks_alike)
    platform.landing.put("lab_b/b1/manifest.json", json.dumps(manifest).encode())
    assert make(Immediate(platform.store)).run_once() == []
    (state,) = Ledger(platform.store).newest()
    text = " ".join(state.reasons)
    assert "1 of 3 files absent" in text
    assert f"'{looks_alike}' (neither NFC nor NFD)" in text
    if elsewhere:
        (tmp_path / looks_alike).unlink()
    else:
        platform.landing.delete(f"lab_b/b1/{looks_alike}")
    (handled,) = make(Immediate(platform.store)).run_once()
    assert handled.state == "released"


def test_batch_whose_files_never_come_is_judged_as_it_is_and_the_ledger_says_so(platform, make):
    cluster = Immediate(platform.store, "refused")
    deliver(platform.landing, files=False)
    platform.landing.put("lab_b/b1/map.csv", b"abc")
    assert make(cluster).run_once() == []
    (handled,) = make(cluster, pace=Pace(patience_s=0.0, tick_s=0.0)).run_once()
    assert handled.state == "refused"
    (entry,) = Ledger(platform.store).entries("lab_b")
    (claimed,) = [state for state in entry.states if state.state == "claimed"]
    assert "2 file(s) of the manifest did not come within 0 s; what is there is judged as it is" in claimed.reasons[0]
    assert "plate p1: found 2 of 3 files absent (load.csv, a b/im+1.tif)" in claimed.reasons[1]


def test_plate_of_which_nothing_came_is_named_in_one_line(platform, make):
    deliver(platform.landing, files=False)
    make(Immediate(platform.store)).run_once()
    (state,) = Ledger(platform.store).newest()
    assert len(state.reasons) == 2
    assert "plate p1: found none of its 3 files" in state.reasons[1]


def test_files_without_a_manifest_start_nothing(platform, make):
    deliver(platform.landing, manifest=False)
    cluster = Immediate(platform.store)
    assert make(cluster).run_once() == []
    assert words(platform) == []


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("lab_b/b1/manifest.json", b"{", "not JSON"),
        ("lab_b/b1/manifest.json", b"\xff\xfe", "not JSON"),
        ("lab_b/b1/manifest.json", b"[]", "schema_version"),
        ("lab_b/b1/manifest.json", b"[" * 200_000, "not JSON"),
        ("lab_b/b1/manifest.json", b'{"plates": ' + b"9" * 10_000 + b"}", "not JSON"),
        ("lab_b/b1/manifest.json", b'{"source": "lab_b"}', "a value in this field"),
        ("lab_b/b2/manifest.json", None, "'b2', as in its key"),
        ("lab_b/deeper/b1/manifest.json", None, "<source>/<batch>/manifest.json"),
        ("manifest.json", None, "<source>/<batch>/manifest.json"),
        ("lab b/b1/manifest.json", None, "<source>/<batch>/manifest.json"),
    ],
)
def test_unusable_manifest_is_refused_with_reasons_until_it_changes(platform, make, key, body, said):
    good = manifest_of("lab_b", "b1")
    platform.landing.put(key, good.to_json().encode() if body is None else body)
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    (handled,) = trigger.run_once()
    assert handled.state == "refused"
    assert said in " ".join(handled.reasons)
    assert trigger.run_once() == make(cluster).run_once() == []
    assert cluster.requests == []
    deliver(platform.landing)
    (handled,) = trigger.run_once()
    assert (handled.batch, handled.state) == ("b1", "released")


def test_huge_manifest_is_refused_unread(platform, make, monkeypatch):
    monkeypatch.setattr("coda.trigger.batch_versions.MAX_MANIFEST_BYTES", 100)
    deliver(platform.landing)
    (handled,) = make(Immediate(platform.store)).run_once()
    assert handled.state == "refused"
    assert "at most 100" in handled.reasons[0]


def test_training_source_and_ignored_sources_start_nothing(platform, make):
    for source in ("lab_a", "lab_c", "lab_b"):
        deliver(platform.landing, source)
    handled = make(Immediate(platform.store), ignore_sources=["lab_c"]).run_once()
    assert [item.source for item in handled] == ["lab_b"]


def test_batches_wait_for_the_first_release(platform, make):
    (key,) = [key for key in platform.disk.objects if "/releases/" in key]
    release = platform.disk.objects.pop(key)
    cluster = Immediate(platform.store)
    trigger = make(cluster)
    deliver(platform.landing, "lab_a")
    deliver(platform.landing, "lab_b")
    assert trigger.run_once() == []
    platform.disk.objects[key] = release
    assert [item.source for item in trigger.run_once()] == ["lab_b"]
    assert [request.run_id.split("-")[1] for request in cluster.requests] == ["lab_b"]


def test_replaced_manifest_of_a_waiting_batch_is_history(platform, make):
    trigger = make(Immediate(platform.store))
    deliver(platform.landing, files=False)
    trigger.run_once()
    deliver(platform.landing, note=" new")
    assert sorted(item.state for item in trigger.run_once()) == ["refused", "released"]


def test_a_run_that_was_started_ends_as_itself_though_its_manifest_was_replaced(platform, make):
    # it may have released already: only the run knows
    digest = deliver(platform.landing).digest()
    cluster = Immediate(platform.store, "vanished")
    trigger = make(cluster)
    trigger.look()
    trigger.advance()
    deliver(platform.landing, note=" new")
    assert sorted(item.state for item in trigger.run_once()) == ["released", "released"]
    assert [request.manifest_digest for request in cluster.requests].count(digest) == 2


def test_transient_failures_are_tried_again_within_the_limit(platform, make):
    deliver(platform.landing)
    cluster = Immediate(platform.store, "transient", "vanished", "released")
    (handled,) = make(cluster).run_once()
    assert handled.state == "released"
    assert len(cluster.started) == 3
    deliver(platform.landing, batch="b2")
    (handled,) = make(Immediate(platform.store, *["transient"] * 9)).run_once()
    assert handled.state == "failed"
    assert "It broke." in handled.reasons[0]
    assert "tried 3 times; held for a person" in handled.reasons


def test_lasting_failure_is_not_tried_again_until_a_person_asks(platform, make):
    deliver(platform.landing)
    cluster = Immediate(platform.store, "lasting")
    trigger = make(cluster)
    (handled,) = trigger.run_once()
    assert handled.state == "failed"
    assert trigger.run_once() == []
    (state,) = trigger.ledger.newest()
    assert retry(trigger.ledger, state, "Ada") is not None
    assert retry(trigger.ledger, state, "Bob") is None
    (handled,) = trigger.run_once()
    assert handled.state == "released"
    assert len(set(cluster.started)) == 1


def test_delivery_that_a_step_cannot_read_is_refused_and_no_failure(platform, make):
    deliver(platform.landing)
    trigger = make(Immediate(platform.store, "unusable"))
    (handled,) = trigger.run_once()
    assert (handled.state, handled.reasons) == ("refused", ("It broke.",))
    assert trigger.metrics.registry.get_sample_value("coda_trigger_dead_letters") == 0
    assert trigger.run_once() == []


def test_end_of_a_run_that_cannot_be_read_now_is_read_at_the_next_look(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    trigger = make(cluster)
    trigger.look()
    trigger.advance()
    (run_id,) = cluster.live
    cluster.end(run_id)
    platform.disk.countdown, platform.disk.how = 0, "away-before"
    with pytest.raises(TransientError):
        trigger.advance()
    trigger.advance()
    assert words(platform)[-1] == "released"


def test_submitter_that_is_away_loses_nothing(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    cluster.away = True
    trigger = make(cluster)
    with pytest.raises(TransientError, match="cannot be submitted"):
        trigger.run_once()
    (state,) = trigger.ledger.newest()
    assert (state.state, state.attempt) == ("landed", 0)
    assert "could not be submitted: Kubeflow is away." in state.reasons
    cluster.away = False
    trigger.advance()
    assert [state.state for state in trigger.ledger.newest()] == ["running"]


def test_submitter_that_is_not_configured_is_for_the_operator_and_says_nothing_of_the_batch(platform, make):
    class Unconfigured(Cluster):
        def submit(self, request):
            raise ConfigError("Kubeflow Pipelines is not configured.")

    deliver(platform.landing)
    with pytest.raises(ConfigError, match="not configured"):
        make(Unconfigured(platform.store)).run_once()
    assert words(platform)[-1] == "landed"
    (handled,) = make(Immediate(platform.store)).run_once()
    assert handled.state == "released"


def test_submitter_that_refuses_gives_the_batch_back_untried_and_is_not_asked_again(platform, make):
    class Refusing(Cluster):
        refuses = True

        def submit(self, request):
            if self.refuses:
                self.requests.append(request)
                problem = Problem("http://kfp", "a sign-in page", "the API", "Give CODA_KFP_TOKEN.")
                raise ServiceRefusedError("Kubeflow answers with a sign-in page.", [problem])
            super().submit(request)

    deliver(platform.landing)
    cluster = Refusing(platform.store)
    trigger = make(cluster)
    with pytest.raises(ServiceRefusedError, match="sign-in page"):
        trigger.run_once()
    assert len(cluster.requests) == 1
    (state,) = trigger.ledger.newest()
    assert (state.state, state.attempt, state.lost) == ("landed", 0, 0)
    assert state.reasons[0] == "Kubeflow answers with a sign-in page."
    assert "Give CODA_KFP_TOKEN." in state.reasons[1]
    # the operator acts: what was refused after a real attempt has used up that one alone
    cluster.refuses = False
    trigger.advance()
    cluster.end(state.run_id, "transient")
    trigger.advance()
    assert [(state.state, state.attempt) for state in trigger.ledger.newest()] == [("running", 2)]
    cluster.end(state.run_id, "transient")
    cluster.refuses = True
    with pytest.raises(ServiceRefusedError):
        trigger.advance()
    assert [(state.state, state.attempt) for state in trigger.ledger.newest()] == [("landed", 2)]
    cluster.refuses = False
    trigger.advance()
    assert [(state.state, state.attempt) for state in trigger.ledger.newest()] == [("running", 3)]


def test_one_run_a_source_and_so_many_in_all(platform, make):
    for source in ("lab_b", "lab_c", "lab_d"):
        for batch in ("b1", "b2"):
            deliver(platform.landing, source, batch)
    cluster = Cluster(platform.store)
    trigger = make(cluster, pace=Pace(parallel=2, backoff_s=0, tick_s=0))
    trigger.look()
    order = []
    for _ in range(40):
        trigger.advance()
        sources = [run_id.split("-")[1] for run_id in cluster.live]
        assert len(sources) == len(set(sources)) <= 2
        if cluster.live:
            order.append(sorted(cluster.live)[0])
            cluster.end(order[-1])
    assert len(order) == len(set(order)) == 6


def test_run_of_a_dead_trigger_is_taken_over_after_the_lease_and_not_before(platform, make, monkeypatch):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    first = make(cluster)
    first.look()
    first.advance()
    second = make(cluster)
    second.look()
    second.advance()
    assert second.ledger.entries()[0].last.owner == first.ledger.owner
    monkeypatch.setattr(Ledger, "silence", lambda self, state: timedelta(seconds=61))
    second.advance()
    last = second.ledger.entries()[0].last
    assert (last.state, last.owner) == ("running", second.ledger.owner)
    assert last.reasons == (f"taken over from {first.ledger.owner}",)
    cluster.end(last.run_id)
    second.advance()
    first.advance()
    assert words(platform)[-1] == "released"
    assert words(platform).count("released") == 1
    assert len(cluster.started) == 1


def test_a_look_that_finds_a_dead_run_stays_for_its_next_try(platform, make):
    """Found by killing the demo: started again, it gave up because the run was to be tried again only in seconds."""
    deliver(platform.landing)
    first = make(Cluster(platform.store))
    first.look()
    first.advance()
    (handled,) = make(Immediate(platform.store), pace=Pace(backoff_s=0.01, tick_s=0.0, lease_s=0.0)).run_once()
    assert handled.state == "released"


def test_heartbeats_keep_a_long_run_with_its_trigger(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    pace = Pace(lease_s=0.0, tick_s=0, backoff_s=0)
    trigger = make(cluster, pace=pace)
    trigger.look()
    trigger.advance()
    (state,) = trigger.ledger.newest()
    before = trigger.ledger.silence(state)
    trigger.advance()
    assert trigger.ledger.silence(state) < before + timedelta(seconds=1)
    assert any(key.endswith("heartbeat.json") for key in platform.disk.objects)


def test_stopped_trigger_gives_its_runs_back_at_once(platform, make):
    class Mortal(Cluster):
        def stop(self, grace_s):
            ended, self.live = frozenset(self.live), set()
            return ended

    deliver(platform.landing)
    cluster = Mortal(platform.store)
    trigger = make(cluster)
    trigger.look()
    trigger.advance()
    trigger.stop(0)
    (state,) = trigger.ledger.newest()
    assert (state.state, state.attempt) == ("landed", 0)
    (handled,) = make(Immediate(platform.store)).run_once()
    assert handled.state == "released"


def test_metrics_tell_what_happened(platform, make):
    deliver(platform.landing)
    platform.landing.put("lab_b/b2/manifest.json", b"{")
    trigger = make(Immediate(platform.store, "lasting"))
    trigger.run_once()
    trigger.run_once()
    value = trigger.metrics.registry.get_sample_value
    assert value("coda_trigger_events_total", {"outcome": "claimed"}) == 1
    assert value("coda_trigger_events_total", {"outcome": "invalid"}) == 1
    assert value("coda_trigger_claims_total", {"source": "lab_b"}) == 1
    assert value("coda_runs_total", {"pipeline": "adaptation", "outcome": "failed"}) == 1
    assert value("coda_trigger_dead_letters") == 1
    assert value("coda_trigger_queue_length") == 0
    assert value("coda_trigger_last_poll_timestamp_seconds") > 1e9
    second = make(Immediate(platform.store))
    for batch in ("b1", "b2"):
        second.take(f"lab_b/{batch}/manifest.json")
    again = second.metrics.registry.get_sample_value
    assert again("coda_trigger_events_total", {"outcome": "repeated"}) == 2
    assert again("coda_trigger_events_total", {"outcome": "claimed"}) is None
