"""Whatever is repeated, reordered, killed or away: one run for each batch version, and its end in the ledger."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest_trigger import Cluster, Killed, deliver, in_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import load_params
from coda.errors import TransientError
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.interventions import retry
from coda.trigger.ledger import Ledger
from coda.trigger.marks import Marks
from coda.trigger.service import Pace, Trigger
from coda.trigger.states import Survey

VERSION = BatchVersion("lab", "b1", "ab" * 32, "lab/b1/manifest.json")

ACTS = st.tuples(st.sampled_from(["look", "event", "advance", "restart", "compare", "late mark"]), st.integers(0, 1))
STEPS = st.lists(
    st.one_of(
        ACTS,
        st.tuples(st.just("redeliver"), st.just(0)),
        st.tuples(st.just("retry"), st.integers(0, 1)),
        st.tuples(st.just("end"), st.sampled_from(["released", "transient", "lasting", "vanished", "incumbent_kept"])),
        st.tuples(
            st.sampled_from(["killed-before", "killed-after", "away-before", "away-after"]),
            st.integers(0, 12) | st.integers(0, 40),
        ),
        # while one trigger does its next thing, before its request of that number, the other does one of its own
        st.tuples(st.just("amid"), st.tuples(st.integers(0, 25), ACTS)),
    ),
    max_size=40,
)


def unmarked(disk):
    """Return the versions whose newest state is open, and has no mark: what no round would see."""
    newest, marks = {}, set()
    for url in disk.objects:
        if match := re.match(r"s3://platform/ledger/(.+)/states/(\d+)\.json", url):
            newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
        if match := re.match(r"s3://platform/ledger-open/(.+)/(\d+)-", url):
            marks.add((match[1], int(match[2])))
    body = lambda folder, number: disk.objects[f"s3://platform/ledger/{folder}/states/{number:04d}.json"]  # noqa: E731
    over = {"released", "incumbent_kept", "held", "refused"}
    return {item for item in newest.items() if json.loads(body(*item))["state"] not in over} - marks


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"])


class World:
    """Two triggers, two batches, and what must be so whatever happens to them."""

    def __init__(self, patch, params):
        self.patch = patch
        self.platform = in_memory(patch.setattr)
        self.disk = self.platform.disk
        self.cluster = Cluster(self.platform.store)
        pace = Pace(lease_s=0.0, backoff_s=0.0, tick_s=0.0, attempts=1000, losses=1000)
        self.make = lambda: Trigger(self.platform.settings, self.cluster, params=params, pace=pace)
        self.triggers = [self.make(), self.make()]
        deliver(self.platform.landing)
        deliver(self.platform.landing, "lab_c", "b2")

    def do(self, *steps):
        for verb, value in steps:
            _do(verb, value, self.platform, self.cluster, self.triggers, self.make)
            assert not unmarked(self.disk), "open, and no round would see it"

    def finish(self):
        """Let everything come to its end, and check that each version ran once and that all of them are closed."""
        self.disk.countdown = self.disk.amid = None
        # marks alone must do: nobody compares the whole ledger with them any more
        self.patch.setattr("coda.trigger.rounds.COMPARE_S", float("inf"))
        ledger = Ledger(self.platform.store)
        for _ in range(30):
            for trigger in self.triggers:
                trigger.look()
                trigger.advance()
            _retry(self.platform, ledger)
            for run_id in sorted(self.cluster.live):
                self.cluster.end(run_id)
            if len(states := list(ledger.newest())) == 2 and all(state.over for state in states):
                break
        assert len(self.cluster.succeeded) == len(set(self.cluster.succeeded)) == 2
        for entry in ledger.entries():
            assert [state.sequence for state in entry.states] == list(range(1, len(entry.states) + 1))
            assert [state.over for state in entry.states] == [False] * (len(entry.states) - 1) + [True]
        assert len([key for key in self.disk.objects if key.endswith("claim.json")]) == 2
        rounds = self.triggers[0].rounds
        rounds.survey()
        self.disk.asked.clear()
        assert rounds.survey() == Survey((), ())
        # one listing, and one of each version of which the mark of a killed writer is left
        left = {url.rpartition("/")[0] for url in self.disk.objects if "/ledger-open/" in url}
        assert len(self.disk.asked) == 1 + len(left)
        assert len({url.rpartition("/")[0] for url in self.disk.objects if "/ledger-closed/" in url}) == 2


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_two_triggers_in_any_interleaving_run_each_version_once(params, steps):
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch, params)
        world.do(*steps)
        world.finish()


def life(end):
    """Return what happens to a batch whose run ends in some way, as one trigger sees it."""
    return (("look", 0), ("advance", 0), ("end", end), ("advance", 0), ("retry", 0), ("advance", 0), ("advance", 0))


def writes_of(params, steps):
    """Return the numbers of the requests of these steps that write something."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch, params)
        world.disk.asked.clear()
        world.do(*steps)
        return [number for number, (verb, _) in enumerate(world.disk.asked) if verb in {"PUT", "DELETE"}]


