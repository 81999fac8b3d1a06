"""Whose turn it is, what two triggers do to one source, and what a person may do to a claim."""

import json
import logging
import threading
from datetime import timedelta

import pytest
from conftest_trigger import T0, Cluster, deliver
from hypothesis import given
from hypothesis import strategies as st

from coda.trigger.interventions import release_claim, retry
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.logs import JsonLines, Lines, about, log_to
from coda.trigger.service import Pace, Trigger
from coda.trigger.turns import in_turn

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0)


@pytest.fixture
def make(platform, demo_params):
    def make_trigger(submitter, **more):
        return Trigger(platform.settings, submitter, params=demo_params, **{"pace": FAST, **more})

    return make_trigger


class Written:
    """The store's times, which say the same as the states' own."""

    def __init__(self, states):
        self.first = {state.version: state.at for state in states}

    def written(self, state):
        return state.at

    def arrived(self, version):
        return self.first[version]


def state_of(source, batch, state, seconds, attempt=0):
    return LedgerState(
        sequence=1, state=state, at=T0 + timedelta(seconds=seconds), source=source, batch=batch,
        manifest_digest="ab" * 32, manifest_key="k", run_id=f"adapt-{source}-{batch}", owner="o", attempt=attempt,
    )  # fmt: skip


ARRIVALS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50)), max_size=30)


@given(ARRIVALS)
def test_no_source_waits_for_more_runs_than_there_are_sources(arrivals):
    waiting = [state_of(source, f"b{number}", "landed", at) for number, (source, at) in enumerate(arrivals)]
    done, clock, skipped = [], 1000, {}
    while waiting:
        order = in_turn([*waiting, *done], waiting, Written(waiting))
        assert sorted(item.run_id for item in order) == sorted(item.run_id for item in waiting)
        first = order[0]
        assert first.at == min(item.at for item in waiting if item.source == first.source)
        for source in {item.source for item in waiting}:
            skipped[source] = 0 if source == first.source else skipped.get(source, 0) + 1
            assert skipped[source] < 4
        waiting.remove(first)
        clock += 1
        done.append(state_of(first.source, first.batch, "released", clock, attempt=1))


def test_what_was_refused_as_it_arrived_is_no_turn():
    waiting = [state_of("a", "b1", "landed", 1), state_of("b", "b1", "landed", 2)]
    refused = state_of("a", "b0", "refused", 100)
    assert [item.source for item in in_turn([*waiting, refused], waiting, Written(waiting))] == ["a", "b"]


def test_source_that_drops_a_hundred_batches_does_not_starve_the_others(platform, make):
    for number in range(100):
        deliver(platform.landing, "lab_b", f"b{number:03}")
    cluster = Cluster(platform.store)
    trigger = make(cluster)
    trigger.look()
    order = []

    def run_next():
        trigger.advance()
        (run_id,) = cluster.live
        order.append(run_id.split("-")[1])
        cluster.end(run_id)

    run_next()
    for source in ("lab_c", "lab_d"):
        deliver(platform.landing, source, "b1")
        deliver(platform.landing, source, "b2")
    trigger.look()
    for _ in range(6):
        run_next()
    assert order == ["lab_b", "lab_c", "lab_d", "lab_b", "lab_c", "lab_d", "lab_b"]
    # a restarted trigger knows whose turn it is
    deliver(platform.landing, "lab_c", "b3")
    trigger = make(cluster, pace=Pace(lease_s=0, backoff_s=0, tick_s=0))
    trigger.look()
    run_next()
    assert order[-1] == "lab_c"


