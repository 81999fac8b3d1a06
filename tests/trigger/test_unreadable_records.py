"""Records that another process wrote, broken in every way: one ends its own batch version, and nobody else's."""

import json

import pytest
from conftest_trigger import Cluster, Immediate, deliver, in_memory, record_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.contracts import FailureRecord, RunRecord
from coda.storage.records import MAX_RECORD_BYTES
from coda.trigger.interventions import release_claim, retry
from coda.trigger.ledger import Heartbeat, Ledger, LedgerState
from coda.trigger.server import TriggerService
from coda.trigger.service import Pace, Trigger

FAST = Pace(parallel=4, backoff_s=0.0, tick_s=0.0, lease_s=0.0)
FAILURE = {"step": "adapt", "error": "CodaError", "exit_code": 1, "message": "broken", "problems": []}
RECORD = record_of("adapt-lab_b-b1", "released").to_json()


def spoilt(document):
    """Return texts that a cut, a disk, a stranger or another release may leave where a document was."""
    raw = json.loads(document)
    name = list(raw)[1]
    return {
        "cut": document[: len(document) // 2].encode(),
        "empty": b"",
        "list": b"[]",
        "text": b'"x"',
        "null": b"null",
        "no UTF-8": b"\xff\xfe" + document.encode(),
        "nested": b"[" * 100_000,
        "a value nested": json.dumps(raw).encode()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "wrong types": json.dumps({key: {"a": [1]} for key in raw}).encode(),
        "key gone": json.dumps({key: value for key, value in raw.items() if key != name}).encode(),
        "version 2": json.dumps({**raw, "schema_version": 2}).encode(),
        "version text": json.dumps({**raw, "schema_version": "1"}).encode(),
        "number of thousands of digits": b'{"' + name.encode() + b'": ' + b"9" * 6000 + b"}",
        "huge": b" " * (MAX_RECORD_BYTES + 1),
    }


WAYS = tuple(spoilt(RECORD))


@pytest.fixture
def place(platform, demo_params):
    """A's run is left by a dead trigger; B of another source has landed."""
    deliver(platform.landing)
    dead = Cluster(platform.store)
    first = Trigger(platform.settings, dead, params=demo_params, pace=FAST)
    first.look()
    first.advance()
    deliver(platform.landing, "lab_c")
    (state,) = first.ledger.newest()

    class Place:
        store, disk = platform.store, platform.disk
        version, run = state.version, f"runs/{state.run_id}"

        def trigger(self, **pace):
            return Trigger(
                platform.settings, Immediate(platform.store), params=demo_params, pace=Pace(**{**vars(FAST), **pace})
            )

        def states(self, source):
            return [state for state in Ledger(platform.store).newest() if state.source == source]

        def end(self):
            trigger = self.trigger()
            for _ in range(12):
                trigger.look()
                trigger.advance()
            return trigger

    return Place()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["run.json", "failure.json"])
def test_record_of_a_run_that_cannot_be_read_ends_its_own_batch_alone(place, name, way):
    document = RECORD if name == "run.json" else json.dumps(FAILURE)
    place.store.put(f"{place.run}/{name}", spoilt(document)[way])
    place.end()
    (other,) = place.states("lab_c")
    assert other.state == "released"
    (own,) = place.states("lab_b")
    if name == "run.json":
        assert own.state == "failed"
        assert own.waits_for_person
        assert "run.json" in own.reasons[0]
        assert own.reasons[-1] == "When this is put right: coda ledger retry lab_b/b1"
        ledger = Ledger(place.store)
        reopened = retry(ledger, own, "Ada")
        assert "run.json of its run cannot be read and was set aside" in reopened.reasons
        place.end()
        (own,) = place.states("lab_b")
    # a reason that cannot be read is no result: the run is tried again, within the limit of its tries
    assert own.state == "released"


@pytest.mark.parametrize("way", WAYS)
def test_heartbeat_is_a_sign_of_life_whatever_it_says(place, way):
    document = Heartbeat(owner="x", at=record_of("r", "released").started_at).to_json()
    place.store.put(f"{place.version.folder}/heartbeat.json", spoilt(document)[way])
    place.end()
    assert [item.state for item in place.states("lab_b") + place.states("lab_c")] == ["released", "released"]


