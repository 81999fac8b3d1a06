"""A run that failed leaves its record, page and numbers, whatever ended it; how it ended is not changed."""

import re

import pytest

from coda.contracts import GateReport, QualityReport, RunRecord
from coda.errors import ConfigError, ContractError, TransientError
from coda.runners import run_pipeline
from coda.steps.conclude import NO_REASON, Ended, closing, conclude
from coda.steps.record import read_run
from coda.storage.objects import ObjectStore

HEX = "ab" * 32


@pytest.fixture
def bucket(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


def adapt(settings, tmp_path, params, run_id="run-1"):
    arguments = {"run_id": run_id, "manifest_uri": "s3://landing/lab/b1/manifest.json", "params": params}
    return run_pipeline(
        "adaptation", arguments, runner="local", settings=settings, work=tmp_path / "work", attempts=2, backoff_s=0.01
    )


def failed(bucket, run_id="run-1"):
    record = RunRecord.parse(bucket.get(f"runs/{run_id}/failed.json"), "test")
    return record, bucket.get(f"runs/{run_id}/failure.html").decode()


def test_a_step_that_fails_leaves_record_page_and_numbers(planted, settings, bucket, tmp_path, demo_params):
    settings = settings.model_copy(update={"metrics_dir": str(tmp_path / "metrics")})
    planted.misbehave("version", "contract")
    with pytest.raises(ContractError, match="Step 'version' failed: The plates cannot be used"):
        adapt(settings, tmp_path, demo_params)
    record, page = failed(bucket)
    assert (record.outcome, record.batches, record.manifest_digests) == ("failed", ("lab/b1",), (HEX,))
    assert record.sentence == "Step 'version' failed: The plates cannot be used."
    ended = sorted(step.name for step in record.steps)
    assert ended == [
        "archive", "ingest", "ingest_plates", "plan_memory", "plan_plates", "quality_verdict", "validate"
    ]  # fmt: skip
    assert "plate p1, well C04: found no DNA; expected DNA. Stain it." in page
    assert "The batch is accepted." in page
    assert all(f"<td>{name}</td>" in page for name in ended)
    assert "coda ledger retry lab/b1" in page
    assert bucket.get(f"reports/lab/b1/{HEX}/failure.html").decode() == page
    numbers = (tmp_path / "metrics" / "coda_failed_run-lab.prom").read_text()
    assert re.search(r'coda_failed_run_step_seconds\{.*step="validate"\} \d', numbers)
    assert 'coda_failed_run_timestamp_seconds{pipeline="adaptation",source="lab"}' in numbers
    assert read_run("run-1", settings) is None, "the run may be run again"


def test_a_step_that_is_killed_leaves_them_too(planted, settings, bucket, tmp_path, demo_params):
    planted.misbehave("archive", "killed")
    with pytest.raises(ConfigError, match="Step 'archive' was killed, as the system does for want of mem"):
        adapt(settings, tmp_path, demo_params)
    record, page = failed(bucket)
    assert record.sentence == NO_REASON
    assert record.batches == ("lab/b1",), "by the manifest's address, since nothing was validated"
    assert record.manifest_digests == ()
    assert NO_REASON in page


def test_a_run_that_goes_on_and_ends_well_is_a_success(planted, settings, bucket, tmp_path, demo_params):
    planted.misbehave("predict", "once-contract")
    with pytest.raises(ContractError):
        adapt(settings, tmp_path, demo_params)
    assert "coda registry history lab" in failed(bucket)[1], "its release was made, and the page says so"
    assert adapt(settings, tmp_path, demo_params).outcome == "released"
    assert planted.calls.count("adapt") == 1


def test_each_failed_try_is_written_down_anew(planted, settings, bucket, tmp_path, demo_params):
    planted.misbehave("validate", "contract")
    with pytest.raises(ContractError):
        adapt(settings, tmp_path, demo_params)
    planted.misbehave("validate", "defect")
    with pytest.raises(Exception, match="an unforeseen thing"):
        adapt(settings, tmp_path, demo_params)
    assert failed(bucket)[0].sentence == "Step 'validate' failed: ValueError: an unforeseen thing"


def test_a_bucket_that_goes_away_changes_nothing_of_the_error(planted, settings, tmp_path, demo_params, monkeypatch):
    """The exit step cannot write: the run fails with the step's own reason, as it did."""
    planted.misbehave("archive", "contract")
    monkeypatch.setenv("PLANTED_CONCLUDE", "transient")
    with pytest.raises(ContractError, match="Step 'archive' failed"):
        adapt(settings, tmp_path, demo_params)
    assert "conclude" in planted.calls


def test_training_tells_every_batch(planted, settings, bucket, tmp_path, demo_params):
    planted.misbehave("pretrain", "defect")
    uris = [f"s3://landing/lab/b{n}/manifest.json" for n in range(2)]
    arguments = {"run_id": "t-1", "manifest_uris": uris, "labels": "x", "params": demo_params}
    with pytest.raises(Exception, match="an unforeseen thing"):
        run_pipeline("training", arguments, runner="local", settings=settings, work=tmp_path / "work")
    record, page = failed(bucket, "t-1")
    assert (record.pipeline, record.batches) == ("training", ("lab/b0", "lab/b1"))
    assert "ledger" not in page, "no trigger begins a training"


def put(bucket, name, document):
    bucket.put(f"runs/r/{name}", document if isinstance(document, bytes) else document.to_json().encode())


def ended(**more):
    return Ended("r", "adaptation", ["s3://landing/lab/b1/manifest.json"], manifest_digest=HEX, **more)


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_recorded_end_is_not_touched(settings, bucket, demo_params, state):
    record = conclude(ended(), params=demo_params, settings=settings)
    assert record.outcome == "failed"
    before = record.model_copy(update={"outcome": "released"})
    put(bucket, "run.json", before)
    bucket.delete("runs/r/failed.json")
    assert conclude(ended(state=state), params=demo_params, settings=settings) is None
    assert read_run("r", settings) == before
    assert bucket.size("runs/r/failed.json") is None


def test_a_good_end_without_a_record_is_not_called_a_failure(settings, bucket, demo_params):
    assert conclude(ended(state="SUCCEEDED"), params=demo_params, settings=settings) is None
    assert list(bucket.list("runs/r/")) == []


def test_doing_it_twice_changes_the_time_alone(settings, bucket, demo_params):
    first = conclude(ended(said="pod deleted"), params=demo_params, settings=settings)
    page = bucket.get("runs/r/failure.html")
    second = conclude(ended(said="pod deleted"), params=demo_params, settings=settings)
    times = {"started_at", "finished_at"}
    assert first.model_dump(exclude=times) == second.model_dump(exclude=times)
    assert bucket.get("runs/r/failure.html") == page
    assert b"pod deleted" in page


def test_documents_that_cannot_be_read_are_left_out_and_all_text_is_escaped(settings, bucket, demo_params):
    quality = QualityReport(
        source="lab", batch="b1", manifest_digest=HEX, suite_version="v", verdict="accepted",
        sentence="<script>1</script>", fields_expected=1, fields_accepted=1,
    )  # fmt: skip
    put(bucket, "quality.json", quality)
    put(bucket, "gate.json", b"{")
    put(bucket, "failure.json", b"[]")
    record = conclude(ended(), params=demo_params, settings=settings)
    page = bucket.get("runs/r/failure.html").decode()
    assert record.sentence == NO_REASON
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert "<script>" not in page


def test_what_the_gate_said_is_on_the_page(settings, bucket, demo_params):
    put(bucket, "gate.json", GateReport(
        source="lab", batch="b1", manifest_digest=HEX, policy_version="v", baseline="unadapted", candidates=(),
        outcome="release", chosen="coda", sentence="Better than doing nothing.",
    ))  # fmt: skip
    conclude(ended(), params=demo_params, settings=settings)
    assert b"Better than doing nothing." in bucket.get("runs/r/failure.html")


def test_whatever_goes_wrong_in_the_last_step_is_told_and_has_no_consequence(caplog):
    for error in (TransientError("away"), ValueError("a defect")):
        with closing("r"):
            raise error
    assert "away" in caplog.text
    assert "a defect" in caplog.text
