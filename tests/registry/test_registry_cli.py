"""`coda registry` as a person and as a program use it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest_registry import Trained

from coda.contracts import PointerEntry, ReleaseRecord
from coda.errors import ConfigError, IntegrityError
from coda.registry import ConflictError, Provenance, list_versions, promote, register_extractor
from coda.registry.mlflow_client import connect
from coda.settings import Settings
from coda.storage.data_registry import create_registry
from coda.storage.objects import store_for


@pytest.fixture
def record(release_of: Callable[..., ReleaseRecord], trained: Trained) -> ReleaseRecord:
    return release_of(trained)


def test_an_hour_of_an_engineer(run: Callable[..., str], services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="It is good.", settings=services)
    second = record.model_copy(update={"release_id": "rel-2", "head": record.heads[1], "alignment": "standardise"})
    promote(second, "lab_a", by="gate", reason="It is better.", settings=services)

    listed = json.loads(run("list", "--json"))
    assert listed["serving"]["lab_a"]["release"]["release_id"] == "rel-2"
    assert [(item["name"], item["version"]) for item in listed["versions"]] == [
        ("coda-extractor", 1), ("coda-head", 1), ("coda-head", 2),
    ]  # fmt: skip
    assert listed["versions"][2]["aliases"] == ["serving-lab_a"]
    shown = run("list")
    assert shown.splitlines()[0].startswith("source\trelease")
    assert "rel-2" in shown
    assert "head/2" not in shown
    assert "head/2" in run("list", "--versions")
    assert "It is good." in run("history", "lab_a")
    assert json.loads(run("show", "lab_a", "--json"))["release_id"] == "rel-2"
    assert json.loads(run("show", "rel-1", "--json"))["alignment"] == "none"
    assert json.loads(run("show", "head/2", "--json"))["alignment"] == "standardise"
    assert "gate_sentence" in run("show", "rel-1")

    said = run("rollback", "lab_a", "--reason", "fewer hits", "--by", "Ada")
    assert "now served by release rel-1" in said
    with pytest.raises(ConflictError):
        run("promote", "rel-2", "--reason", "again", "--expected", "2")
    entry = json.loads(run("promote", "rel-2", "--reason", "again", "--by", "Ada", "--expected", "3", "--json"))
    assert (entry["sequence"], entry["by"], entry["release"]["approver"]) == (4, "Ada", "Ada")
    entries = json.loads(run("history", "lab_a", "--json"))
    assert [item["action"] for item in entries] == ["promote", "promote", "rollback", "promote"]
    at = json.loads(run("history", "lab_a", "--at", entries[1]["at"], "--json"))
    assert [item["release"]["release_id"] for item in at] == ["rel-2"]
    assert "Nothing served" in run("history", "lab_a", "--at", "2020-01-01")
    assert "verified" in run("verify")


def test_names_that_are_not_there(run: Callable[..., str], record: ReleaseRecord) -> None:
    assert "Nothing served 'lab_a'" in run("history", "lab_a")
    for arguments in (
        ("show", "rel-9"),
        ("show", "head/9"),
        ("promote", "rel-9", "--reason", "x"),
        ("rollback", "lab_a", "--reason", "x"),
        ("history", "lab_a", "--at", "yesterday"),
    ):
        with pytest.raises(ConfigError):
            run(*arguments)


def test_an_empty_registry_says_what_comes_first(run: Callable[..., str]) -> None:
    assert "training pipeline" in run("list")
    found = json.loads(run("verify", "--all", "--json"))
    assert found == {"serving": {}, "versions_fetched": 0, "problems": [], "aliases": [], "repaired": []}


def test_verify_names_the_changed_file(run: Callable[..., str], services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="It is good.", settings=services)
    for stored in Path(services.mlflow_artifacts.removeprefix("file://")).rglob("labels.json"):
        stored.write_bytes(b"[]")
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        run("verify")


def test_what_served_on_a_day(run: Callable[..., str], services: Settings, record: ReleaseRecord) -> None:
    """The log is written by hand, as three days in March made it."""
    store = store_for(services.platform, services)

    def entry(scope: str, sequence: int, release: str, at: str) -> None:
        moved = PointerEntry(
            sequence=sequence, scope=scope, action="promote", by="Ada", reason=f"because of {release}",
            release=record.model_copy(update={"release_id": release}), at=datetime.fromisoformat(at),
        )  # fmt: skip
        store.put(f"releases/{scope}/{sequence:06d}.json", moved.to_json().encode())

    entry("default", 1, "base-1", "2026-03-01T08:00+00:00")
    entry("default", 2, "base-2", "2026-03-05T08:00+00:00")
    entry("source_5", 1, "own-1", "2026-03-03T14:00+00:00")
    entry("source_5", 2, "own-2", "2026-03-03T23:30+00:00")

    def served(at: str) -> list[tuple[str, str]]:
        return [(e["scope"], e["release"]["release_id"]) for e in json.loads(run("history", "source_5", "--at", at,
                                                                                 "--json"))]  # fmt: skip

    assert served("2026-02-28") == []
    assert served("2026-03-02") == [("default", "base-1")]
    assert served("2026-03-03") == [("default", "base-1"), ("source_5", "own-1"), ("source_5", "own-2")]
    assert served("2026-03-03T13:59") == [("default", "base-1")]
    assert served("2026-03-03T14:00") == [("source_5", "own-1")]
    assert served("2026-03-03T14:59+01:00") == [("default", "base-1")]
    assert served("2026-03-04T00:29:59+01:00") == [("source_5", "own-1")]
    assert served("2026-03-06") == [("source_5", "own-2")]  # the default's later move does not concern it
    shown = run("history", "source_5", "--at", "2026-03-03")
    assert "Ada" in shown
    assert "because of own-2" in shown


def test_tables_fit_a_terminal(
    run: Callable[..., str], services: Settings, record: ReleaseRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(record.model_copy(update={"release_id": "adapt-source-5-week-12-3f2a9c1d"}), "lab_a", by="gate",
            reason="Better than doing nothing by 0.031 [0.012, 0.050] of retrieval.", settings=services)  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("diff", "head/1", "head/2").splitlines()
    assert max(map(len, lines)) <= 80
    create_registry(Path(services.data_registry), services.data_remote)
    assert "adapt-source-5-week-12-3f2a9c1d" in run("show", "lab_a")
    assert run("gc") == "Nothing older than 7 day(s) is without a reference.\n"
    listed = run("list", "--versions")
    for whole in ("extractor/1", "head/2", "lab_a"):
        assert whole in listed


def test_an_alias_moved_by_hand_is_an_exit_code_and_is_put_back(
    run: Callable[..., str], services: Settings, record: ReleaseRecord
) -> None:
    promote(record, "lab_a", by="gate", reason="It is good.", settings=services)
    other = str(record.heads[1].version)
    connect(services).set_registered_model_alias("coda-head", "serving-lab_a", other)
    with pytest.raises(ConflictError, match="--repair") as caught:
        run("verify")
    assert caught.value.exit_code == 1
    assert f"found version {other}" in str(caught.value)
    assert "Put back: coda-head@serving-lab_a" in run("verify", "--repair")
    assert json.loads(run("verify", "--json"))["aliases"] == []


def test_two_versions_side_by_side(
    run: Callable[..., str], services: Settings, trained: Trained, adapted: Path, record: ReleaseRecord
) -> None:
    for number, rate in ((1, 0.001), (2, 0.002)):
        facts = Provenance(
            run_id=f"adapt-{number}", source="lab_b", params_digest=str(number) * 64, code_version=f"commit{number}",
            params={"seed": 0, "coda": {"learning_rate": rate, "steps": 10}},
        )  # fmt: skip
        folder = trained.pretrained if number == 1 else adapted
        register_extractor(folder / "extractor", folder / "state", facts, settings=services)
    found = json.loads(run("diff", "extractor/2", "extractor/3", "--json"))
    rows = {(row["section"], row["name"]): (row["left"], row["right"]) for row in found["rows"]}
    assert rows["parameter", "coda.learning_rate"] == ("0.001", "0.002")
    assert rows["fact", "code version"] == ("commit1", "commit2")
    assert ("parameter", "seed") not in rows
    assert {block for block, distance in found["weights"]["extractor"].items() if distance} == {"cls_token"}
    shown = run("diff", "extractor/2", "extractor/3")
    assert "coda.learning_rate" in shown
    assert "cls_token" in shown
    promote(record, "lab_a", by="gate", reason="It is good.", settings=services)
    assert "The weights are the same." in run("diff", "lab_a", "rel-1")
    with pytest.raises(ConfigError, match="rel-9"):
        run("diff", "lab_a", "rel-9")


def test_garbage_is_listed_before_it_is_deleted(
    run: Callable[..., str], services: Settings, record: ReleaseRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_registry(Path(services.data_registry), services.data_remote)
    promote(record.model_copy(update={"heads": ()}), "lab_a", by="gate", reason="It is good.", settings=services)
    assert "Nothing older than 7 day(s)" in run("gc")
    monkeypatch.setattr("coda.cli.registry_upkeep._now", lambda: datetime.now(UTC) + timedelta(days=8))
    listed = json.loads(run("gc", "--json"))
    assert [(item["kind"], item["name"]) for item in listed["items"]] == [("version", "coda-head/2")]
    assert listed["deleted"] is False
    assert listed["bytes"] == listed["items"][0]["size"] > 10_000
    assert "add --yes" in run("gc")
    assert len(list_versions(services)) == 3
    assert "deleted." in run("gc", "--yes")
    assert len(list_versions(services)) == 2
    assert json.loads(run("verify", "--all", "--json"))["problems"] == []


def test_cards_come_from_the_records(run: Callable[..., str], services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="Ada", reason="It is good.", settings=services)
    card = run("card", "head/1")
    for words in ("# coda-head version 1", "3 classes: actin, kinase, tubulin", record.head.digest, "lab_a since",
                  "models:/coda-head/1"):  # fmt: skip
        assert words in card
    card = run("card", "lab_a")
    for words in ("# Release rel-1", record.extractor.digest, record.head.digest, "by Ada: It is good.", "## Limits"):
        assert words in card
    assert json.loads(run("card", "rel-1", "--json"))["card"] == card
