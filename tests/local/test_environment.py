"""The embedded services choose their environment, and work wherever the checkout lies."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coda.local.environment import choose, script
from coda.local.services import EmbeddedServices
from coda.registry.mlflow_client import connect, experiment_id
from coda.runners.local import IMAGE, PYTHON, local_paths
from coda.runners.spec import compiled_path, for_one_machine, read_documents
from coda.storage.data_registry import commit_batch, list_batches

ODD = "it's a#b größe?%2F 50% & co"
"""A folder's name with what means something to shells, to addresses and to SQLite."""

FOREIGN = {
    "AWS_PROFILE": "lab-prod", "AWS_SESSION_TOKEN": "theirs", "AWS_ROLE_ARN": "arn", "AWS_ENDPOINT_URL": "http://theirs",
    "CODA_PUSHGATEWAY": "theirs:9091", "CODA_SIGNING_KEY": "/theirs.pem", "MLFLOW_TRACKING_TOKEN": "theirs",
    "DVC_STUDIO_TOKEN": "theirs",
}  # fmt: skip


@pytest.fixture
def environment() -> Iterator[None]:
    """The environment of a person with a cloud of their own; put back afterwards."""
    before = dict(os.environ)
    os.environ.update(FOREIGN)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_what_a_persons_shell_says_of_other_services_is_removed(environment):
    choose({"AWS_ACCESS_KEY_ID": "embedded"})
    assert not FOREIGN.keys() & os.environ.keys()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "embedded"
    assert "PATH" in os.environ


def test_the_script_for_another_terminal_does_the_same_there(environment, tmp_path):
    file = tmp_path / "environment.sh"
    chosen = {"CODA_CHECKPOINTS": f"/tmp/{ODD}", "AWS_ACCESS_KEY_ID": "embedded"}
    file.write_text(script(chosen))
    done = subprocess.run(["sh", "-c", '. "$0"; env -0', str(file)], capture_output=True, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    assert {name: seen.get(name) for name in chosen} == chosen
    assert not FOREIGN.keys() & seen.keys()


def test_embedded_services_work_in_any_folder_whatever_profile_is_exported(environment, tmp_path):
    root = tmp_path / ODD
    batch = root / "batch"
    batch.mkdir(parents=True)
    (batch / "index.parquet").write_bytes(b"rows")
    with EmbeddedServices(root / "services") as services:
        settings = services.settings
        revision = commit_batch(batch, "lab_b", "b1", settings=settings, run_id="r1")
        assert list_batches("lab_b", settings=settings) == [revision]
        client = connect(settings)
        run = client.create_run(experiment_id(client, settings))
        client.log_artifact(run.info.run_id, str(batch / "index.parquet"), "model")
        assert (root / "services" / "mlflow.db").is_file()
        assert [item.path for item in client.list_artifacts(run.info.run_id, "model")] == ["model/index.parquet"]
        assert local_paths(settings.environment) == [root / "services"]


def test_a_step_is_run_by_an_interpreter_in_any_folder(tmp_path):
    interpreter = tmp_path / ODD / "python"
    interpreter.parent.mkdir()
    interpreter.write_text('#!/bin/sh\necho "ran $2"\n')
    interpreter.chmod(0o755)
    text = for_one_machine(compiled_path("adaptation").read_text(), IMAGE, PYTHON)
    for executor in read_documents(text)[0]["deploymentSpec"]["executors"].values():
        command = executor["container"]["command"]
        assert "python3" not in command[-2], "KFP would put a path there as it is"
        done = subprocess.run(
            command, env={PYTHON: str(interpreter), "PATH": os.environ["PATH"], "TMPDIR": str(interpreter.parent)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "ran kfp.dsl.executor_main\n"), done.stderr


def test_the_folder_of_a_setting_is_found_whatever_its_name(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    assert local_paths({"A": (folder / "x").as_uri()}) == [folder]
    assert local_paths({"A": str(Path(folder) / "x")}) == [folder]
