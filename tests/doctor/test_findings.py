"""Each thing that does not agree is named, with its remedy; what is safe is repaired, and then nothing is found."""

import json
from collections import Counter

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from coda.cli.doctor import app
from coda.contracts import DataRevision, PointerEntry, RunRecord
from coda.doctor import examine, repair
from coda.registry import register_extractor
from coda.registry.mirror import drift
from coda.storage.data_registry import create_registry
from coda.trigger.batch_versions import BatchVersion
from tests.doctor.conftest import VERSION
from tests.registry.conftest_registry import provenance
from tests.registry.counting import requests_to

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

OTHER = BatchVersion("lab_b", "b2", "ef" * 32, "lab_b/b2/manifest.json")


def look(world, **changes):
    return examine(world.settings, **{"work": world.folder / "work", "lease_s": 0.0, "abandoned_s": 0.0, **changes})


def found(world, **changes):
    return [(item.check, str(item.problem)) for item in look(world, **changes).findings]


def move_alias(world):
    client = MlflowClient(world.settings.mlflow_uri, world.settings.mlflow_uri)
    client.set_registered_model_alias("coda-extractor", "serving-lab_b", "1")


def add_alias(world):
    client = MlflowClient(world.settings.mlflow_uri, world.settings.mlflow_uri)
    client.set_registered_model_alias("coda-head", "serving-lab_z", "1")


def change_digest(world):
    client = MlflowClient(world.settings.mlflow_uri, world.settings.mlflow_uri)
    client.set_model_version_tag("coda-extractor", "2", "digest", "0" * 64)


def delete_version(world):
    client = MlflowClient(world.settings.mlflow_uri, world.settings.mlflow_uri)
    client.delete_registered_model_alias("coda-extractor", "serving-lab_b")
    client.delete_model_version("coda-extractor", "2")


def forget_the_end(world):
    world.remove(f"{VERSION.folder}/states/0004")


def vanish(world):
    forget_the_end(world)
    world.store.delete(world.key("run.json"))
    world.remove("releases/lab_b/")


def other_end(world):
    record = RunRecord.parse(world.store.get(world.key("run.json")), "run.json")
    changed = record.model_copy(update={"outcome": "held"})
    world.store.put(world.key("run.json"), changed.to_json().encode())


def fail_after_release(world):
    world.store.delete(world.key("run.json"))
    forget_the_end(world)
    world.states("failed")


def begin_upload(world):
    store = world.store
    store.client.create_multipart_upload(Bucket=store.bucket, Key=store.path("dvc/files/md5/ab/cd"))


def leave_a_clone(world):
    (world.folder / "work" / "r1" / "outputs" / "step" / ".coda-data-x1" / "registry").mkdir(parents=True)


REPAIRED = {
    "finished, not written down": (forget_the_end, "unrecorded_end", "found 'running'; expected 'released'"),
    "claimed by nobody": (vanish, "expired_claim", "found 'running' by trigger-1, without a sign of life"),
    "alias moved by hand": (move_alias, "alias", "coda-extractor@serving-lab_b: found version 1; expected version 2"),
    "alias of nothing": (add_alias, "alias", "coda-head@serving-lab_z: found version 1; expected no alias"),
    "upload in parts": (begin_upload, "multipart_upload", "dvc/files/md5/ab/cd: found an upload in parts"),
    "folder of a killed process": (leave_a_clone, "temporary_folder", "found a temporary folder"),
    "claim without a state": (lambda world: world.ledger.claim(OTHER), "ledger", "found a claim without any state"),
}

