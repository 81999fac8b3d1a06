"""`verify` finds what was changed behind the program's back; MLflow's API and plain files do the changing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest_registry import Trained

from coda.contracts import GateReport, ReleaseRecord
from coda.registry import describe, promote
from coda.registry.mirror import drift, repair, restore
from coda.registry.mlflow_client import connect
from coda.registry.verification import verify_registry, verify_version
from coda.settings import Settings
from coda.storage.objects import store_for


@pytest.fixture
def record(release_of: Callable[..., ReleaseRecord], trained: Trained) -> ReleaseRecord:
    return release_of(trained)


def stored(settings: Settings) -> Path:
    """Where the extractor's files are."""
    root = Path(settings.mlflow_artifacts.removeprefix("file://"))
    return next(path.parents[3] for path in root.rglob("data/package/state/config.json"))


def test_every_file_of_a_version_is_watched(services: Settings, record: ReleaseRecord) -> None:
    version = describe(record.extractor, settings=services)
    assert verify_version(version, settings=services) == []
    root = stored(services)
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    assert {"MLmodel", "data/package/provenance.json", "data/package/model_card.md"} <= set(names)
    for name in names:
        before = (root / name).read_bytes()
        (root / name).write_bytes(before + b" ")
        found = verify_version(version, settings=services)
        assert any(name in problem.where for problem in found), name
        (root / name).write_bytes(before)
    (root / "data/package/code.py").write_text("print()")
    assert [problem.where for problem in verify_version(version, settings=services)] == [
        "coda-extractor version 1/data/package/code.py"
    ]
    (root / "data/package/code.py").unlink()
    (root / "MLmodel").unlink()
    assert "no such file" in str(verify_version(version, settings=services))


def test_a_tag_that_somebody_changed_is_named(services: Settings, record: ReleaseRecord) -> None:
    connect(services).set_model_version_tag("coda-extractor", "1", "source", "lab_z")
    found = verify_version(describe(record.extractor, settings=services), settings=services)
    assert [(problem.where, problem.found) for problem in found] == [
        ("coda-extractor version 1: tag source", "'lab_z'")
    ]
    assert verify_registry(settings=services, everything=True).problems == tuple(found)


def test_the_gate_report_of_a_release_is_compared_with_its_digest(services: Settings, record: ReleaseRecord) -> None:
    report = GateReport(
        source="lab_a", batch="b1", manifest_digest="0" * 64, policy_version="v1", baseline="unadapted",
        candidates=(), outcome="release", chosen="coda", sentence="Better.",
    )  # fmt: skip
    judged = record.model_copy(update={"gate_digest": report.digest()})
    promote(judged, "lab_a", by="gate", reason="good", settings=services)
    store, key = store_for(services.platform, services), f"runs/{record.run_id}/gate.json"
    store.put(key, report.to_json().encode())
    assert verify_registry(settings=services).problems == ()
    store.put(key, report.to_json().replace("Better.", "Much better.").encode())
    assert [problem.where for problem in verify_registry(settings=services).problems] == [f"release rel-1: {key}"]
    store.put(key, b"[")
    assert len(verify_registry(settings=services).problems) == 1


def test_a_past_release_whose_model_is_gone_is_named(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    other = record.model_copy(update={"release_id": "rel-2", "head": record.heads[1], "alignment": "standardise",
                                      "heads": ()})  # fmt: skip
    promote(other, "lab_a", by="gate", reason="better", settings=services)
    client = connect(services)
    client.delete_model_version("coda-head", str(record.head.version))
    assert verify_registry(settings=services).problems == ()
    found = verify_registry(settings=services, everything=True)
    assert [problem.where for problem in found.problems] == [f"release rel-1: coda-head version {record.head.version}"]
    assert found.serving == {"lab_a": "rel-2"}


def test_a_damaged_log_does_not_hide_the_rest(services: Settings, record: ReleaseRecord) -> None:
    for number in (1, 2):
        promote(record.model_copy(update={"release_id": f"rel-{number}"}), "lab_a", by="gate", reason="good",
                settings=services)  # fmt: skip
    promote(record, "lab_b", by="gate", reason="good", settings=services)
    store = store_for(services.platform, services)
    store.put("releases/lab_a/000001.json", b"{")
    found = verify_registry(settings=services)
    assert found.serving == {"lab_b": "rel-1"}
    assert any("000001.json" in problem.where for problem in found.problems)


def test_aliases_are_put_back_from_the_log(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    client = connect(services)
    client.set_registered_model_alias("coda-head", "serving-lab_a", str(record.heads[1].version))
    client.set_registered_model_alias("coda-head", "serving-lab_z", "1")
    client.set_registered_model_alias("coda-head", "the-best-of-Ada", "1")
    client.delete_registered_model_alias("coda-extractor", "serving-lab_a")
    assert len(drift(settings=services)) == 3
    assert repair(settings=services) == []
    head = client.get_registered_model("coda-head")
    assert {alias: int(version) for alias, version in head.aliases.items()} == {
        "serving-lab_a": record.head.version,
        "the-best-of-Ada": 1,
    }
    assert int(client.get_model_version_by_alias("coda-extractor", "serving-lab_a").version) == 1


def test_an_alias_whose_version_is_gone_is_left_and_said(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    client = connect(services)
    client.set_registered_model_alias("coda-extractor", "serving-lab_z", "1")
    client.delete_model_version("coda-head", str(record.head.version))
    assert not restore("coda-head@serving-lab_a", settings=services)
    assert restore("coda-extractor@serving-lab_z", settings=services)
    assert not restore("coda-extractor@serving-lab_z", settings=services)
    assert [problem.where for problem in repair(settings=services)] == ["coda-head@serving-lab_a"]


def test_what_a_version_carries(services: Settings, record: ReleaseRecord, trained: Trained) -> None:
    digests = json.loads((trained.heads / "none" / "digests.json").read_text())
    tags = describe(record.heads[0], settings=services).tags
    assert (tags["weights_digest"], tags["config_digest"], tags["labels_digest"]) == (
        digests["weights.safetensors"], digests["config.json"], digests["labels.json"],
    )  # fmt: skip
    shown = connect(services).get_model_version("coda-head", "1").description
    assert shown.startswith("# coda-head\n")
    assert tags["weights_digest"] in shown
