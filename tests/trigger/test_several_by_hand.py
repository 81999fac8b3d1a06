"""`coda pipeline run adaptation` with a whole source: the order, what is skipped, and what one failure costs."""

import json
from datetime import UTC, datetime

import pytest
from conftest_trigger import manifest_of, record_of
from typer.testing import CliRunner

from coda.cli.pipeline import app
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, TransientError
from coda.monitoring.summaries import BatchSummary
from coda.runners.port import RunOutcome
from coda.storage.manifest_addresses import manifests_at
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger


@pytest.fixture
def place(moto_server, tmp_path, monkeypatch):
    settings = moto_server.settings(tmp_path)
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def landing(place):
    return ObjectStore(place.landing, place.s3_endpoint)


@pytest.fixture
def platform(place):
    return ObjectStore(place.platform, place.s3_endpoint)


def put(landing, source, batch, day=1, note=""):
    """Write a manifest alone; returns its version."""
    document = json.loads(manifest_of(source, batch, note).to_json()) | {"created_at": f"2026-01-{day:02d}T00:00:00Z"}
    manifest = type(manifest_of(source, batch)).parse(json.dumps(document), "test")
    landing.put(f"{source}/{batch}/manifest.json", manifest.to_json().encode())
    return BatchVersion(source, batch, manifest.digest(), f"{source}/{batch}/manifest.json")


@pytest.fixture
def runs(monkeypatch, platform):
    """Stands for the steps: keeps the order of runs, fails as told, and leaves a record as the report step does."""
    done = []

    def run(name, arguments, *, say, settings, work, runner, wait):
        done.append(arguments["run_id"])
        error = run.errors.get(arguments["manifest_uri"].split("/")[-2])
        if error is not None:
            raise error
        record = record_of(arguments["run_id"], "released")
        platform.put(f"runs/{arguments['run_id']}/run.json", record.to_json().encode())
        say("working")
        return RunOutcome(arguments["run_id"], name, "released", "It serves.", record, None, 1.0)

    run.errors = {}
    run.done = done
    monkeypatch.setattr("coda.cli.pipeline_batches.run_pipeline", run)
    return run


@pytest.fixture
def call(root, tmp_path):
    def go(*arguments, code=0):
        given = ["run", "adaptation", "--params", str(root / "params.yaml"), "--work", str(tmp_path / "work")]
        result = CliRunner().invoke(app, [*given, *map(str, arguments)])
        found = result.exception.exit_code if isinstance(result.exception, CodaError) else result.exit_code
        assert found == code, (result.output, result.exception)
        return result

    return go


def test_a_source_runs_from_its_oldest_batch_to_its_newest_and_only_once(call, runs, landing, place):
    versions = {name: put(landing, "lab_b", name, day) for name, day in (("b1", 3), ("b2", 1), ("b3", 2))}
    landing.put("lab_b/b1/images/x/manifest.json", b"not a batch: it lies too deep")
    said = call("--manifest-uri", f"{place.landing}/lab_b").output
    assert runs.done == [versions[name].run_id for name in ("b2", "b3", "b1")], "as the trigger would name them"
    assert "3 batch(es): 3 released." in said
    again = call("--manifest-uri", f"{place.landing}/lab_b").output
    assert len(runs.done) == 3
    assert again.count("skipped: released before") == 3
    assert "3 batch(es): 3 skipped." in again
    newer = put(landing, "lab_b", "b1", 4, note="x")
    call("--manifest-uri", place.landing)
    assert runs.done[3:] == [newer.run_id], "another version of a batch is another run"
    call("--manifest-uri", f"{place.landing}/lab_b", "--run-id", "mine")
    assert runs.done[4:] == [f"mine-lab_b-{name}" for name in ("b2", "b3", "b1")]


def test_one_that_fails_loses_no_other_and_is_told_with_its_kind(call, runs, landing, place):
    for name in ("b1", "b2", "b3"):
        put(landing, "lab_b", name)
    landing.put("lab_b/b0/manifest.json", b"{")
    runs.errors["b2"] = ContractError("Its plates are torn.")
    failed = call("--manifest-uri", f"{place.landing}/lab_b", code=3)
    assert len(runs.done) == 3
    assert "4 batch(es): 2 released, 2 failed." in failed.output
    assert "lab_b/b2: lab_b/b2: found Its plates are torn." in str(failed.exception)
    assert "b0/manifest.json" in str(failed.exception)
    runs.errors["b2"] = IntegrityError("Bytes differ.")
    assert "2 skipped, 2 failed" in call("--manifest-uri", f"{place.landing}/lab_b", code=4).output
    runs.errors["b2"] = ConfigError("No.")
    call("--manifest-uri", f"{place.landing}/lab_b", code=1)
    runs.errors.clear()
    landing.delete("lab_b/b0/manifest.json")
    assert "1 released, 2 skipped" in call("--manifest-uri", f"{place.landing}/lab_b").output


def test_a_service_that_is_away_stops_and_the_same_command_goes_on(call, runs, landing, place):
    for name in ("b1", "b2", "b3"):
        put(landing, "lab_b", name)
    runs.errors["b2"] = TransientError("The registry is away.")
    said = call("--manifest-uri", f"{place.landing}/lab_b", code=75).output
    assert "Not run: lab_b/b2, lab_b/b3. The same command resumes." in said
    runs.errors.clear()
    assert "2 released, 1 skipped" in call("--manifest-uri", f"{place.landing}/lab_b").output


def test_what_the_trigger_or_another_run_did_is_not_done_again(call, runs, landing, platform, place):
    taken, reported, waits = (put(landing, "lab_b", name) for name in ("b1", "b2", "b3"))
    ledger = Ledger(platform, "trigger")
    state = ledger.append(taken, "landed", after=None)
    ledger.append(taken, "running", after=state, attempt=1)
    summary = BatchSummary(
        source="lab_b", batch="b2", manifest_digest=reported.digest, instrument="i", at=datetime.now(UTC),
        created_at=datetime.now(UTC), verdict="accepted", outcome="adapt", acquisition={},
    )  # fmt: skip
    platform.put(summary.key, summary.to_json().encode())
    said = call("--manifest-uri", f"{place.landing}/lab_b").output
    assert runs.done == [waits.run_id]
    assert "the trigger looks after it, the ledger says running" in said
    assert "reported by a run of another name" in said


def test_two_manifests_of_one_batch_and_places_without_any_are_refused(call, runs, landing, place):
    put(landing, "lab_b", "b1")
    other = json.loads(manifest_of("lab_b", "b1", "other").to_json())
    landing.put("copy/b1/manifest.json", json.dumps(other).encode())
    failed = call("--manifest-uri", place.landing, code=3)
    assert runs.done == []
    assert "Two manifests describe one batch" in failed.output
    with pytest.raises(ConfigError, match="There is no manifest") as caught:
        manifests_at([f"{place.landing}/lab_x", f"{place.landing}/lab_y"], place)
    assert len(caught.value.problems) == 2


def test_folders_of_this_machine_give_their_manifests_in_order(tmp_path, place):
    for name in ("s1/b2", "s1/b1", "s2/b1", "s2/b1/deep/er"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").touch()
    found = manifests_at([str(tmp_path), str(tmp_path / "s2/"), "elsewhere/manifest.json"], place)
    assert found == [*(str(tmp_path / name / "manifest.json") for name in ("s1/b1", "s1/b2", "s2/b1")),
                     "elsewhere/manifest.json"]  # fmt: skip
