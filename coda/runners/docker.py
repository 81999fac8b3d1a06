"""Runs a pipeline as containers of this machine with KFP's Docker runner, with its false successes repaired.

KFP 2.17 starts containers with ``auto_remove``; when the daemon removes one before its status was asked for, the
runner takes the answer 'not found' for success. Here a container is kept until its status was read, and each step
must have left KFP's own record of its outputs.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp import local

from coda.errors import CodaError, ConfigError, Problem, raise_if_any
from coda.runners.local import execute, local_paths
from coda.runners.port import Job
from coda.runners.starting import keep_metadata
from coda.runners.workdir import opened

PASSED_ON = ("AWS_", "MLFLOW_", "NO_PROXY", "no_proxy", "OMP_NUM_THREADS", "DVC_NO_ANALYTICS", "GX_ANALYTICS_ENABLED")
"""Beginnings of the variables a container gets from this process, credentials among them."""

NEVER = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE")
"""Variables that name files of this machine, which a container does not see."""

_ROUND = re.compile(r"for-loop-\d+-iteration-\d+")
"""Folder of a launch with the steps of one round of a loop, as KFP's runners name it."""

RECORD = "executor_output.json"
"""File in which KFP's executor lists the outputs of a step; written by every step that ended well."""


def run_docker(job: Job) -> Path:
    """Run a job step by step, each in a container of ``settings.image``.

    Returns:
        The log file.

    Raises:
        ConfigError: No image is configured, it is not there, or the Docker daemon cannot be reached.
        CodaError: A step failed; the error is its own.
    """
    image = _checked_image(job)
    with opened(job.work, job.run_id) as folder, trustworthy_containers():
        before = {path.name for path in folder.outputs.iterdir()}
        execute(job, folder, local.DockerRunner(**container_options(job)), image)
        require_records(folder.outputs, before)
        return folder.log


def container_environment(job: Job) -> dict[str, str]:
    """Return the variables of the containers: settings, credentials, and a home that any user can write."""
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and name not in NEVER}
    return {**passed, **job.settings.environment, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108


def require_records(outputs: Path, before: set[str]) -> None:
    """Check that every step of the newest launch left its record.

    Args:
        outputs: Root of the outputs; one folder a launch, and in it one a step.
        before: Launches that were there before.

    Raises:
        CodaError: A step was reported as done but left no record.
    """
    problems = []
    for launch in sorted(path for path in outputs.iterdir() if path.name not in before):
        for step in sorted(_steps(launch)):
            if not (step / RECORD).is_file():
                expected = f"{RECORD} of a step that ended well"
                problems.append(Problem(step.name, "nothing", expected, "Start the run again; it resumes from here."))
    raise_if_any(CodaError, "Docker reported a step as done that did not end.", problems)


@contextmanager
def trustworthy_containers() -> Iterator[None]:
    """Have KFP's Docker runner read the true status of each container while this is open."""
    from kfp.local import docker_task_handler as handler

    original = handler.run_docker_container
    handler.run_docker_container = run_container
    try:
        yield
    finally:
        handler.run_docker_container = original


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any) -> int:
    """Run one container to its end and return its exit status, whatever happened in between.

    Args:
        client: docker-py's client.
        image: Image, with tag or digest.
        command: Command of the step.
        volumes: Mounts of the pipeline root.
        **options: Further options of docker-py's `containers.run`.
    """
    options.pop("auto_remove", None)
    options.pop("detach", None)
    container = client.containers.run(image=image, command=command, detach=True, volumes=volumes, **options)
    try:
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")  # KFP indents what a task handler prints
        code = int(container.wait()["StatusCode"])
        if code == 0:
            keep_metadata(command)
        return code
    finally:
        container.remove(force=True)


def container_options(job: Job) -> dict[str, Any]:
    """Return docker-py's options of every container: this user, the host's network, the folders that settings name."""
    import docker.types

    mounted = local_paths(job.settings.environment)
    options: dict[str, Any] = {
        "network_mode": "host",
        "shm_size": "1g",
        "user": f"{os.getuid()}:{os.getgid()}",
        "environment": container_environment(job),
        "mounts": [docker.types.Mount(str(path), str(path), type="bind") for path in mounted],
    }
    if gpus := os.environ.get("CODA_DOCKER_GPUS"):
        count = -1 if gpus == "all" else int(gpus)
        options["device_requests"] = [docker.types.DeviceRequest(count=count, capabilities=[["gpu"]])]
    return options


def _checked_image(job: Job) -> str:
    from docker.client import DockerClient
    from docker.errors import DockerException, ImageNotFound

    image = job.settings.image
    if not image:
        problem = Problem("CODA_IMAGE", "nothing", "an image of this project", "Run `make images` and set it.")
        raise ConfigError("The Docker runner needs to know the image of the steps.", [problem])
    try:
        client = DockerClient.from_env()
        try:
            client.images.get(image)
        finally:
            client.close()
    except ImageNotFound as error:
        problem = Problem("CODA_IMAGE", image, "an image of this machine", "Run `make images`, or pull it.")
        raise ConfigError("The image of the steps is not there.", [problem]) from error
    except DockerException as error:
        problem = Problem("Docker", str(error)[:200], "a daemon that answers", "Start Docker, or use --runner local.")
        raise ConfigError("Docker cannot be reached.", [problem]) from error
    return image


def _steps(folder: Path) -> Iterator[Path]:
    """Yield the folders of steps: right below a launch, or below a round of a loop there."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _steps(path) if _ROUND.fullmatch(path.name) else [path]