@pytest.mark.parametrize("way", WAYS)
def test_newest_state_that_cannot_be_read_ends_its_version_and_a_person_may_retry_it(place, way):
    ledger = Ledger(place.store)
    newest = ledger.last(place.version)
    document = newest.to_json()
    place.disk.objects[place.store.url(f"{place.version.folder}/states/{newest.sequence:04d}.json")] = spoilt(document)[
        way
    ]
    place.end()
    (other,) = place.states("lab_c")
    assert other.state == "released"
    survey = Ledger(place.store).survey()
    if way == "version 2":
        # it is the newer program's, which may be at work on it
        assert [item.newer for item in survey.unreadable] == [True]
        return
    (own,) = place.states("lab_b")
    assert (own.state, own.cause, own.sequence) == ("failed", "record", newest.sequence + 1)
    assert "cannot be read" in own.reasons[0]
    assert survey.unreadable == ()
    retry(ledger, own, "Ada")
    place.end()
    (own,) = place.states("lab_b")
    assert own.state == "released"


def test_state_that_nobody_can_mend_is_shown_and_counted_and_blocks_nobody(place):
    key = f"ledger/lab_x/b9/{'f' * 16}/states/0001.json"
    place.store.put(key, b'{"sequence": 1,')
    trigger = place.end()
    assert [item.key for item in trigger.ledger.survey().unreadable] == [key]
    read = trigger.metrics.registry.get_sample_value
    assert read("coda_trigger_unreadable_records", {"outcome": "state"}) == 1
    assert [item.state for item in place.states("lab_b") + place.states("lab_c")] == ["released", "released"]


def test_state_is_of_the_version_and_number_that_its_key_says(place):
    ledger = Ledger(place.store)
    other = ledger.last(place.version).model_copy(update={"batch": "b7", "state": "released"})
    place.store.put(f"{place.version.folder}/states/0009.json", other.to_json().encode())
    (broken,) = ledger.survey().unreadable
    assert (broken.sequence, broken.batch) == (9, "b1")


@pytest.mark.parametrize("way", WAYS)
def test_pointer_that_cannot_be_read_stops_no_batch_from_being_run(place, way):
    document = place.disk.objects[place.store.url("releases/default/000001.json")].decode()
    place.store.put("releases/default/000002.json", spoilt(document)[way])
    trigger = place.end()
    assert [item.state for item in place.states("lab_b") + place.states("lab_c")] == ["released", "released"]
    read = trigger.metrics.registry.get_sample_value
    assert read("coda_trigger_unreadable_records", {"outcome": "pointer"}) == 1


def test_defect_in_one_version_delays_it_and_ends_nothing_else(place, monkeypatch, caplog):
    trigger = place.trigger()
    conclude = Trigger._conclude

    def broken(self, state):
        if state.source == "lab_b":
            raise ZeroDivisionError("a defect")
        conclude(self, state)

    monkeypatch.setattr(Trigger, "_conclude", broken)
    for _ in range(12):
        trigger.look()
        trigger.advance()
    assert [item.state for item in place.states("lab_c")] == ["released"]
    (own,) = place.states("lab_b")
    assert (own.state, own.cause, own.waits_for_person) == ("failed", "defect", False)
    assert "a defect of the trigger, ZeroDivisionError: a defect" in own.reasons[0]
    assert trigger.metrics.registry.get_sample_value("coda_trigger_defects_total", {"outcome": "version"}) == 3
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("part", ["look", "advance"])
def test_defect_of_a_whole_look_or_round_does_not_end_the_loop(place, monkeypatch, caplog, part):
    trigger = place.trigger()
    service = TriggerService(trigger)
    monkeypatch.setattr("coda.trigger.server.PAUSE_S", 0.0)
    monkeypatch.setattr(trigger, part, lambda **_: 1 / 0)
    if part == "look":
        monkeypatch.setattr(trigger.stopping, "wait", lambda _: trigger.stopping.set())
        service._look_on()
        health = service.looks
    else:
        service._round()
        health = service.health
    assert "ZeroDivisionError" in health.trouble
    assert health.reached is None
    assert "Traceback" in caplog.text
    assert trigger.metrics.registry.get_sample_value("coda_trigger_defects_total", {"outcome": "round"}) == 1
    monkeypatch.undo()
    service._pages.server_close()


