"""Who is to blame decides how often a run is tried: lost machines, services that were away, and the batch itself."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from conftest_trigger import Cluster, Immediate, deliver
from hypothesis import given
from hypothesis import strategies as st

from coda.contracts import FailureRecord
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.endings import ending_of
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.service import Pace, Trigger
from coda.trigger.states import REOPENINGS

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0, reopen_s=1e9)


@pytest.fixture
def make(platform, demo_params):
    def make_trigger(submitter, pace=FAST):
        return Trigger(platform.settings, submitter, params=demo_params, pace=pace)

    return make_trigger


def of_lab_b(platform):
    return next(state for state in Ledger(platform.store).newest() if state.source == "lab_b")


class Preempted(Immediate):
    """Nodes that are taken back: some say so before they go."""

    def end(self, run_id, outcome="released"):
        super().end(run_id, "vanished" if outcome == "stopped" else outcome)
        if outcome == "stopped":
            failure = FailureRecord(step="adapt", error="StoppedError", exit_code=75, message="Interrupted.")
            self.store.put(f"runs/{run_id}/failure.json", failure.to_json().encode())


@pytest.mark.parametrize("way", ["vanished", "stopped"])
@pytest.mark.parametrize("times", [3, 9])
def test_nodes_that_are_taken_back_hold_no_innocent_batch(platform, make, way, times):
    deliver(platform.landing)
    (handled,) = make(Preempted(platform.store, *[way] * times)).run_once()
    assert handled.state == "released"
    assert of_lab_b(platform).lost == times


def test_losses_use_up_no_try_and_tries_no_loss(platform, make):
    deliver(platform.landing)
    plan = ["transient", "vanished", "vanished", "transient", "vanished", "vanished", "released"]
    (handled,) = make(Immediate(platform.store, *plan)).run_once()
    assert handled.state == "released"


def test_batch_that_is_always_lost_is_held_in_the_end_and_a_person_gets_it(platform, make):
    deliver(platform.landing)
    cluster = Immediate(platform.store, *["vanished"] * 1000)
    trigger = make(cluster, Pace(backoff_s=0.0, tick_s=0.0, reopen_s=0.0))
    for _ in range(20):
        trigger.run_once()
    state = of_lab_b(platform)
    assert (state.state, state.reopened, state.waits_for_person) == ("failed", REOPENINGS, True)
    assert len(cluster.started) == 10 + REOPENINGS


@pytest.mark.parametrize("plan", [["vanished"] * 10, ["transient"] * 3])
def test_what_the_machines_held_is_opened_again_once_another_run_went_through(platform, make, plan):
    deliver(platform.landing)
    trigger = make(Immediate(platform.store, *plan))
    (handled,) = trigger.run_once()
    held = of_lab_b(platform)
    assert (handled.state, held.reopens, held.waits_for_person) == ("failed", True, False)
    assert trigger.run_once() == []  # nothing says that the cluster is well
    deliver(platform.landing, "lab_c")
    trigger.run_once()
    assert of_lab_b(platform).state == "released"
    words = [" ".join(state.reasons) for state in Ledger(platform.store).states(held.version)]
    assert any("opened again by itself, 1 of at most 3 times: a run of another batch went through" in w for w in words)


def test_what_the_batch_is_to_blame_for_is_never_opened_by_itself(platform, make):
    deliver(platform.landing)
    make(Immediate(platform.store, "lasting")).run_once()
    deliver(platform.landing, "lab_c")
    make(Immediate(platform.store), Pace(backoff_s=0.0, tick_s=0.0, reopen_s=0.0)).run_once()
    state = of_lab_b(platform)
    assert (state.state, state.waits_for_person) == ("failed", True)


def test_failed_run_leaves_a_page_and_a_metric(platform, make):
    deliver(platform.landing)
    cluster = Immediate(platform.store, "lasting")
    failure = {"step": "adapt", "error": "E", "exit_code": 1, "message": "<script>x</script>", "problems": []}
    end = cluster.end

    def end_with_words(run_id, outcome):
        end(run_id, outcome)
        platform.store.put(f"runs/{run_id}/failure.json", json.dumps(failure).encode())

    cluster.end = end_with_words
    trigger = make(cluster)
    trigger.run_once()
    html = platform.store.get(f"{of_lab_b(platform).version.folder}/failure.html").decode()
    assert "&lt;script&gt;x&lt;/script&gt;" in html
    assert "<script>" not in html
    assert "coda ledger retry lab_b/b1" in html
    read = trigger.metrics.registry.get_sample_value
    assert read("coda_last_failure_timestamp_seconds", {"source": "lab_b"}) > 0


def test_page_that_cannot_be_written_stops_nothing(platform, make, monkeypatch):
    from coda.errors import TransientError

    put = type(platform.store).put

    def away(self, key, data, content_type=""):
        if key.endswith("failure.html"):
            raise TransientError("away")
        put(self, key, data, content_type)

    monkeypatch.setattr(type(platform.store), "put", away)
    deliver(platform.landing)
    (handled,) = make(Immediate(platform.store, "lasting")).run_once()
    assert handled.state == "failed"


def state_of(attempt, lost):
    return LedgerState(
        sequence=3, state="running", at=datetime.now(UTC), source="a", batch="b", manifest_digest="ab" * 32,
        manifest_key="k", run_id="r", owner="o", attempt=attempt, lost=lost,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "OOMKilled (exit code 137)",
        "ConfigError Step 'adapt' was killed / adapt: found The step was killed by signal 9.",
    ],
)
def test_want_of_memory_is_no_lost_machine_and_waits_for_a_person(words):
    pace, tries = Pace(), []
    for attempt in range(1, 10):
        ending = ending_of(state_of(attempt, 0), None, None, words, pace)
        tries.append(ending)
        if not ending.again:
            break
    assert len(tries) == pace.attempts
    assert "pipelines/resources.py" in " ".join(tries[-1].reasons)
    held = state_of(attempt, ending.lost).model_copy(update={"state": ending.state, "cause": ending.cause})
    assert held.waits_for_person, "it would be the same with the same memory"


@pytest.mark.parametrize("words", ["", "Error (exit code 137)", "pod deleted", "The node was low on resource"])
def test_other_ends_without_a_reason_are_lost_machines(words):
    assert ending_of(state_of(1, 0), None, None, words, Pace()).cause == "lost"


@given(st.lists(st.sampled_from(["lost", "away"]), max_size=40))
def test_budgets_are_counted_apart(plan):
    pace, lost, away = Pace(), 0, 0
    for attempt, kind in enumerate(plan, start=1):
        failure = None if kind == "lost" else FailureRecord(step="s", error="T", exit_code=75, message="m")
        ending = ending_of(state_of(attempt, lost), None, failure, "", pace)
        lost, away = lost + (kind == "lost"), away + (kind == "away")
        assert ending.lost == lost
        assert ending.again == (lost < pace.losses if kind == "lost" else away < pace.attempts)
        if not ending.again:
            return


SLUG = st.text("abcXYZ019._-", min_size=1, max_size=100).map(lambda text: ("a" + text)[:100])


@given(SLUG, SLUG, SLUG, SLUG)
def test_name_of_a_run_is_one_that_every_runner_takes_and_of_one_version(source, batch, other_source, other_batch):
    from coda.runners.port import _is_slug

    name = BatchVersion(source, batch, "ab" * 32, "k").run_id
    assert _is_slug(name)
    if len(source) + len(batch) <= 176:
        assert name == f"adapt-{source}-{batch}-{'ab' * 8}", "names of earlier releases stay as they are"
    elif (other_source, other_batch) != (source, batch):
        assert BatchVersion(other_source, other_batch, "ab" * 32, "k").run_id != name


@pytest.mark.parametrize("year", [1999, 2099])
def test_clock_of_another_machine_takes_no_run_over_and_keeps_none(platform, make, year):
    """What counts is when the store got a sign of life, whatever time is written in it."""
    deliver(platform.landing)
    first, cluster = make(Cluster(platform.store)), Cluster(platform.store)
    first.look()
    first.advance()
    state = of_lab_b(platform)
    wrong = {"owner": "o", "at": f"{year}-01-01T00:00:00Z"}
    platform.store.put(f"{state.version.folder}/heartbeat.json", json.dumps(wrong).encode())
    other = make(cluster)
    other.advance()
    assert of_lab_b(platform).owner == first.ledger.owner, "taken over although it gave a sign of life just now"
    for key in list(platform.disk.written):
        platform.disk.written[key] -= timedelta(seconds=61).total_seconds()
    other.advance()
    assert of_lab_b(platform).state == "landed", "kept by a sign of life from a time to come"


def test_new_training_source_is_noticed_without_a_restart(platform, make, monkeypatch):
    from conftest_trigger import release_of

    from coda.registry.releases import ReleaseLog

    monkeypatch.setattr("coda.trigger.training.LOOK_S", 0.0)
    trigger = make(Immediate(platform.store))
    deliver(platform.landing, "lab_a")
    trigger.look()
    assert list(trigger.ledger.newest()) == []
    ReleaseLog(platform.settings).append(release_of("lab_n"), "default", action="promote", by="t", reason="r", after=1)
    deliver(platform.landing, "lab_n")
    trigger.run_once()
    assert [state.source for state in trigger.ledger.newest()] == ["lab_a"]
