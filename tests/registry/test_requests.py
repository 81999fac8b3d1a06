"""What the registry's commands ask as the log, the drafts and the versions grow: counted, at two sizes, never timed."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from conftest_registry import Trained, provenance
from counting import requests_to

from coda.contracts import PointerEntry, ReleaseRecord
from coda.contracts.base import digest_of_json
from coda.errors import ConfigError
from coda.registry import ReleaseLog, list_versions, promote, register_extractor
from coda.registry.drafts import WAITING, find_release, named_release, release_name
from coda.registry.garbage import find_garbage
from coda.registry.mirror import drift, restore
from coda.registry.mlflow_client import connect
from coda.registry.release_index import KEY
from coda.registry.verification import verify_registry
from coda.settings import Settings
from coda.storage.data_registry import create_registry
from coda.storage.objects import ObjectStore, store_for

Make = Callable[..., ReleaseRecord]
NOTHING = {"outcome": "hold"}
"""Stands for a gate's report where only its digest counts."""


@pytest.fixture
def store(services: Settings) -> ObjectStore:
    return store_for(services.platform, services)


@pytest.fixture
def record(release_of: Make, trained: Trained) -> ReleaseRecord:
    return release_of(trained)


def grown(store: ObjectStore, record: ReleaseRecord, releases: range) -> None:
    """Releases over two sources, each with the draft of its run, as the gate's promotions leave them."""
    for number in releases:
        scope, name = f"lab_{number % 2}", f"old-{number}"
        release = record.model_copy(update={"release_id": name, "run_id": name, "source": scope})
        entry = PointerEntry(
            sequence=number // 2 + 1, scope=scope, action="promote", release=release, by="gate", reason="Better.",
            at=datetime.now(UTC),
        )  # fmt: skip
        store.put(f"releases/{scope}/{entry.sequence:06d}.json", entry.to_json().encode())
        store.put(f"runs/{name}/release.json", release.to_json().encode())


def waiting(store: ObjectStore, record: ReleaseRecord, name: str) -> ReleaseRecord:
    changed = {"release_id": name, "run_id": name, "source": "lab_0", "approver": WAITING}
    draft = record.model_copy(update=changed | {"gate_digest": digest_of_json(NOTHING)})
    store.put(f"runs/{name}/gate.json", json.dumps(NOTHING).encode())
    store.put(f"runs/{name}/release.json", draft.to_json().encode())
    return draft


def promoted(name: str, store: ObjectStore, settings: Settings) -> Counter[str]:
    with requests_to(store) as counts:
        promote(named_release(name, settings=settings), "lab_0", by="Ada", reason="Seen.", settings=settings)
    return counts


def test_a_waiting_draft_is_promoted_with_as_many_requests_whatever_has_been_released(
    services: Settings, store: ObjectStore, record: ReleaseRecord
) -> None:
    grown(store, record, range(4))
    waiting(store, record, "waits-0")
    promoted("waits-0", store, services)  # the log was written by a program without an index: all of it is read once
    waiting(store, record, "waits-1")
    few = promoted("waits-1", store, services)
    grown(store, record, range(40, 80))
    waiting(store, record, "waits-2")
    promoted("waits-2", store, services)
    waiting(store, record, "waits-3")
    many = promoted("waits-3", store, services)
    assert many == few
    assert sum(many.values()) < 30


def test_a_draft_is_looked_up_where_its_run_left_it(
    services: Settings, store: ObjectStore, record: ReleaseRecord
) -> None:
    """A run whose id is no safe name has a folder of another name than its release."""
    draft = waiting(store, record, "adapt-1")
    awkward = draft.model_copy(update={"release_id": release_name("by-hand: 1"), "run_id": "by-hand: 1"})
    store.put(f"runs/{awkward.run_id}/release.json", awkward.to_json().encode())
    store.put("runs/other/release.json", b"not a draft")  # of no concern to whoever asks for another
    assert find_release("adapt-1", settings=services) == draft
    assert find_release(awkward.release_id, settings=services) == awkward
    assert find_release("adapt-2", settings=services) is None
    with pytest.raises(ConfigError, match="no such release"):
        named_release("other-2", settings=services)


def test_index_that_is_cut_or_behind_changes_no_answer(
    services: Settings, store: ObjectStore, record: ReleaseRecord
) -> None:
    grown(store, record, range(6))
    log = ReleaseLog(services)
    before = {name: log.released(name) for name in ("old-0", "old-3", "old-5", "old-6")}
    assert [found is not None for found in before.values()] == [True, True, True, False]
    log.index()
    whole = json.loads(store.get(KEY))
    assert {name for _, name in whole["entries"].values()} == {f"old-{number}" for number in range(6)}
    behind = {**whole, "entries": dict(list(whole["entries"].items())[:2])}
    # an entry that was written over, as only damage can: its old tag says nothing of it
    other = {**whole, "entries": {key: ["0" * 32, "old-6"] for key in whole["entries"]}}
    for text in (json.dumps(whole), json.dumps(whole)[:40], "[]", "", json.dumps(behind), json.dumps(other)):
        store.put(KEY, text.encode())
        assert {name: log.released(name) for name in before} == before, text[:60]
        log.index()
        assert json.loads(store.get(KEY)) == whole