FOR_PEOPLE = {
    "release gone": (
        lambda world: world.remove("releases/lab_b/"), {"release", "alias"}, "coda registry promote adapt-",
    ),
    "another end in the record": (other_end, {"ledger"}, "found 'released'; expected 'held'"),
    "no record": (lambda world: world.store.delete(world.key("run.json")), {"ledger", "release"}, "its run.json"),
    "released, then failed": (fail_after_release, {"decision", "release"}, "coda ledger retry lab_b/b1"),
    "other digest": (change_digest, {"model"}, f"found digest {'0' * 64}; expected digest"),
    "version deleted": (delete_version, {"model", "alias"}, "coda-extractor 2: found no such version"),
    "unknown predictions": (
        lambda world: world.store.put("predictions/lab_b/b1/r9/well.csv", b""), {"predictions"}, "tables of release r9",
    ),
    "no predictions": (lambda world: world.remove("predictions/"), {"predictions"}, "no whole tables of lab_b/b1"),
    "clone in the folder for temporary files": (
        lambda world: (world.folder / ".coda-data-x2").mkdir(), {"temporary_folder"}, "if no process uses it any more",
    ),
    "no report": (lambda world: world.remove("reports/"), {"report"}, "found no report of this version"),
    "ledger deleted": (lambda world: world.remove("ledger/"), {"run_folder"}, "its batch in the ledger"),
    "run without end": (
        lambda world: world.store.put("runs/by-hand/steps/ingest.json", b"{}"), {"run_folder"}, "--run-id by-hand",
    ),
    "state after an end": (lambda world: world.states("landed", "released"), {"ledger"}, "nothing after an end"),
    "state deleted": (lambda world: world.remove(f"{VERSION.folder}/states/0002"), {"ledger"}, "states [1, 3, 4]"),
}  # fmt: skip


def test_nothing_is_found_where_all_agrees(world):
    examination = look(world)
    assert examination.findings == ()
    assert (examination.batches, examination.releases, examination.versions) == (1, 2, 3)


@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_safe_is_repaired_and_then_nothing_is_found(world, case):
    spoil, check, words = REPAIRED[case]
    spoil(world)
    before = look(world)
    assert check in {item.check for item in before.findings}
    assert any(words in str(item.problem) for item in before.findings), before.findings
    assert repair(before)
    # a claim without states is a new batch for the next trigger; a batch that is open again is nobody's fault
    assert check not in {name for name, _ in found(world)}
    assert drift(settings=world.settings) == []


@pytest.mark.parametrize("case", FOR_PEOPLE)
def test_what_a_person_must_decide_is_named_with_the_command_and_left_alone(world, case):
    spoil, checks, words = FOR_PEOPLE[case]
    spoil(world)
    before = look(world)
    assert {item.check for item in before.findings} == checks, before.findings
    assert any(words in str(item.problem) for item in before.findings), before.findings
    repair(before)
    # aliases follow the log where they can: not to a version that is gone
    left = checks if case == "version deleted" else checks - {"alias"}
    assert {name for name, _ in found(world)} == left


def test_a_version_that_nothing_names_is_an_orphan_unless_its_run_is_live(world, trained):
    extractor = trained.pretrained / "extractor"
    register_extractor(extractor, None, provenance(OTHER.run_id, "lab_b"), settings=world.settings)
    (orphan,) = look(world).findings
    assert (orphan.check, orphan.problem.where, orphan.repair) == ("orphan_version", "coda-extractor version 3", None)
    assert OTHER.run_id in orphan.problem.found
    world.states("landed", version=OTHER)
    assert found(world) == []


def test_a_run_under_way_is_no_finding(world):
    vanish(world)
    world.remove(f"{VERSION.folder}/states/0003")
    world.ledger.beat(VERSION)
    # its aliases are those of the release that is gone
    assert {name for name, _ in found(world, lease_s=60.0)} <= {"alias"}


def test_data_that_the_registry_lacks_is_named_with_the_run_that_names_it(world):
    create_registry(world.folder / "data-registry.git", world.settings.data_remote)
    record = RunRecord.parse(world.store.get(world.key("run.json")), "run.json")
    revision = DataRevision(
        source="lab_b", batch="b1", path="data/lab_b/b1", revision="1" * 40, digest=f"{'a' * 32}.dir"
    )
    changed = record.model_copy(update={"data": (revision,)})
    world.store.put(world.key("run.json"), changed.to_json().encode())
    ((check, text),) = found(world)
    assert check == "data"
    assert text.startswith(f"run {VERSION.run_id}: data/lab_b/b1 at {'1' * 40}: found nothing")


