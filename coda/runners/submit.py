"""Submitters: start the run of a batch version, find it again, and say whether it is alive."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml

from coda.config import Params
from coda.errors import ConfigError, Problem
from coda.runners.ending_processes import end_group
from coda.runners.kubeflow import Kubeflow, experiment_of
from coda.runners.spec import compiled_path
from coda.runners.workdir import is_running
from coda.settings import Settings
from coda.steps.context import clear_failure

COMMAND = (sys.executable, "-m", "coda", "pipeline", "run")
"""Starts one run in a process of its own: KFP's local runner allows no more in one process."""

LAST_LINES = 4
LAST_CHARACTERS = 600
"""How much of a run's output is kept as its reason when it left none."""


@dataclass(frozen=True)
class Request:
    """One run to start.

    Attributes:
        run_id: Name of the run; the same after every crash.
        manifest_uri: Address of the manifest.
        manifest_digest: Version of the manifest that was claimed.
        params: Parameters.
    """

    run_id: str
    manifest_uri: str
    manifest_digest: str
    params: Params


class Submitter(Protocol):
    """Starts runs; the way they are run is its own business."""

    def submit(self, request: Request) -> None:
        """Start a run, or find it when it was started before.

        Raises:
            TransientError: Try again later.
            ConfigError: It cannot be started this way.
        """

    def alive(self, run_id: str) -> bool:
        """Return whether the run is still running, as far as this submitter can see."""

    def last_words(self, run_id: str) -> str:
        """Return the end of what the run printed, as far as this submitter can see it; else nothing."""

    def stop(self, grace_s: float) -> frozenset[str]:
        """End the runs that live and die with this process, within so many seconds; return their names."""


@dataclass
class LocalSubmitter:
    """One process a run on this machine, its output in ``<work>/<run_id>/trigger.txt``.

    Attributes:
        settings: Where the services are.
        work: Folder for the runs of this machine.
        runner: 'local' (processes) or 'docker' (containers).
        command: Command before the arguments of `coda pipeline run`.
    """

    settings: Settings
    work: Path
    runner: str = "local"
    command: Sequence[str] = COMMAND
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def submit(self, request: Request) -> None:
        """Start the run's process unless one of this machine runs it already."""
        if self.alive(request.run_id):
            return
        folder = self.work / request.run_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            params = folder / "params.yaml"
            # not JSON: YAML 1.1 takes JSON's 1e-6 for text
            params.write_text(yaml.safe_dump(request.params.model_dump(mode="json")), encoding="utf-8")
            log = (folder / "trigger.txt").open("ab")
        except OSError as error:
            problem = Problem(str(folder), str(error), "a folder that can be written", "Free space, or move --work.")
            raise ConfigError("The run has no folder to work in.", [problem]) from error
        arguments = [
            "adaptation", "--runner", self.runner, "--params", str(params), "--run-id", request.run_id,
            "--manifest-uri", request.manifest_uri, "--manifest-digest", request.manifest_digest,
            "--work", str(self.work),
        ]  # fmt: skip
        with log:
            self._processes[request.run_id] = subprocess.Popen(
                [*self.command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **self.settings.environment}, start_new_session=True,
            )  # fmt: skip

    def alive(self, run_id: str) -> bool:
        """Return whether a process of this machine runs it."""
        process = self._processes.get(run_id)
        if process is not None and process.poll() is None:
            return True
        self._processes.pop(run_id, None)
        return is_running(self.work, run_id)

    def last_words(self, run_id: str) -> str:
        """Return the end of what the run's process printed."""
        path = self.work / run_id / "trigger.txt"
        if not path.is_file():
            return ""
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        return " / ".join([line for line in lines if line][-LAST_LINES:])[-LAST_CHARACTERS:]

    def stop(self, grace_s: float) -> frozenset[str]:
        """Ask the runs' processes to end, and end those that do not; a run resumes later where it stopped."""
        ended = frozenset(run_id for run_id, process in self._processes.items() if process.poll() is None)
        for process in self._processes.values():
            end_group(process, grace_s)
        self._processes.clear()
        return ended


@dataclass
class KubeflowSubmitter:
    """Runs on Kubeflow Pipelines, found again by their name.

    Attributes:
        settings: Where the services are.
        compiled: Compiled pipeline; the one beside its definition when not given.
    """

    settings: Settings
    compiled: Path | None = None

    def submit(self, request: Request) -> None:
        """Submit the run unless one of its name is alive or succeeded."""
        arguments = {
            "run_id": request.run_id,
            "manifest_uri": request.manifest_uri,
            "manifest_digest": request.manifest_digest,
            "params": request.params.model_dump_json(),
        }
        compiled = self.compiled or compiled_path("adaptation")
        if not self.alive(request.run_id):
            clear_failure(request.run_id, self.settings)
        Kubeflow(self.settings).submit(compiled, request.run_id, experiment_of("adaptation", arguments), arguments)

    def alive(self, run_id: str) -> bool:
        """Return whether Kubeflow says that a run of this name may still change."""
        found = Kubeflow(self.settings).find(run_id)
        return found is not None and found.live

    def last_words(self, run_id: str) -> str:
        """Return what Kubeflow knows of steps that failed; what their pods printed is there."""
        found = Kubeflow(self.settings).find(run_id)
        return found.words if found is not None else ""

    def stop(self, grace_s: float) -> frozenset[str]:
        """Leave the runs alone: they do not depend on this process."""
        return frozenset()
