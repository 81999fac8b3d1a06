"""`coda pipeline`, `coda trigger` and `coda ledger`, as a person types them."""

import json
import logging
import os
import signal
import subprocess
import sys
from uuid import uuid4

import boto3
import pytest
from conftest_trigger import deliver, record_of, train
from typer.testing import CliRunner

from coda.cli.ledger import app as ledger_app
from coda.cli.pipeline import app as pipeline_app
from coda.cli.trigger import app as trigger_app
from coda.errors import ConfigError
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger

RUN = CliRunner()


@pytest.fixture
def place(moto_server, tmp_path, monkeypatch):
    settings = moto_server.settings(tmp_path)
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return settings


def invoke(app, *arguments):
    done = RUN.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def ledger_with_a_failure(settings):
    ledger = Ledger(ObjectStore(settings.platform, settings.s3_endpoint), "me")
    version = BatchVersion("lab_b", "b1", "ab" * 32, "lab_b/b1/manifest.json")
    state = ledger.append(version, "landed", after=None)
    ledger.append(version, "failed", after=state, reasons=("Step 'adapt' failed: no space.",), attempt=3)
    return ledger


def test_ledger_is_listed_shown_and_opened_again(place):
    ledger = ledger_with_a_failure(place)
    listed = invoke(ledger_app, "list")
    assert "lab_b/b1" in listed
    assert "failed" in listed
    assert "no space" in listed
    assert invoke(ledger_app, "list", "lab_c").strip() == "The ledger is empty."
    assert json.loads(invoke(ledger_app, "list", "--json"))[0]["state"] == "failed"
    shown = invoke(ledger_app, "show", "lab_b/b1")
    assert shown.index("landed") < shown.index("failed")
    assert "adapt-lab_b-b1-abababab" in shown
    assert "open again" in invoke(ledger_app, "retry", "lab_b/b1/abab")
    assert [state.state for state in ledger.newest()] == ["landed"]
    with pytest.raises(ConfigError, match="nothing to try again"):
        invoke(ledger_app, "retry", "lab_b/b1")
    with pytest.raises(ConfigError, match="no such batch"):
        invoke(ledger_app, "show", "lab_b/b9")


def test_trigger_once_says_what_became_of_each_batch(place, root, tmp_path):
    train(place)
    landing = ObjectStore(place.landing, place.s3_endpoint)
    landing.put("lab_b/b1/manifest.json", b"{")
    arguments = (
        "once",
        "--params",
        root / "params.yaml",
        "--overlay",
        root / "params" / "demo.yaml",
        "--work",
        tmp_path,
    )
    said = invoke(trigger_app, *arguments)
    assert "lab_b/b1: refused" in said
    assert "not JSON" in said
    assert "Nothing new." in invoke(trigger_app, *arguments)
    deliver(landing, "lab_c", "b1")
    assert "Nothing new." in invoke(trigger_app, *arguments, "--ignore-source", "lab_c")


def test_pipeline_that_ended_before_is_told_and_not_run(place, root, tmp_path):
    store = ObjectStore(place.platform, place.s3_endpoint)
    store.put("runs/r1/run.json", record_of("r1", "incumbent_kept").to_json().encode())
    said = invoke(
        pipeline_app, "run", "adaptation", "--params", root / "params.yaml", "--manifest-uri", "s3://l/x/b/manifest.json",
        "--run-id", "r1", "--work", tmp_path,
    )  # fmt: skip
    assert "r1 ended before (incumbent_kept)" in said
    assert "Incumbent kept: It ended." in said


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("training", "--manifest-uri", "s3://l/x/b/manifest.json"), "labels"),
        (("adaptation", "--manifest-uri", "s3://l/a/manifest.json", "--run-id", "a/b"), "run_id"),
        (
            (
                "adaptation",
                "--manifest-uri",
                "s3://l/a.json",
                "--manifest-uri",
                "s3://l/b.json",
                "--manifest-digest",
                "x",
            ),
            "--manifest-digest",
        ),
    ],
)
def test_arguments_that_cannot_be_are_named(place, root, tmp_path, arguments, where):
    with pytest.raises(ConfigError) as caught:
        invoke(pipeline_app, "run", *arguments, "--params", root / "params.yaml", "--work", tmp_path)
    assert [problem.where for problem in caught.value.problems] == [where]