def test_the_command_says_it_all_and_its_exit_code_says_whether(world, monkeypatch):
    for name, value in world.settings.environment.items():
        monkeypatch.setenv(name, value)
    arguments = ["--work", str(world.folder / "work"), "--lease-s", "1", "--abandoned-s", "0"]
    healthy = CliRunner().invoke(app, arguments)
    assert healthy.exit_code == 0, healthy.output
    assert "nothing to report" in healthy.output
    forget_the_end(world)
    sick = CliRunner().invoke(app, [*arguments, "--json"])
    assert sick.exit_code == 1
    (finding,) = json.loads(sick.stdout)["findings"]
    assert (finding["check"], finding["repairable"]) == ("unrecorded_end", True)
    cured = CliRunner().invoke(app, [*arguments, "--repair"])
    assert cured.exit_code == 0
    assert "Repaired: lab_b/b1 is 'released' in the ledger." in cured.output
    change_digest(world)
    changed = CliRunner().invoke(app, arguments)
    # bytes that are not the recorded ones are a matter of security
    assert getattr(changed.exception, "exit_code", None) == 4


SPOILT = {
    "a state": (f"{VERSION.folder}/states/0002.json", b""),
    "the newest state": (f"{VERSION.folder}/states/0004.json", b"{"),
    "a run record": (f"runs/{VERSION.run_id}/run.json", b"[]"),
    "a draft": (f"runs/{VERSION.run_id}/release.json", b"\xff"),
    "a quality report": (f"runs/{VERSION.run_id}/quality.json", b"[" * 50_000),
    "a pointer": ("releases/lab_b/000001.json", b'{"schema_version": 9}'),
}


@pytest.mark.parametrize("name", SPOILT)
def test_record_that_cannot_be_read_is_a_finding_and_stops_no_other(world, name):
    key, body = SPOILT[name]
    world.store.put(key, body)
    move_alias(world)
    told = found(world)
    assert any(check == "record" and key in problem for check, problem in told)
    assert not any(check in {"orphan_version", "predictions"} for check, _ in told), "it may be named by what is broken"
    if name != "a pointer":
        assert any(check == "alias" for check, _ in told), "the look went no further"


def test_message_that_nobody_can_read_is_a_finding(world):
    world.store.put("events/unreadable/0.json", b"{}")
    assert [check for check, _ in found(world)] == ["message"]


def test_each_release_is_read_once_and_no_draft_that_says_the_same(world):
    """Twenty releases more cost twenty reads: not their drafts, and not a look for each list of files."""
    create_registry(world.folder / "data-registry.git", world.settings.data_remote)
    first = json.loads(world.store.get("releases/lab_b/000001.json"))

    def grow(numbers):
        for number in numbers:
            entry = json.loads(json.dumps(first)) | {"sequence": number}
            name = f"by-hand-{number}"
            data = [{"source": "lab_b", "batch": f"b{number}", "path": f"data/lab_b/b{number}", "revision": "0" * 40,
                     "digest": f"{number:032x}.dir"}]  # fmt: skip
            entry["release"] |= {"release_id": name, "run_id": name, "data": data}
            moved = PointerEntry.parse(json.dumps(entry), name)
            world.store.put(f"releases/lab_b/{number:06d}.json", moved.to_json().encode())
            world.store.put(f"runs/{name}/release.json", moved.release.to_json().encode())

    def looked():
        with requests_to(world.store) as counts:
            findings = look(world, abandoned_s=3600.0).findings
        return counts, [item for item in findings if item.check == "record"]

    grow(range(2, 4))
    few, _ = looked()
    grow(range(4, 24))
    many, unreadable = looked()
    assert many - few == Counter({"GetObject": 20})
    assert not unreadable
    world.store.put("runs/by-hand-7/release.json", b"{}")
    damaged, unreadable = looked()
    assert damaged - many == Counter({"GetObject": 1})
    assert "runs/by-hand-7/release.json" in str(unreadable[0].problem)


def test_each_state_of_the_ledger_is_read_once(world):
    def looked():
        with requests_to(world.store) as counts:
            look(world, abandoned_s=3600.0)
        return counts

    few = looked()
    for number in range(5):
        version = BatchVersion("lab_b", f"more-{number}", f"{number:064x}", f"lab_b/more-{number}/manifest.json")
        world.states("landed", "claimed", "running", "refused", version=version)
    assert looked() - few == Counter({"GetObject": 20})
