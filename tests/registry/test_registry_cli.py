"""`coda registry` as a person and as a program use it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest_registry import Trained
from typer.testing import CliRunner

from coda.cli.registry import app
from coda.contracts import ReleaseRecord
from coda.errors import ConfigError, IntegrityError
from coda.registry import ConflictError, promote
from coda.settings import Settings


@pytest.fixture
def run(services: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command, returning what it prints; errors come through as they are."""
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "220")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


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
    assert "What serves" in shown
    assert "rel-2" in shown
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
    assert "Nothing" in run("history", "lab_a", "--at", "2020-01-01")
    assert "verified" in run("verify")


def test_names_that_are_not_there(run: Callable[..., str], record: ReleaseRecord) -> None:
    assert "Nothing of its own served" in run("history", "lab_a")
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
    assert json.loads(run("verify", "--json")) == {"checked": [], "problems": [], "aliases": []}


def test_verify_names_the_changed_file(run: Callable[..., str], services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="It is good.", settings=services)
    for stored in Path(services.mlflow_artifacts.removeprefix("file://")).rglob("labels.json"):
        stored.write_bytes(b"[]")
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        run("verify")