def test_pipelines_are_compiled_with_an_image(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    invoke(pipeline_app, "compile", "--out", tmp_path, "--image", "x:1")
    assert "image: x:1" in (tmp_path / "adaptation.yaml").read_text()


def test_claim_is_released_by_a_person_with_a_reason(place):
    ledger = Ledger(ObjectStore(place.platform, place.s3_endpoint), "a-dead-trigger")
    version = BatchVersion("lab_b", "b1", "ab" * 32, "lab_b/b1/manifest.json")
    state = ledger.append(version, "landed", after=None)
    with pytest.raises(ConfigError, match="no claim to release"):
        invoke(ledger_app, "release-claim", "lab_b/b1", "--reason", "why")
    ledger.append(version, "running", after=state, attempt=1)
    with pytest.raises(ConfigError, match="Give --reason"):
        invoke(ledger_app, "release-claim", "lab_b/b1", "--reason", " ")
    freed = json.loads(invoke(ledger_app, "release-claim", "lab_b/b1", "--reason", "its node is gone", "--json"))
    assert (freed["state"], freed["attempt"]) == ("landed", 0)
    assert "a-dead-trigger released by" in freed["reasons"][0]
    assert "its node is gone" in invoke(ledger_app, "show", "lab_b/b1")


def test_batches_held_for_a_person_are_listed_and_retried_as_json(place):
    ledger = ledger_with_a_failure(place)
    ledger.append(BatchVersion("lab_b", "b2", "cd" * 32, "lab_b/b2/manifest.json"), "refused", after=None)
    listed = json.loads(invoke(ledger_app, "list", "--waiting-for-person", "--json"))
    assert [(item["batch"], item["state"]) for item in listed] == [("b1", "failed")]
    assert json.loads(invoke(ledger_app, "retry", "lab_b/b1", "--json"))["state"] == "landed"
    assert json.loads(invoke(ledger_app, "list", "--waiting-for-person", "--json")) == []


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("once", ["--no-poll"], "Nothing would tell the trigger"),
        ("serve", ["--no-poll"], "Nothing would tell the trigger"),
        ("serve", ["--webhook"], "cannot tell who may use it"),
        ("once", ["--events", "webhook=127.0.0.1:0"], "a trigger that polls once"),
        ("serve", ["--events", "kafka=broker"], "no such event source"),
    ],
)
def test_trigger_that_nobody_tells_anything_does_not_start(place, root, tmp_path, monkeypatch, verb, options, said):
    logger = logging.getLogger()
    monkeypatch.setattr(logger, "handlers", logger.handlers[:])
    arguments = ["--params", root / "params.yaml", "--work", tmp_path, *options]
    with pytest.raises(ConfigError, match=said):
        invoke(trigger_app, verb, *arguments)


def test_serve_with_all_three_ways_says_so_and_ends_at_sigterm(place, root, tmp_path):
    train(place)
    sqs = boto3.client("sqs", endpoint_url=place.s3_endpoint, region_name="us-east-1")
    url = sqs.create_queue(QueueName=f"q-{uuid4().hex[:8]}")["QueueUrl"]
    environment = {
        **os.environ, **place.environment, "CODA_QUEUE_URL": url, "CODA_WEBHOOK_TOKEN": "token-0123456789abcdef",
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "absent"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "coda", "trigger", "serve", "--webhook", "--webhook-port", "0", "--port", "0",
        "--log-format", "json", "--params", str(root / "params.yaml"), "--work", str(tmp_path), "--poll-every-s", "7",
    ]  # fmt: skip
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"].startswith("Watching"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    (told,) = [line["message"] for line in lines if line["message"].startswith("Watching")]
    assert "the list of the landing prefix, every 7 s" in told
    assert f"the queue {url}" in told
    assert "the webhook http://127.0.0.1:" in told
    assert lines[-1]["message"] == "Stopped."
    assert "token-0123456789abcdef" not in str(lines)
