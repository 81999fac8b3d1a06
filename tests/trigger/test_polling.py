"""A look at the landing prefix costs what is new, and nothing that a look of every name would find is lost."""

from contextlib import suppress
from math import ceil

import pytest
from conftest_trigger import Immediate, deliver, in_memory, manifest_of
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import load_params
from coda.errors import TransientError
from coda.trigger import polling
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

FAST = Pace(backoff_s=0.0, tick_s=0.0, lease_s=60.0)
SOURCES = 4


@pytest.fixture
def make(platform, demo_params):
    return lambda **more: Trigger(platform.settings, Immediate(platform.store), params=demo_params, pace=FAST, **more)


def fill(platform, folders, first=0):
    """Deliver batches of several sources; the one of the highest number is the newest."""
    for number in range(first, first + folders):
        deliver(platform.landing, *name(number), files=False)
        platform.landing.put(f"{'/'.join(name(number))}/images/a.tif", b"abc")
        # written long before, in this order: the store's clock decides which changed last
        for key in platform.disk.written:
            if key.startswith(f"s3://landing/in/{'/'.join(name(number))}/"):
                platform.disk.written[key] -= 100_000 - number


def name(number):
    return f"lab_{number % SOURCES}", f"b{number:04}"


def digests(platform):
    return {(state.source, state.batch, state.manifest_digest) for state in Ledger(platform.store).newest()}


def looked(platform, act):
    platform.disk.asked.clear()
    act()
    return [(verb, url) for verb, url in platform.disk.asked if url.startswith("s3://landing")]


def test_a_look_costs_the_same_however_much_lies_there_and_finds_what_is_new(platform, make):
    fill(platform, 300)
    trigger = make()
    trigger.look()
    assert len(digests(platform)) == 300
    most = 1 + SOURCES + polling.WATCHED + polling.SWEPT
    assert len(looked(platform, trigger.look)) <= most
    fill(platform, 100, first=300)
    trigger.look()
    assert len(digests(platform)) == 400
    asked = looked(platform, trigger.look)
    assert len(asked) == most
    assert {verb for verb, _ in asked} == {"LIST", "HEAD"}
    assert not [url for _, url in asked if "images" in url]


def test_replaced_manifest_is_seen_at_once_where_it_was_recent_and_in_its_turn_elsewhere(platform, make):
    fill(platform, 300)
    trigger = make()
    trigger.look()
    new = deliver(platform.landing, *name(299), " serviced", files=False).digest()
    trigger.look()
    assert (*name(299), new) in digests(platform)
    old = deliver(platform.landing, *name(3), " serviced", files=False).digest()
    for _ in range(ceil(300 / polling.SWEPT)):
        trigger.look()
    assert (*name(3), old) in digests(platform)


@pytest.mark.parametrize("way", ["start", "once"])
def test_a_start_reads_no_manifest_that_is_in_the_ledger(platform, make, way):
    fill(platform, 200)
    make().look()
    replaced = deliver(platform.landing, *name(0), " serviced", files=False).digest()
    trigger = make()
    asked = looked(platform, trigger.look if way == "start" else lambda: trigger.look(everything=True))
    read = [url for verb, url in asked if verb == "GET"]
    if way == "once":
        assert read == [f"s3://landing/in/{'/'.join(name(0))}/manifest.json"]
        assert (*name(0), replaced) in digests(platform)
    else:
        assert len(read) <= 1


def test_batches_of_ignored_sources_are_not_asked_for(platform, make):
    fill(platform, 8)
    asked = looked(platform, make(ignore_sources=["lab_1"]).look)
    assert not [url for _, url in asked if "/lab_1/" in url]
    assert {source for source, *_ in digests(platform)} == {"lab_0", "lab_2", "lab_3"}


@pytest.mark.parametrize(
    "key", ["manifest.json", "lab_0/manifest.json", "lab_0/x/b1/manifest.json", "s/a/b/c/d/manifest.json"]
)
def test_misplaced_manifest_is_refused_in_words_and_found_again_when_it_changes(platform, make, key):
    fill(platform, 4)
    trigger = make()
    trigger.look()
    platform.landing.put(key, manifest_of("lab_0", "b1").to_json().encode())
    trigger.look()
    platform.landing.put(key, manifest_of("lab_0", "b1", " serviced").to_json().encode())
    for _ in range(4):
        trigger.look()
    misplaced = [state for state in Ledger(platform.store).newest() if state.source == "unplaced"]
    assert [state.state for state in misplaced] == ["refused", "refused"]
    assert "<source>/<batch>/manifest.json" in misplaced[0].reasons[0]
    assert len(looked(platform, trigger.look)) < 60


