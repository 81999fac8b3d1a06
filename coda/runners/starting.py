"""How the local runner starts a step: by the warm worker, which has imported what the step needs."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from coda.runners.memory import BY_SIGNAL
from coda.steps.declarations import STEPS
from coda.warm.asking import Asker

WARM = (
    "kfp.dsl.executor_main", "coda.settings", "coda.steps.context",
    *(module for step in STEPS.values() for module in step.imports),
)  # fmt: skip
"""Modules of the steps, in the order in which a run needs them."""

METADATA_ONLY = ("system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics")
"""Kinds of outputs whose content is their metadata: no step writes a file for them."""


Watch = Callable[[Sequence[str]], AbstractContextManager[None]]
"""Takes the command line of a task; the task runs within what it gives."""


def unwatched(_: Sequence[str]) -> AbstractContextManager[None]:
    """Run a task without anybody looking."""
    return nullcontext()


@contextmanager
def started_by(asker: Asker, watch: Watch = unwatched) -> Iterator[None]:
    """Have KFP's subprocess runner start its tasks through a warm worker while this is open."""
    from kfp.local import subprocess_task_handler as handler

    original = handler.run_local_subprocess

    def start(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        with watch(full_command):
            try:
                code = run_step(asker, full_command, env_vars or {})
            except ConnectionError:
                code = original(full_command, env_vars)  # the worker was killed, for want of memory say
        if code == 0:
            keep_metadata(full_command)
        return code

    handler.run_local_subprocess = start
    try:
        yield
    finally:
        handler.run_local_subprocess = original


def run_step(asker: Asker, full_command: Sequence[str], variables: dict[str, str]) -> int:
    """Run one task as KFP's own subprocess runner does: what it prints is printed, its exit code returned.

    Args:
        asker: The warm worker.
        full_command: ``sh -ec <script> <source of the component> --executor_input ... --function_to_execute ...``; the
            script stores the source in a file and runs KFP's executor on it, which is done here without a shell.
        variables: Variables beyond this process's own.
    """
    source, *arguments = full_command[full_command.index("-ec") + 2 :]
    with tempfile.TemporaryDirectory(prefix="coda-step-") as folder:
        component = Path(folder) / "ephemeral_component.py"
        component.write_text(source, encoding="utf-8")
        command = ["kfp.dsl.executor_main", "--component_module_path", str(component), *arguments]
        env = {**os.environ, **variables, "_KFP_RUNTIME": "true"}
        reader, writer = os.pipe()
        with os.fdopen(reader, encoding="utf-8", errors="replace") as output:
            try:
                program = asker.start(command, env=env, cwd=Path.cwd(), out=writer, err=writer)
            finally:
                os.close(writer)
            for line in output:
                print(line, end="")  # KFP indents what is printed here
        code = program.wait()
        if code == -signal.SIGKILL:
            print(f"The step was {BY_SIGNAL}.")
        print("\n")
        return code


def executor_input(command: Sequence[str]) -> dict[str, Any]:
    """Return what KFP tells a task of its inputs and outputs, out of its command line."""
    given = list(command)
    found: dict[str, Any] = json.loads(given[given.index("--executor_input") + 1])
    return found


def keep_metadata(command: Sequence[str]) -> None:
    """Give each output that is metadata only an empty file, once its step has ended well.

    KFP's local cache takes an output without a file for lost, and would repeat its step in a run that resumes.

    Args:
        command: The step's command line, with ``--executor_input`` and its JSON.
    """
    outputs = executor_input(command).get("outputs", {})
    for listed in outputs.get("artifacts", {}).values():
        for artifact in listed["artifacts"]:
            if artifact["type"].get("schemaTitle") in METADATA_ONLY:
                path = Path(artifact["uri"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