@pytest.mark.parametrize("how", ["killed-after", "away-after"])
@pytest.mark.parametrize("end", ["released", "lasting"])
def test_death_or_outage_after_any_write_of_a_life_loses_nothing(params, end, how):
    steps = life(end)
    for number in range(len(writes_of(params, steps))):
        with pytest.MonkeyPatch.context() as patch:
            world = World(patch, params)
            world.do((how, number), *steps)
            if world.disk.countdown is not None:
                assert number > 10, "the writes of a life, less those of the run's own end"
                return
            world.finish()


@pytest.mark.parametrize("act", ["advance", "late mark", "retry"])
def test_another_trigger_before_and_after_any_write_changes_nothing(params, act):
    steps = life("lasting")
    writes = writes_of(params, steps)
    for number in sorted({*writes, *(number + 1 for number in writes)}):
        with pytest.MonkeyPatch.context() as patch:
            world = World(patch, params)
            world.do(("amid", (number, (act, 0))), *steps)
            world.finish()


def _do(verb, value, platform, cluster, triggers, make):
    disk = platform.disk
    if verb in {"killed-before", "killed-after", "away-before", "away-after"}:
        disk.how, disk.countdown = verb, value
        return
    if verb == "amid":
        number, (act, _) = value
        disk.amid = (number, lambda: _do(act, 1 - _RUNNING[0], platform, cluster, triggers, make))
        return
    running = _RUNNING
    before, running[0] = running[0], value if isinstance(value, int) else 0
    try:
        _act(verb, value, platform, cluster, triggers, make)
    except Killed:
        triggers[running[0]] = make()
    except TransientError:
        pass
    finally:
        running[0] = before


_RUNNING = [0]
"""Number of the trigger that does something at the moment; what happens meanwhile is the other's."""


def _act(verb, value, platform, cluster, triggers, make):
    acts = {
        "look": lambda: triggers[value].look(),
        "event": lambda: triggers[value].arrivals.take("lab_b/b1/manifest.json"),
        "advance": lambda: triggers[value].advance(),
        "compare": lambda: triggers[value].rounds.landed(),
        "restart": lambda: triggers.__setitem__(value, make()),
        "late mark": lambda: _mark_late(platform, value),
        "retry": lambda: _retry(platform, triggers[value].ledger),
    }
    if verb in acts:
        acts[verb]()
        return
    with quiet(platform.disk):
        if verb == "redeliver":
            deliver(platform.landing)
        elif cluster.live:
            cluster.end(sorted(cluster.live)[0], value)


def _mark_late(platform, back):
    """Write the mark of a writer that lost its race long ago, and only now gets through."""
    for entry in Ledger(platform.store).entries()[:1]:
        Marks(platform.store).announce(entry.last.version.folder, max(1, entry.last.sequence - back))


def _retry(platform, ledger):
    for state in Ledger(platform.store).newest():
        retry(ledger, state, "Ada")


@contextmanager
def quiet(disk):
    pending, disk.countdown = (disk.countdown, disk.amid), None
    disk.amid = None
    try:
        yield
    finally:
        disk.countdown, disk.amid = pending


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