def test_manifest_that_comes_deeper_after_its_folder_is_found_in_its_turn(platform, make):
    trigger = make()
    for folder in ("a", "b", "c"):
        platform.landing.put(f"lab_0/{folder}/images/1.tif", b"abc")
    trigger.look()
    platform.landing.put("lab_0/b/sub/manifest.json", b"{")
    for _ in range(3):
        trigger.look()
    assert [state.source for state in Ledger(platform.store).newest()] == ["unplaced"]


def test_search_for_misplaced_manifests_has_an_end(platform, make):
    for number in range(200):
        platform.landing.put(f"lab_0/uploading/images/plate_{number:03}/1.tif", b"abc")
    trigger = make()
    trigger.look()
    assert len(looked(platform, trigger.look)) == 1 + 1 + 1 + polling.WALK


def test_folder_is_watched_until_its_manifest_comes_last(platform, make):
    fill(platform, 300)
    trigger = make()
    trigger.look()
    deliver(platform.landing, "lab_0", "late", manifest=False)
    for _ in range(3):
        trigger.look()
    deliver(platform.landing, "lab_0", "late")
    trigger.look()
    assert "late" in {batch for _, batch, _ in digests(platform)}


def test_version_that_finds_its_manifest_replaced_has_the_new_one_looked_at_next(platform, make):
    for number in range(300):
        deliver(platform.landing, *name(number))
    for key in platform.disk.written:
        if f"/in/{name(0)[0]}/{name(0)[1]}/" in key:
            platform.disk.written[key] -= 1000
    trigger = make()
    trigger.look()
    new = deliver(platform.landing, *name(0), " serviced")
    platform.disk.written[f"s3://landing/in/{'/'.join(name(0))}/manifest.json"] -= 1000
    trigger._start(next(state for state in trigger.ledger.newest("/".join(name(0)))))
    trigger.look()
    assert (*name(0), new.digest()) in digests(platform)


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"])


WORLD = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 11), st.sampled_from(["", " 2", " 3"])),
        st.tuples(st.just("upload"), st.integers(0, 11)),
        st.tuples(st.just("remove"), st.integers(0, 11)),
        st.tuples(st.just("look")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("away"), st.integers(0, 30)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(WORLD)
def test_every_manifest_that_stays_gets_into_the_ledger_within_the_bound(params, world):
    """Whatever is replaced, put back or removed, and whatever request fails: with few folders watched and swept."""
    with pytest.MonkeyPatch.context() as patch:
        platform = in_memory(patch.setattr)
        patch.setattr("coda.trigger.polling.WATCHED", 2)
        patch.setattr("coda.trigger.polling.SWEPT", 2)
        make = lambda: Trigger(platform.settings, Immediate(platform.store), params=params, pace=FAST)  # noqa: E731
        trigger = make()
        for verb, *more in world:
            if verb == "restart":
                trigger = make()
            elif verb == "away":
                platform.disk.how, platform.disk.countdown = "away-before", more[0]
            elif verb == "look":
                with suppress(TransientError):
                    trigger.look()
            else:
                pending, platform.disk.countdown = platform.disk.countdown, None
                source, batch = name(more[0])
                if verb == "deliver":
                    deliver(platform.landing, source, batch, more[1], files=False)
                elif verb == "upload":
                    platform.landing.put(f"{source}/{batch}/images/a.tif", b"abc")
                else:
                    platform.landing.delete(f"{source}/{batch}/manifest.json")
                platform.disk.countdown = pending
        platform.disk.countdown = None
        for _ in range(ceil(12 / 2) + 1):
            trigger.look()
        there = {
            url for url in platform.disk.objects if url.startswith("s3://landing") and url.endswith("manifest.json")
        }
        for url in there:
            source, batch = url.split("/")[4:6]
            known = Ledger(platform.store).newest(f"{source}/{batch}")
            current = [
                n
                for n in ("", " 2", " 3")
                if platform.disk.objects[url] == manifest_of(source, batch, n).to_json().encode()
            ]
            assert manifest_of(source, batch, current[0]).digest() in {state.manifest_digest for state in known}
