"""Both pipelines really run, process by process, on planted steps: order, branches, failure, resume."""

import builtins
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coda.cli.pipeline import app as pipeline_app
from coda.contracts import BatchManifest
from coda.errors import CodaError, ConfigError, ContractError, TransientError
from coda.runners import run_pipeline
from coda.steps.record import read_run
from coda.storage.objects import ObjectStore

INGEST = ["plan_memory", "plan_plates", "ingest_plates", "ingest_plates", "ingest"]
ADAPTATION_ACCEPTED = [
    *INGEST, "archive", "validate", "quality_verdict", "version", "adapt", "gate", "register_adaptation", "release",
    "predict", "report",
]  # fmt: skip
ADAPTATION_REFUSED = [*INGEST, "archive", "validate", "quality_verdict", "refusal_report"]
TRAINING = [
    *INGEST, "validate", "version", "pretrain", "train_head", "evaluate", "register_training", "release", "report",
]  # fmt: skip


def in_order(calls):
    """Return the steps that wait for each other; the plan of memory waits for nothing and runs when it likes."""
    assert calls.count("plan_memory") == 1
    return [name for name in calls if name != "plan_memory"]


def adapt(settings, tmp_path, demo_params, run_id="run-1", **more):
    arguments = {"run_id": run_id, "manifest_uri": "s3://landing/lab/b1/manifest.json", "params": demo_params}
    options = {"runner": "local", "settings": settings, "work": tmp_path / "work dir", "backoff_s": 0.01}
    return run_pipeline("adaptation", arguments, **{**options, **more})


def test_accepted_batch_runs_every_step_once(planted, settings, tmp_path, demo_params):
    lines = []
    printing = print
    before, folders = dict(os.environ), set(Path(tempfile.gettempdir()).glob("kfp-workspace-*"))
    outcome = adapt(settings, tmp_path, demo_params, say=lines.append)
    assert dict(os.environ) == before
    assert builtins.print is printing, "KFP's own printing is still in its place, and slows down every further run"
    assert set(Path(tempfile.gettempdir()).glob("kfp-workspace-*")) == folders
    assert sorted(planted.calls) == sorted(ADAPTATION_ACCEPTED)
    assert planted.calls.index("archive") < planted.calls.index("version")
    assert planted.calls[-1] == "report"
    assert (outcome.outcome, outcome.sentence) == ("released", "Better than doing nothing.")
    assert outcome.record.batches == ("lab/b1",)
    assert outcome.record.release_id == "r-run-1"
    assert {step.name for step in outcome.record.steps} >= set(ADAPTATION_ACCEPTED)
    assert any(line.startswith("Adapting the extractor: done in ") for line in lines)
    assert "finished with status" in outcome.log.read_text()
    again = adapt(settings, tmp_path / "elsewhere", demo_params)
    assert again.record == outcome.record, "a finished run is not run again"
    assert len(planted.calls) == len(ADAPTATION_ACCEPTED)


def test_refused_batch_takes_the_other_branch(planted, settings, tmp_path, demo_params):
    planted.verdict("refused")
    outcome = adapt(settings, tmp_path, demo_params)
    assert sorted(planted.calls) == sorted(ADAPTATION_REFUSED)
    assert outcome.outcome == "refused"
    assert outcome.record.release_id is None