def test_what_the_log_says_of_a_release_comes_before_its_draft(
    services: Settings, store: ObjectStore, record: ReleaseRecord
) -> None:
    draft = waiting(store, record, "waits")
    seen = draft.model_copy(update={"approver": "Ada"})
    promote(seen, "lab_0", by="Ada", reason="Seen.", settings=services)
    store.put("runs/waits/release.json", draft.model_copy(update={"alignment": "coral"}).to_json().encode())
    assert find_release("waits", settings=services) == seen


def asked_of_mlflow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls of MLflow's client from here on, by name."""
    counts: Counter[str] = Counter()
    client = connect(settings)

    class Counting:
        def __getattr__(self, name: str) -> object:
            counts[name] += 1
            return getattr(client, name)

    monkeypatch.setattr("coda.registry.mlflow_client._client", lambda uri: Counting())
    return counts


def register_more(settings: Settings, trained: Trained, runs: range) -> None:
    for number in runs:
        facts = provenance(f"more-{number}", "lab_a")
        register_extractor(trained.pretrained / "extractor", None, facts, settings=settings)


def test_what_all_versions_cost_is_a_listing(
    services: Settings, record: ReleaseRecord, trained: Trained, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files are, and which digest a version has, stands in the listing: no question for each version."""
    create_registry(Path(services.data_registry), services.data_remote)
    grown(store, record, range(2))
    later = datetime.now(UTC) + timedelta(days=1)
    found = []
    for runs in (range(1), range(1, 5)):
        register_more(services, trained, runs)
        with monkeypatch.context() as patch:
            counts = asked_of_mlflow(services, patch)
            verified = verify_registry(settings=services, everything=True)
            garbage = [item for item in find_garbage(settings=services, before=later) if item.kind == "version"]
            found.append((counts, verified.versions, len(garbage)))
    (few, two, kept), (many, more, left) = found
    assert (more - two, left - kept) == (4, 4)
    assert "get_model_version_download_uri" not in few
    assert many == few


def test_listings_of_mlflow_have_no_last_line_that_is_left_out(
    services: Settings, record: ReleaseRecord, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow gives one page and says so by a token: here of two lines, where it is of a hundred and of ten thousand."""
    register_more(services, trained, range(4))
    client = connect(services)
    for name in ("a-neighbour", "b-neighbour", "c-neighbour"):
        client.create_registered_model(name)
    promote(record, "lab_a", by="gate", reason="Good.", settings=services)
    whole = list_versions(services)
    for name in ("search_model_versions", "search_registered_models"):
        monkeypatch.setattr(client, name, partial(getattr(client, name), max_results=2))
    assert list_versions(services) == whole
    assert len(whole) == 7
    assert drift(settings=services) == []


def test_garbage_reads_each_release_once_and_no_draft_that_the_log_has(
    services: Settings, record: ReleaseRecord, store: ObjectStore
) -> None:
    create_registry(Path(services.data_registry), services.data_remote)
    later = datetime.now(UTC) + timedelta(days=1)

    def looked() -> tuple[Counter[str], list[str]]:
        with requests_to(store) as counts:
            found = find_garbage(settings=services, before=later)
        return counts, [item.name for item in found if item.kind == "draft"]

    grown(store, record, range(4))
    few, none = looked()
    grown(store, record, range(4, 24))
    many, still_none = looked()
    assert many - few == Counter({"GetObject": 20})
    assert none == still_none == []
    # a draft that differs by one byte from what the log says is read, and is what it says
    lost = record.model_copy(update={"release_id": "lost", "run_id": "old-3"})
    store.put("runs/old-3/release.json", lost.to_json().encode())
    other, drafts = looked()
    assert other - many == Counter({"GetObject": 1})
    assert drafts == ["runs/old-3/release.json"]


def test_listing_what_serves_reads_the_newest_of_each_scope(
    services: Settings, record: ReleaseRecord, store: ObjectStore
) -> None:
    grown(store, record, range(4))
    with requests_to(store) as few:
        first = ReleaseLog(services).pointers()
    grown(store, record, range(4, 40))
    with requests_to(store) as many:
        second = ReleaseLog(services).pointers()
    assert few == many == Counter({"ListObjectsV2": 1, "GetObject": 2})
    assert {scope: entry.sequence for scope, entry in first.items()} == {"lab_0": 2, "lab_1": 2}
    assert {scope: entry.sequence for scope, entry in second.items()} == {"lab_0": 20, "lab_1": 20}
    assert second == {scope: ReleaseLog(services).entry(scope) for scope in ("lab_0", "lab_1")}


def test_one_alias_is_put_back_by_reading_one_pointer(
    services: Settings, record: ReleaseRecord, store: ObjectStore
) -> None:
    grown(store, record, range(2))
    places = {f"{ref.name}@serving-lab_{k}" for ref in (record.extractor, record.head) for k in range(2)}
    assert {problem.where for problem in drift(settings=services)} == places
    with requests_to(store) as counts:
        assert restore("coda-head@serving-lab_1", settings=services)
    assert counts == Counter({"ListObjectsV2": 1, "GetObject": 1})
    assert not restore("coda-head@serving-lab_1", settings=services)
    assert {problem.where for problem in drift(settings=services)} == places - {"coda-head@serving-lab_1"}