def test_two_triggers_that_claim_two_batches_of_a_source_at_once_never_run_both(platform, make, monkeypatch):
    deliver(platform.landing, "lab_b", "b1")
    deliver(platform.landing, "lab_b", "b2")
    cluster = Cluster(platform.store)
    first, second = make(cluster), make(cluster)
    first.look()
    meet = threading.Barrier(2)
    append = Ledger.append

    def together(self, version, state, **more):
        made = append(self, version, state, **more)
        if state == "claimed":
            meet.wait(30)  # both have written their claim before either looks for the other's
        return made

    waiting = {state.batch: state for state in first.ledger.newest()}
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", together)
        threads = [
            threading.Thread(target=trigger._start, args=(waiting[batch],))
            for trigger, batch in ((first, "b1"), (second, "b2"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(cluster.live) <= 1
    for _ in range(20):
        for trigger in (first, second):
            trigger.look()
            trigger.advance()
        assert len(cluster.live) <= 1
        for run_id in list(cluster.live):
            cluster.end(run_id)
    assert sorted(cluster.succeeded) == sorted(cluster.started)
    assert len(cluster.started) == 2


def test_number_of_runs_in_all_counts_those_of_every_trigger(platform, make):
    for source in ("lab_b", "lab_c", "lab_d"):
        deliver(platform.landing, source)
    cluster = Cluster(platform.store)
    triggers = [make(cluster, pace=Pace(parallel=2, backoff_s=0, tick_s=0)) for _ in range(2)]
    triggers[0].look()
    for _ in range(10):
        for trigger in triggers:
            trigger.advance()
            assert len(cluster.live) <= 2
        for run_id in sorted(cluster.live)[:1]:
            cluster.end(run_id)
    assert len(cluster.started) == 3


def test_run_that_ended_while_its_trigger_was_dead_makes_room_in_the_same_look(platform, make):
    deliver(platform.landing, "lab_b")
    deliver(platform.landing, "lab_c")
    cluster = Cluster(platform.store)
    dead = make(cluster)
    dead.look()
    dead.advance()
    (run_id,) = cluster.live
    cluster.end(run_id)
    other = make(cluster, pace=Pace(lease_s=0, backoff_s=0, tick_s=0))
    other.advance()
    assert [item.state for item in other.taken()] == ["released"]
    assert len(cluster.started) == 2


def test_waiting_is_counted_from_the_arrival_whatever_happened_since(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    trigger = make(cluster)
    trigger.look()
    (state,) = trigger.ledger.newest()
    platform.disk.written[platform.store.url(f"{state.version.folder}/states/0001.json")] -= 5 * 3600
    claimed = trigger.ledger.append(state.version, "claimed", after=state)
    trigger.ledger.append(state.version, "landed", after=claimed, reasons=("again in 10 s",))
    trigger.advance()
    assert trigger.metrics.registry.get_sample_value("coda_trigger_oldest_waiting_seconds") >= 5 * 3600


def test_released_claim_is_recorded_and_the_live_run_is_found_again_and_not_started_twice(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    stuck, other = make(cluster), make(cluster)
    stuck.look()
    stuck.advance()
    (state,) = stuck.ledger.newest()
    freed = release_claim(stuck.ledger, state, "Ada", "its node is gone")
    assert freed.reasons == (f"claim of {stuck.ledger.owner} released by Ada: its node is gone",)
    assert release_claim(stuck.ledger, state, "Bob", "me too") is None
    other.advance()
    last = other.ledger.last(state.version)
    assert (last.state, last.owner, last.attempt) == ("running", other.ledger.owner, 1)
    stuck.advance()
    assert stuck._flights == {}
    (run_id,) = cluster.live
    cluster.end(run_id)
    stuck.advance()
    other.advance()
    assert [item.state for item in other.taken()] == ["released"]
    assert stuck.taken() == []
    assert len(cluster.started) == 1


def test_claim_of_a_trigger_that_died_before_it_submitted_is_released_at_once(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    dead = make(cluster)
    dead.look()
    (landed,) = dead.ledger.newest()
    dead.ledger.claim(landed.version)
    claimed = dead.ledger.append(landed.version, "claimed", after=landed)
    other = make(cluster)
    other.advance()
    assert cluster.started == []  # the lease has not run out
    assert release_claim(other.ledger, claimed, "Ada", "killed by hand").attempt == 0
    other.advance()
    assert len(cluster.started) == 1


@pytest.mark.parametrize("state", ["landed", "released", "failed", "held", "refused"])
def test_only_taken_versions_are_released_and_only_failed_ones_retried(platform, state):
    ledger = Ledger(platform.store)
    made = ledger.append(state_of("lab", "b", state, 0).version, state, after=None)
    assert release_claim(ledger, made, "Ada", "why") is None
    assert (retry(ledger, made, "Ada") is not None) == (state == "failed")


def test_log_in_json_is_one_object_a_line_with_what_it_is_about(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log_to("json")
        log = logging.getLogger("coda.trigger.service")
        log.info("%s: a\nforged line", "x", extra=about(state_of("lab", "b1", "running", 0, attempt=2)))
        try:
            int("broken")
        except ValueError:
            log.exception("It broke.")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {key: first[key] for key in ("level", "message", "run_id", "source", "batch", "state", "attempt")} == {
        "level": "info", "message": "x: a\nforged line", "run_id": "adapt-lab-b1", "source": "lab", "batch": "b1",
        "state": "running", "attempt": 2,
    }  # fmt: skip
    assert first["time"].endswith("+00:00")
    assert second["level"] == "error"
    assert "ValueError: invalid literal" in second["traceback"]
    assert "run_id" not in second


def test_words_of_a_log_line_need_not_be_json():
    record = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    record.source = object()
    assert "object object" in json.loads(JsonLines().format(record))["source"]


@pytest.mark.parametrize("form", [JsonLines, Lines])
def test_no_secret_reaches_a_log_line(form, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'planted "key"')
    words = 'planted "key" for http://ada:hunter2@store'
    line = form().format(logging.LogRecord("n", logging.INFO, "p", 1, words, None, None))
    assert "planted" not in line
    assert "hunter2" not in line
    assert "http://" in line
