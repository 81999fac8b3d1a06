"""Whatever is repeated, reordered, killed or away: one run for each batch version, and its end in the ledger."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest_trigger import Cluster, Killed, deliver, in_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import load_params
from coda.errors import TransientError
from coda.trigger.batches import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

VERSION = BatchVersion("lab", "b1", "ab" * 32, "lab/b1/manifest.json")

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.integers(0, 1)),
        st.tuples(st.just("event"), st.integers(0, 1)),
        st.tuples(st.just("advance"), st.integers(0, 1)),
        st.tuples(st.just("restart"), st.integers(0, 1)),
        st.tuples(st.just("redeliver"), st.just(0)),
        st.tuples(st.just("end"), st.sampled_from(["released", "transient", "vanished", "incumbent_kept"])),
        st.tuples(st.sampled_from(["killed-before", "killed-after", "away-before", "away-after"]), st.integers(0, 12)),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"])


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_two_triggers_in_any_interleaving_run_each_version_once(params, steps):
    with pytest.MonkeyPatch.context() as patch:
        platform = in_memory(patch.setattr)
        cluster = Cluster(platform.store)
        pace = Pace(lease_s=0.0, backoff_s=0.0, tick_s=0.0, attempts=1000, losses=1000)
        make = lambda: Trigger(platform.settings, cluster, params=params, pace=pace)  # noqa: E731
        triggers = [make(), make()]
        deliver(platform.landing)
        deliver(platform.landing, "lab_c", "b2")
        for verb, value in steps:
            _do(verb, value, platform, cluster, triggers, make)
        platform.disk.countdown = None
        for _ in range(30):
            for trigger in triggers:
                trigger.look()
                trigger.advance()
            for run_id in sorted(cluster.live):
                cluster.end(run_id)
        assert sorted(cluster.succeeded) == sorted(set(cluster.succeeded))
        assert len(cluster.succeeded) == 2
        for entry in Ledger(platform.store).entries():
            assert [state.sequence for state in entry.states] == list(range(1, len(entry.states) + 1))
            assert [state.final for state in entry.states] == [False] * (len(entry.states) - 1) + [True]
        assert len([key for key in platform.disk.objects if key.endswith("claim.json")]) == 2


def _do(verb, value, platform, cluster, triggers, make):
    disk = platform.disk
    if verb in {"killed-before", "killed-after", "away-before", "away-after"}:
        disk.how, disk.countdown = verb, value
        return
    try:
        if verb == "look":
            triggers[value].look()
        elif verb == "event":
            triggers[value].arrivals.take("lab_b/b1/manifest.json", [])
        elif verb == "advance":
            triggers[value].advance()
        elif verb == "restart":
            triggers[value] = make()
        elif verb == "redeliver":
            pending, disk.countdown = disk.countdown, None
            deliver(platform.landing)
            disk.countdown = pending
        elif cluster.live:
            pending, disk.countdown = disk.countdown, None
            cluster.end(sorted(cluster.live)[0], value)
            disk.countdown = pending
    except Killed:
        triggers[value] = make()
    except TransientError:
        pass


def test_fifty_copies_of_one_claim_in_parallel_have_one_winner(moto_server):
    store = moto_server.bucket()
    barrier = threading.Barrier(50)

    def claim(number):
        ledger = Ledger(store, f"t{number}")
        barrier.wait()
        return ledger.claim(VERSION)

    with ThreadPoolExecutor(50) as pool:
        won = list(pool.map(claim, range(50)))
    assert sum(won) == 1
    assert Ledger(store).claim_of(VERSION).owner == f"t{won.index(True)}"


def test_racing_transitions_have_one_winner_and_the_others_know(moto_server):
    store = moto_server.bucket()
    first = Ledger(store).append(VERSION, "landed", after=None)
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda n: Ledger(store, f"t{n}").append(VERSION, "claimed", after=first), range(20)))
    (winner,) = [state for state in made if state is not None]
    assert Ledger(store).last(VERSION) == winner
    assert [state.state for state in Ledger(store).states(VERSION)] == ["landed", "claimed"]


def test_newest_states_are_found_for_all_versions_in_one_listing(moto_server):
    store = moto_server.bucket()
    ledger = Ledger(store, "me")
    versions = [BatchVersion(f"lab{n % 2}", f"b{n}", f"{n:064x}", f"lab{n % 2}/b{n}/manifest.json") for n in range(4)]
    versions = [BatchVersion(v.source, v.batch, v.digest[::-1], v.key) for v in versions]
    for version in versions:
        state = ledger.append(version, "landed", after=None)
        ledger.append(version, "refused", after=state, reasons=("why",))
        ledger.beat(version)
    assert {(s.source, s.batch, s.state, s.reasons) for s in ledger.newest()} == {
        (v.source, v.batch, "refused", ("why",)) for v in versions
    }
    assert [s.batch for s in ledger.newest("lab1")] == ["b1", "b3"]
    assert [s.batch for s in ledger.newest("lab1/b3")] == ["b3"]


def test_a_long_ledger_is_read_once_and_then_only_listed():
    with pytest.MonkeyPatch.context() as patch:
        platform = in_memory(patch.setattr)
        ledger = Ledger(platform.store)
        for number in range(20):
            version = BatchVersion("lab", f"b{number}", f"{number:016x}" + "0" * 48, f"lab/b{number}/manifest.json")
            ledger.append(version, "refused", after=None)
        before = list(ledger.newest())
        reads = []
        get = platform.store.get
        patch.setattr(type(platform.store), "get", lambda self, key, **limits: reads.append(key) or get(key))
        assert list(ledger.newest()) == before
        assert reads == []
        ledger.append(before[0].version, "landed", after=before[0])
        assert next(ledger.newest()).state == "landed"
        assert len(reads) == 1


def test_version_with_more_than_9999_states_still_has_a_newest_one():
    with pytest.MonkeyPatch.context() as patch:
        platform = in_memory(patch.setattr)
        ledger = Ledger(platform.store)
        first = ledger.append(VERSION, "landed", after=None)
        ledger.append(VERSION, "claimed", after=first.model_copy(update={"sequence": 9998}))
        ledger.append(VERSION, "running", after=first.model_copy(update={"sequence": 9999}))
        assert ledger.last(VERSION).state == "running"
        assert [state.state for state in ledger.newest()] == ["running"]
        assert [state.sequence for state in ledger.states(VERSION)] == [1, 9999, 10000]
