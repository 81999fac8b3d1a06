"""Runs a pipeline as processes of this machine with KFP's subprocess runner.

KFP walks the compiled pipeline; how a step is started is ours: by a warm worker (docs/decisions/0020-warm-steps.md).
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from coda.runners.capture import Capture, open_log
from coda.runners.failure_reason import reason
from coda.runners.port import Job
from coda.runners.spec import for_one_machine
from coda.runners.starting import WARM, Watch, started_by, unwatched
from coda.runners.workdir import RunFolder, environment, opened, python_path
from coda.steps.orphan import RUNNER_PID
from coda.warm.asking import worker

PYTHON = "CODA_PYTHON"
"""Variable of the steps with the interpreter that runs them."""

IMAGE = "this-machine-python"
"""Image name in the compiled pipeline here: nothing is pulled, the steps run in this environment."""


def run_local(job: Job, watch: Watch = unwatched) -> Path:
    """Run a job step by step, each in a process of this Python environment.

    KFP keeps its configuration in the process: one run at a time in one process.

    Returns:
        The log file.

    Raises:
        CodaError: A step failed; the error is its own.
    """
    with opened(job.work, job.run_id) as folder:
        values = {
            **job.settings.environment,
            "TMPDIR": str(folder.temporary),
            "PYTHONPATH": python_path(),
            "PYTHONUNBUFFERED": "1",
            # threads that spin while they wait take the cores from each other: measured 17 against 143 samples a second
            "OMP_WAIT_POLICY": "PASSIVE",
            RUNNER_PID: str(os.getpid()),
            PYTHON: sys.executable,
        }
        # the worker first: it imports while this process imports KFP
        with environment(values), worker(WARM, folder.log) as asker:
            from kfp import local

            with started_by(asker, watch):
                execute(job, folder, local.SubprocessRunner(use_venv=False), IMAGE, PYTHON)
        return folder.log


def execute(job: Job, folder: RunFolder, runner: Any, image: str, python: str | None = None) -> None:
    """Run a job with one of KFP's local runners, capturing what it prints.

    Args:
        job: What to run.
        folder: Folder of the run.
        runner: KFP's runner.
        image: Image of the steps.
        python: Variable of the steps with the interpreter, where it is not the image's own.

    Raises:
        CodaError: A step failed; the error is its own.
    """
    from kfp import components, local

    text = for_one_machine(job.compiled.read_text(encoding="utf-8"), image, python)
    pipeline = components.load_component_from_text(text)
    local.init(
        runner,
        pipeline_root=str(folder.outputs),
        # KFP removes this folder with all that is in it after the run: never give it one that holds anything
        workspace_root=str(folder.scratch),
        raise_on_error=True,
        enable_caching=True,
        cache_root=str(folder.remembered),
    )
    with open_log(folder.log) as file:
        capture = Capture(file, job.say)
        try:
            with contextlib.redirect_stdout(capture):
                pipeline(**job.arguments)
        except RuntimeError as error:
            capture.close_line()
            raise reason(
                job.run_id, job.settings, failed=capture.failed, tail=capture.tail, log=str(folder.log)
            ) from error
        finally:
            capture.close_line()


def local_paths(settings: Mapping[str, str]) -> list[Path]:
    """Return the folders of this machine that settings name: what a container must see too.

    Args:
        settings: Variables of the steps, as `Settings.environment` gives them.
    """
    found = set()
    for value in settings.values():
        scheme, marker, rest = value.partition("://")
        # in an address, a path is quoted, and SQLite's has one slash more
        path = Path(unquote(rest.removeprefix("/") if scheme == "sqlite" else rest) if marker else value)
        if not path.is_absolute():
            continue
        existing = path if path.is_dir() else path.parent
        if existing.is_dir() and existing != Path(os.sep):
            found.add(existing.resolve())
    return sorted(path for path in found if not any(other in path.parents for other in found))