def test_a_whole_source_runs_batch_after_batch_in_one_process(
    planted, settings, tmp_path, root, demo_params, monkeypatch
):
    store = ObjectStore(settings.landing, settings.s3_endpoint)
    for number in (2, 1):
        put_manifest(store, "lab", f"b{number}")
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    given = ["run", "adaptation", "--params", str(root / "params.yaml"), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(pipeline_app, [*given, "--manifest-uri", f"{settings.landing}/lab"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "2 batch(es): 2 released." in result.output
    assert sorted(planted.calls) == sorted(2 * ADAPTATION_ACCEPTED)
    assert sorted(planted.calls[: len(ADAPTATION_ACCEPTED)]) == sorted(ADAPTATION_ACCEPTED), "one after the other"
    again = CliRunner().invoke(pipeline_app, [*given, "--manifest-uri", f"{settings.landing}/lab"])
    assert "2 batch(es): 2 skipped." in again.output
    assert len(planted.calls) == 2 * len(ADAPTATION_ACCEPTED)


def put_manifest(store, source, batch):
    files = [{"path": name, "size_bytes": 3, "sha256": "0" * 64} for name in ("map.csv", "load.csv", "im.tif")]
    plate = {"plate": "p1", "plate_map": "map.csv", "load_data": "load.csv", "sites_per_well": 1, "files": files}
    raw = {
        "source": source, "batch": batch, "created_at": "2026-01-01T00:00:00Z", "channels": ["DNA"], "plate_wells": 96,
        "instrument": {"name": "scope", "modality": "widefield", "pixel_size_um": 0.5}, "plates": [plate],
    }  # fmt: skip
    store.put(f"{source}/{batch}/manifest.json", BatchManifest.parse(json.dumps(raw), "test").to_json().encode())


def test_training_runs_every_step_once_and_logs_metrics(planted, settings, tmp_path, demo_params):
    arguments = {
        "run_id": "train-1",
        "manifest_uris": [f"s3://landing/lab/b{n}/manifest.json" for n in range(3)],
        "labels": "s3://platform/labels/moa.csv",
        "params": demo_params,
    }
    outcome = run_pipeline("training", arguments, runner="local", settings=settings, work=tmp_path / "work")
    assert in_order(planted.calls) == in_order(TRAINING)
    assert planted.calls.index("plan_memory") < planted.calls.index("pretrain")
    assert outcome.outcome == "released"
    assert outcome.record.batches == ("lab/b0", "lab/b1", "lab/b2")
    records = [json.loads(path.read_text()) for path in (tmp_path / "work").rglob("pretrain/executor_output.json")]
    assert records[0]["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"loss": 1.5}


def test_training_stops_at_a_refused_batch_with_its_sentence(planted, settings, tmp_path, demo_params):
    planted.verdict("refused")
    arguments = {"run_id": "t", "manifest_uris": ["s3://l/lab/b1/manifest.json"], "labels": "x", "params": demo_params}
    with pytest.raises(ContractError, match=r"lab/b1: found The batch is refused"):
        run_pipeline("training", arguments, runner="local", settings=settings, work=tmp_path / "work")
    assert in_order(planted.calls) == in_order([*INGEST, "validate"])


def test_failing_step_shows_its_own_reason_and_exit_code(planted, settings, tmp_path, demo_params):
    planted.misbehave("validate", "contract")
    with pytest.raises(ContractError) as caught:
        adapt(settings, tmp_path, demo_params)
    text = str(caught.value)
    assert "Step 'validate' failed: The plates cannot be used." in text
    assert "plate p1, well C04: found no DNA; expected DNA. Stain it." in text
    assert "nner task" not in text
    assert caught.value.exit_code == 3
    assert "version" not in planted.calls


def test_defect_of_a_step_is_named_with_its_log(planted, settings, tmp_path, demo_params):
    planted.misbehave("archive", "defect")
    with pytest.raises(CodaError, match=r"Step 'archive' failed: ValueError: an unforeseen thing \(log: .*log\.txt\)"):
        adapt(settings, tmp_path, demo_params)


def test_killed_step_is_named_although_it_left_no_reason(planted, settings, tmp_path, demo_params):
    planted.misbehave("archive", "killed")
    with pytest.raises(ConfigError, match="Step 'archive' was killed, as the system does for want of mem") as caught:
        adapt(settings, tmp_path, demo_params)
    assert "log.txt" in str(caught.value)
    assert "compute.images" in str(caught.value)


def test_failure_of_an_earlier_attempt_is_not_blamed(planted, settings, tmp_path, demo_params):
    planted.misbehave("validate", "once-contract")
    with pytest.raises(ContractError):
        adapt(settings, tmp_path, demo_params)
    planted.misbehave("validate", "killed")
    with pytest.raises(CodaError, match="Step 'validate' was killed"):
        adapt(settings, tmp_path, demo_params)


def test_only_transient_failures_are_tried_again(planted, settings, tmp_path, demo_params):
    planted.verdict("refused")
    planted.misbehave("validate", "once-transient")
    lines = []
    assert adapt(settings, tmp_path, demo_params, say=lines.append).outcome == "refused"
    assert planted.calls.count("validate") == 2
    assert planted.calls.count("ingest") == 1
    assert any("trying again" in line for line in lines)


def test_service_that_stays_away_ends_the_run_as_transient(planted, settings, tmp_path, demo_params):
    planted.misbehave("ingest", "transient")
    with pytest.raises(TransientError):
        adapt(settings, tmp_path, demo_params, attempts=2)
    assert sorted(planted.calls) == sorted([*INGEST, "ingest"])


@pytest.mark.parametrize("step", ["release", "refusal_report"])
def test_run_killed_with_all_its_processes_goes_on_where_it_stopped(planted, settings, tmp_path, demo_params, step):
    if step == "refusal_report":
        planted.verdict("refused")
    planted.misbehave(step, "once-runner")
    code = (
        "import json, sys; from pathlib import Path; from coda.runners import run_pipeline; "
        "from coda.settings import Settings; from coda.runners import local; "
        "local.WARM = (); a = json.loads(sys.argv[1]); "
        "run_pipeline('adaptation', a['arguments'], runner='local', settings=Settings(**a['settings']), "
        "work=Path(a['work']))"
    )
    arguments = {
        "run_id": "run-1", "manifest_uri": "s3://landing/lab/b1/manifest.json", "params": demo_params.model_dump_json(),
    }  # fmt: skip
    order = {"arguments": arguments, "settings": settings.model_dump(), "work": str(tmp_path / "work dir")}
    # the warm worker is the step's parent: killing the group takes the runner with it, like a lost machine
    killed = subprocess.Popen([sys.executable, "-c", code, json.dumps(order)], start_new_session=True)
    flag = tmp_path / f"{step}.misbehaved"
    while not flag.exists() and killed.poll() is None:
        time.sleep(0.02)
    os.killpg(killed.pid, 9)
    killed.wait()
    assert read_run("run-1", settings) is None
    before = planted.calls
    outcome = adapt(settings, tmp_path, demo_params)
    assert outcome.outcome == ("released" if step == "release" else "refused")
    again = planted.calls[len(before) :]
    assert again[0] == step
    assert not set(again[1:]) & set(before)


@pytest.mark.parametrize("pipeline", ["training", "adaptation"])
def test_a_run_broken_off_after_each_step_runs_each_step_once(planted, settings, tmp_path, demo_params, pipeline):
    arguments = {
        "training": {"manifest_uris": ["s3://landing/lab/b0/manifest.json"], "labels": "s3://platform/labels/moa.csv"},
        "adaptation": {"manifest_uri": "s3://landing/lab/b1/manifest.json"},
    }[pipeline]
    steps = {"training": TRAINING, "adaptation": ADAPTATION_ACCEPTED}[pipeline]
    outcome, starts = None, 0
    while outcome is None and starts <= len(steps):
        done, starts = len(planted.calls), starts + 1

        def break_off(line, done=done):
            # the next step is announced, and has not begun: what ended before it must never begin again
            if line.endswith(" ...") and len(planted.calls) > done:
                raise Interrupted

        with contextlib.suppress(Interrupted):
            outcome = run_pipeline(
                pipeline, {"run_id": "run-1", "params": demo_params, **arguments}, runner="local", settings=settings,
                work=tmp_path / "work", say=break_off,
            )  # fmt: skip
    assert outcome is not None, f"the run did not end: {planted.calls}"
    assert starts == len(steps) + 1, "also as the step that closes the run is announced"
    assert sorted(planted.calls) == sorted(steps), "a step that had ended was run again"


class Interrupted(BaseException):
    """What breaks a run off, as Ctrl-C does."""


def test_lost_output_is_made_again(planted, settings, tmp_path, demo_params):
    planted.verdict("refused")
    planted.misbehave("refusal_report", "once-contract")
    with pytest.raises(ContractError):
        adapt(settings, tmp_path, demo_params)
    for path in (tmp_path / "work dir").rglob("validate/checked"):
        path.rename(path.with_name("gone"))
    adapt(settings, tmp_path, demo_params)
    assert planted.calls.count("validate") == 2
    assert planted.calls.count("ingest") == 1


def test_wrong_arguments_are_reported_together(settings, tmp_path, demo_params):
    with pytest.raises(ConfigError) as caught:
        run_pipeline(
            "training", {"run_id": "a/b", "labels": 3, "colour": "red", "params": demo_params}, runner="local",
            settings=settings, work=tmp_path,
        )  # fmt: skip
    assert {problem.where for problem in caught.value.problems} == {"run_id", "labels", "colour", "manifest_uris"}


def test_the_platform_bucket_away_is_a_transient_error(settings, tmp_path, demo_params):
    away = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(TransientError):
        adapt(away, tmp_path, demo_params)
    assert list(ObjectStore(settings.platform, settings.s3_endpoint).list("runs/")) == []
