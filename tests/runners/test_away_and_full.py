"""The runner's view of a step that failed while the object store was away, or on a full disk."""

import io

import pytest

from coda.errors import ConfigError, TransientError
from coda.runners import failure_reason, port
from coda.runners.capture import Capture
from coda.settings import Settings
from coda.steps.context import NOT_STORED

SETTINGS = Settings(
    landing="s3://l",
    platform="s3://p",
    mlflow_uri="sqlite://",
    data_registry="/r",
    data_remote="s3://x",
    checkpoints="/c",
)

LOG = f"""
12:00:00.000 - INFO - Executing task 'validate'
{NOT_STORED}: Could not write s3://p/runs/r/failure.json: the object store does not answer.
Step 'validate' failed: Could not upload s3://p/runs/r/quality.json: the object store does not answer.
12:00:01.000 - ERROR - Task 'validate' finished with status FAILURE
"""


def captured(text):
    capture = Capture(io.StringIO(), lambda line: None)
    capture.write(text)
    return capture


@pytest.mark.parametrize("still_away", [True, False])
def test_a_step_that_could_not_record_its_reason_is_tried_again(monkeypatch, still_away):
    def read(run_id, settings):
        if still_away:
            raise TransientError("Could not read.")

    monkeypatch.setattr(failure_reason, "read_failure", read)
    capture = captured(LOG)
    error = failure_reason.reason("r", SETTINGS, failed=capture.failed, tail=capture.tail, log="log.txt")
    assert type(error) is TransientError
    assert "Step 'validate' failed while the object store was away" in str(error)
    assert "Could not upload s3://p/runs/r/quality.json" in str(error)
    assert "Nothing is lost" in str(error)


def test_a_disk_too_full_to_start_a_step_is_for_the_operator(monkeypatch):
    monkeypatch.setattr(failure_reason, "read_failure", lambda run_id, settings: None)
    tail = ["Traceback (most recent call last):", "OSError: [Errno 28] No space left on device: '/work/outputs'"]
    error = failure_reason.reason("r", SETTINGS, failed=["adapt"], tail=tail, log="log.txt")
    assert type(error) is ConfigError
    assert "There is no room on disk for what adapt writes." in str(error)


def test_a_store_that_is_away_before_an_attempt_costs_one_attempt_and_not_the_run(monkeypatch, demo_params, tmp_path):
    calls = []

    def clear(run_id, settings):
        calls.append("clear")
        if len(calls) == 1:
            raise TransientError("The object store is away.")

    monkeypatch.setattr(port, "clear_failure", clear)
    monkeypatch.setattr(port, "read_run", lambda run_id, settings: None)
    arguments = {"run_id": "r", "manifest_uri": "s3://l/a/b/manifest.json", "params": demo_params}
    said = []
    outcome = port.run_pipeline(
        "adaptation", arguments, runner=lambda job: calls.append("run"), settings=SETTINGS, work=tmp_path,
        wait=False, backoff_s=0, say=said.append,
    )  # fmt: skip
    assert outcome.outcome == "submitted"
    assert calls == ["clear", "clear", "run"]
    assert said == ["A service was away (The object store is away.); trying again in 0 s."]
