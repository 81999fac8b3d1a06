"""KFP's Docker runner with its false successes repaired, against a client that behaves like the daemon."""

import gc
import json
import os
from pathlib import Path

import pytest
from kfp.local import docker_task_handler

from coda.errors import CodaError, ConfigError
from coda.runners import docker as ours
from coda.runners.port import Job


class Container:
    """A container that ends with a status; with auto_remove the daemon forgets it before anybody can ask."""

    def __init__(self, status, auto_remove):
        self.status, self.auto_remove, self.removed = status, auto_remove, False

    def logs(self, *, stream):
        yield b"some words\n"
        yield b"\xff no text\n"
        if self.auto_remove:
            self.removed = True

    def wait(self):
        from docker.errors import NotFound

        if self.removed:
            raise NotFound("No such container")
        return {"StatusCode": self.status}

    def remove(self, *, force):
        self.removed = True


class Client:
    """docker-py's client, as far as the runners use it."""

    def __init__(self, status):
        self.status, self.options = status, None
        self.containers = self.images = self

    def run(self, **options):
        self.options = options
        self.container = Container(self.status, options.get("auto_remove", False))
        return self.container

    def list(self):
        return []

    def pull(self, image):
        return None


@pytest.mark.parametrize("status", [0, 1, 3, 75, 137])
def test_status_of_a_container_is_its_own(status, capsys, tmp_path):
    client = Client(status)
    kinds = {"metrics": "system.Metrics", "model": "system.Model"}
    outputs = {
        name: {"artifacts": [{"uri": str(tmp_path / name), "type": {"schemaTitle": kind}}]}
        for name, kind in kinds.items()
    }
    command = ["c", "--executor_input", json.dumps({"outputs": {"artifacts": outputs}}), "--function_to_execute", "f"]
    assert ours.run_container(client, "i:1", command, {"/w": {}}, network_mode="host") == status
    # KFP's cache takes an output without a file for lost: metrics of a step that ended well have one, nothing else
    assert [path.name for path in tmp_path.iterdir()] == (["metrics"] if status == 0 else [])
    assert client.container.removed
    assert client.options["network_mode"] == "host"
    assert "auto_remove" not in client.options
    assert "some words" in capsys.readouterr().out


def test_the_fault_that_is_repaired_is_still_there_and_repaired_only_while_open():
    """When KFP reports the failure by itself, the repair can go."""

    class Text(Client):
        def run(self, **options):
            container = super().run(**options)
            container.logs = lambda *, stream: iter(self._gone(container))
            return container

        @staticmethod
        def _gone(container):
            container.removed = container.auto_remove
            return [b"words\n"]

    arguments = {"client": Text(1), "image": "i:1", "command": ["c"], "volumes": {}}
    original = docker_task_handler.run_docker_container
    assert original(**arguments) == 0
    with ours.trustworthy_containers():
        assert docker_task_handler.run_docker_container(**arguments) == 1
    assert docker_task_handler.run_docker_container is original


def test_container_is_removed_although_its_log_breaks_off():
    class Broken(Client):
        def run(self, **options):
            container = super().run(**options)

            def logs(*, stream):
                raise OSError("the daemon went away")

            container.logs = logs
            return container

    client = Broken(0)
    with pytest.raises(OSError, match="went away"):
        ours.run_container(client, "i:1", ["c"], {})
    assert client.container.removed


def test_step_without_its_record_did_not_end_well(tmp_path):
    rounds = ("for-loop-1-iteration-0/ingest-plates", "for-loop-1-iteration-11/ingest-plates")
    for step, has in (("ingest", True), ("release", False), (rounds[0], True), (rounds[1], False)):
        folder = tmp_path / "adaptation-2026" / step
        folder.mkdir(parents=True)
        (folder / "dataset").mkdir()
        if has:
            (folder / "executor_output.json").write_text("{}")
    with pytest.raises(CodaError, match="release: found nothing") as caught:
        ours.require_records(tmp_path, set())
    assert sorted(problem.where for problem in caught.value.problems) == ["ingest-plates", "release"]
    ours.require_records(tmp_path, {"adaptation-2026"})


def job(moto_server, tmp_path, **settings):
    values = moto_server.settings(tmp_path).model_copy(update=settings)
    return Job("adaptation", Path("x"), {"run_id": "r"}, tmp_path / "work", values, print)


def test_container_gets_settings_credentials_and_a_home_but_no_files_of_this_machine(
    moto_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("AWS_CONFIG_FILE", "/home/me/.aws/config")
    monkeypatch.setenv("SECRET_OF_SOMETHING_ELSE", "x")
    values = ours.container_environment(job(moto_server, tmp_path))
    assert values["AWS_ACCESS_KEY_ID"] == "testing"
    assert values["AWS_ENDPOINT_URL_S3"] == moto_server.endpoint
    assert values["HOME"] == "/tmp"
    assert "AWS_CONFIG_FILE" not in values
    assert "SECRET_OF_SOMETHING_ELSE" not in values


def test_container_sees_the_folders_that_settings_name_and_runs_as_this_user(moto_server, tmp_path):
    one = job(moto_server, tmp_path)
    for folder in (one.settings.data_registry, one.settings.checkpoints, tmp_path / "mlartifacts"):
        Path(folder).mkdir()
    options = ours.container_options(one)
    mounted = {Path(mount["Source"]) for mount in options["mounts"]}
    for needed in (one.settings.data_registry, one.settings.checkpoints, tmp_path / "mlflow.db"):
        assert any(folder == Path(needed) or folder in Path(needed).parents for folder in mounted)
    assert all(mount["Source"] == mount["Target"] for mount in options["mounts"])
    assert options["user"] == f"{os.getuid()}:{os.getgid()}"
    assert options["network_mode"] == "host"


def test_missing_image_setting_is_a_clear_error(moto_server, tmp_path):
    with pytest.raises(ConfigError, match="CODA_IMAGE"):
        ours.run_docker(job(moto_server, tmp_path))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker-py leaves its socket open
def test_daemon_that_is_away_is_a_clear_error(moto_server, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(ConfigError, match="Docker"):
        ours.run_docker(job(moto_server, tmp_path, image="i:1"))
    gc.collect()