def test_manifest_that_breaks_us_leaves_the_others_alone(place, platform, monkeypatch):
    read = type(platform.landing).get_tagged
    deliver(platform.landing, "lab_z")

    def get_tagged(self, key, **limits):
        if key.startswith("lab_z"):
            raise ZeroDivisionError
        return read(self, key, **limits)

    monkeypatch.setattr(type(platform.landing), "get_tagged", get_tagged)
    trigger = place.trigger()
    trigger.look()
    assert {state.source for state in trigger.ledger.newest()} == {"lab_b", "lab_c"}
    assert trigger.metrics.registry.get_sample_value("coda_trigger_defects_total", {"outcome": "arrival"}) == 1


def test_claim_can_be_released_whatever_its_heartbeat_holds(place):
    place.store.put(f"{place.version.folder}/heartbeat.json", b"{")
    ledger = Ledger(place.store)
    assert release_claim(ledger, ledger.last(place.version), "Ada", "why").state == "landed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_no_bytes_whatever_in_any_record_end_the_trigger_or_delay_another_batch(demo_params, data):
    with pytest.MonkeyPatch.context() as patch:
        platform = in_memory(patch.setattr)
        make = lambda submitter: Trigger(platform.settings, submitter, params=demo_params, pace=FAST)  # noqa: E731
        deliver(platform.landing)
        first = make(Cluster(platform.store))
        first.look()
        first.advance()
        (state,) = first.ledger.newest()
        deliver(platform.landing, "lab_c")
        good = {
            f"runs/{state.run_id}/run.json": json.loads(RECORD),
            f"runs/{state.run_id}/failure.json": FAILURE,
            f"{state.version.folder}/heartbeat.json": {"owner": "o", "at": "2099-01-01T00:00:00Z"},
            f"{state.version.folder}/claim.json": {"owner": "o"},
            f"{state.version.folder}/states/0003.json": json.loads(state.to_json()),
            f"{state.version.folder}/states/0004.json": json.loads(state.to_json()),
            "releases/default/000002.json": {"sequence": 2},
        }
        key = data.draw(st.sampled_from(sorted(good)))
        changes = data.draw(st.dictionaries(st.sampled_from([*good[key], "extra"]), JSON, max_size=3))
        text = json.dumps({**good[key], **changes}).encode()
        body = data.draw(st.just(text) | st.binary(max_size=30) | st.integers(0, len(text)).map(lambda end: text[:end]))
        platform.store.put(key, body)
        trigger = make(Immediate(platform.store))
        for _ in range(8):
            trigger.look()
            trigger.advance()
        (other,) = (item for item in Ledger(platform.store).newest() if item.source == "lab_c")
        assert other.state == "released"


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_more_fields_than_are_known_are_no_error(more):
    for kind, raw in ((FailureRecord, FAILURE), (RunRecord, json.loads(RECORD))):
        known = kind.stored(json.dumps(raw), "x")
        extra = {f"x_{key}": value for key, value in more.items()}
        assert kind.stored(json.dumps({**extra, **raw}), "x") == known


def test_state_of_an_older_release_is_read():
    old = {
        "schema_version": 1, "sequence": 1, "state": "landed", "at": "2026-01-01T00:00:00Z", "source": "a",
        "batch": "b", "manifest_digest": "ab" * 32, "manifest_key": "a/b/manifest.json",
        "run_id": "r", "owner": "o", "reasons": [], "attempt": 2,
    }  # fmt: skip
    state = LedgerState.stored(json.dumps(old), "x")
    assert (state.attempt, state.lost, state.cause, state.reopened) == (2, 0, "", 0)
