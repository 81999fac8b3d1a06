"""Marks beside the ledger save requests, and say nothing that the states do not; ledgers of earlier releases too."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest_trigger import Cluster, Immediate, deliver
from hypothesis import given
from hypothesis import strategies as st

from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.marks import CLOSED, OPEN, Marks
from coda.trigger.rounds import Rounds
from coda.trigger.service import Pace, Trigger
from coda.trigger.states import LedgerState

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0)
ENDS = ("released", "incumbent_kept", "held", "refused", "failed", "landed", "running")


@pytest.fixture
def make(platform, demo_params):
    def make_trigger(submitter=None, **more):
        submitter = submitter or Immediate(platform.store)
        return Trigger(platform.settings, submitter, params=demo_params, **{"pace": FAST, **more})

    return make_trigger


def version_of(number):
    return BatchVersion(
        f"lab_{number % 3}", f"b{number}", f"{number:064x}"[::-1], f"lab_{number % 3}/b{number}/manifest.json"
    )


def write(ledger, number, *states):
    last = ledger.last(version_of(number))
    for state in states:
        last = ledger.append(version_of(number), state, after=last, attempt=int(state == "running") or None)
    return last


def marks(platform, prefix=""):
    start = platform.store.url(prefix)
    return sorted(url for url in platform.disk.objects if url.startswith((start + OPEN, start + CLOSED)))


def unmarked(platform):
    """Make the ledger one of a release that wrote no marks."""
    for url in marks(platform):
        del platform.disk.objects[url]


def asked(platform, act):
    platform.disk.asked.clear()
    act()
    return [verb for verb, _ in platform.disk.asked]


@pytest.fixture
def ledger(platform):
    made = Ledger(platform.store, "me")
    for number, end in enumerate(ENDS):
        write(made, number, "landed", "claimed", "running", *([end] if end not in {"landed", "running"} else []))
        if end == "landed":
            write(made, number, "landed")
    return made


OPEN_ONES = ["failed", "landed", "running"]


def states(rounds):
    return sorted(state.state for state in rounds.survey().states)


@pytest.mark.parametrize("old", [False, True])
def test_what_is_open_or_failed_is_seen_and_a_quiet_round_is_one_request(platform, ledger, old):
    if old:
        unmarked(platform)
    rounds = Rounds(Ledger(platform.store))
    assert states(rounds) == OPEN_ONES
    assert asked(platform, rounds.survey) == ["LIST"]
    # a start lists, and reads what is open alone
    again = Rounds(Ledger(platform.store))
    cost = asked(platform, lambda: states(again))
    assert cost.count("GET") == len(OPEN_ONES)
    assert set(cost) == {"GET", "LIST"}
    assert again.ended == rounds.ended
    assert set(again.ended.served) == {version_of(number).source for number in range(4)}


def test_a_transition_of_one_version_costs_the_next_round_of_every_trigger_two_requests_more(platform, ledger):
    rounds = [Rounds(Ledger(platform.store)) for _ in range(2)]
    for one in rounds:
        one.survey()
    write(ledger, ENDS.index("landed"), "claimed")
    for one in rounds:
        cost = asked(platform, one.survey)
        assert cost.count("LIST") + cost.count("GET") == 3
    assert [states(one) for one in rounds] == [["claimed", "failed", "running"]] * 2


def test_state_that_an_earlier_release_writes_beside_is_seen_at_the_next_comparison(platform, ledger, monkeypatch):
    rounds = Rounds(Ledger(platform.store))
    rounds.survey()
    before = set(marks(platform))
    write(ledger, ENDS.index("failed"), "landed")
    write(ledger, 50, "landed")
    write(ledger, 51, "landed", "refused")
    for url in set(marks(platform)) - before:
        del platform.disk.objects[url]
    assert states(rounds) == OPEN_ONES
    with monkeypatch.context() as patch:
        patch.setattr("coda.trigger.rounds.COMPARE_S", 0.0)
        assert states(rounds) == ["landed", "landed", "landed", "running"]
    assert asked(platform, rounds.survey) == ["LIST"]


def test_mark_without_a_state_is_looked_into_for_a_day_and_goes(platform, ledger):
    rounds = Rounds(Ledger(platform.store))
    rounds.survey()
    here = set(marks(platform))
    Marks(platform.store).announce(version_of(ENDS.index("landed")).folder, 6)
    Marks(platform.store).announce(version_of(90).folder, 1)
    assert states(rounds) == OPEN_ONES
    assert len(asked(platform, rounds.survey)) == 3
    for url in set(marks(platform)) - here:
        platform.disk.written[url] -= timedelta(days=2).total_seconds()
    assert states(rounds) == OPEN_ONES
    assert set(marks(platform)) == here
    # its writer was only slow
    write(ledger, ENDS.index("landed"), "claimed")
    assert states(rounds) == ["claimed", "failed", "running"]


def test_marks_of_a_slow_loser_never_bring_an_old_state_back(platform, ledger):
    rounds = Rounds(Ledger(platform.store))
    number = ENDS.index("running")
    rounds.survey()
    Marks(platform.store).announce(version_of(number).folder, 3)
    rounds.survey()
    write(ledger, number, "released")
    Marks(platform.store).announce(version_of(number).folder, 2)
    Marks(platform.store).announce(version_of(number).folder, 3)
    assert states(rounds) == ["failed", "landed"]
    Marks(platform.store).announce(version_of(number).folder, 3)
    assert states(rounds) == ["failed", "landed"]
    assert not [url for url in marks(platform) if f"ledger-open/lab_{number % 3}/b{number}/" in url]


def test_mark_that_comes_after_another_trigger_closed_its_version_brings_nothing_back(platform, ledger):
    mine, other = Rounds(Ledger(platform.store)), Rounds(Ledger(platform.store))
    assert states(mine) == states(other) == OPEN_ONES
    number = ENDS.index("running")
    write(ledger, number, "released")
    assert states(other) == ["failed", "landed"]
    Marks(platform.store).announce(version_of(number).folder, 3)
    assert states(mine) == ["failed", "landed"]


def test_run_that_another_trigger_brought_to_its_end_is_let_go(platform, make):
    deliver(platform.landing)
    cluster = Cluster(platform.store)
    mine, other = make(cluster), make(cluster, pace=Pace(backoff_s=0.0, tick_s=0.0, lease_s=0.0))
    mine.look()
    mine.advance()
    (run_id,) = cluster.live
    cluster.end(run_id)
    other.advance()
    assert [item.state for item in other.taken()] == ["released"]
    cluster.live.add(run_id)  # to this trigger it still seems alive
    mine.advance()
    assert mine._flights == {}


def test_version_whose_folder_was_removed_from_the_ledger_is_new_after_a_restart(platform, make):
    deliver(platform.landing)
    make().run_once()
    assert make().run_once() == []
    for url in [url for url in platform.disk.objects if "/ledger/lab_b/" in url or "/runs/" in url]:
        del platform.disk.objects[url]
    assert [item.state for item in make().run_once()] == ["released"]
    assert make().run_once() == []


def test_manifest_that_an_earlier_release_wrote_down_is_read_by_one_start_alone(platform, make):
    for batch in ("b1", "b2"):
        deliver(platform.landing, batch=batch)
    make().run_once()
    for url, body in list(platform.disk.objects.items()):
        if "/ledger/" in url and "/states/" in url:
            state = LedgerState.stored(body, url).model_copy(update={"manifest_etag": ""})
            platform.disk.objects[url] = state.to_json().encode()
    unmarked(platform)
    reads = []
    for _ in range(3):
        platform.disk.asked.clear()
        make().look()
        reads.append(
            len([url for verb, url in platform.disk.asked if verb == "GET" and url.startswith("s3://landing")])
        )
    assert reads == [2, 0, 0]


@given(
    st.sampled_from(["released", "incumbent_kept", "held", "refused"]), st.integers(0, 3), st.integers(1, 20_000),
    st.text("0123456789abcdef-", max_size=70) | st.text(max_size=20), st.integers(0, 4_000_000_000),
)  # fmt: skip
def test_name_of_a_closed_mark_says_what_it_was_made_of(end, attempt, sequence, etag, second):
    kept = {}

    class Store:
        def put_if_absent(self, key, data):
            kept[key] = data

        def list(self, prefix):
            return [type("Item", (), {"key": key}) for key in kept if key.startswith(prefix)]

    version, at = version_of(7), datetime.fromtimestamp(second, UTC)
    state = LedgerState(
        sequence=sequence, state=end, at=at, source=version.source, batch=version.batch, manifest_digest=version.digest,
        manifest_key=version.key, run_id="r", owner="o", attempt=attempt, manifest_etag=etag,
    )  # fmt: skip
    made = Marks(Store()).close(state, at)
    assert list(Marks(Store()).closed()) == [made]
    assert (made.folder, made.sequence, made.state, made.ran, made.at) == (
        version.folder,
        sequence,
        end,
        attempt > 0,
        at,
    )
    assert made.etag in {etag, ""}
    assert all(len(key) < 1024 for key in kept)
