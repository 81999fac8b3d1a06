"""Child processes that start with everything imported, and the submitter that runs chains in them."""

import multiprocessing
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path

from coda.runners.submit import Request
from coda.runners.workdir import is_running
from coda.settings import Settings
from tests.faults.chain import Task, run_chain
from tests.faults.deaths import Deaths

ROOT = Path(__file__).resolve().parents[2]


def prepared() -> BaseContext:
    """Return a context whose children are forked from a process that imported much and did nothing."""
    # the process that children are forked from is started with this environment
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.warm"])
    return context


@dataclass
class ChainSubmitter:
    """Runs each request as a chain in a child process of this machine.

    Attributes:
        settings: Where the services are, for the runs: it may be another way to them than the trigger's own.
        work: Folder of the runs of this machine.
        context: How children are made.
        credentials: Further variables of the children.
        deaths: Where they die.
    """

    settings: Settings
    work: Path
    context: BaseContext
    credentials: dict[str, str]
    deaths: Deaths | None = None
    _processes: dict[str, multiprocessing.Process] = field(default_factory=dict, init=False)

    def submit(self, request: Request) -> None:
        if self.alive(request.run_id):
            return
        params = request.params.model_dump_json()
        task = Task(
            request.run_id, (request.manifest_uri,), request.manifest_digest, params, self.work, deaths=self.deaths
        )
        self.start(task)

    def start(self, task: Task) -> multiprocessing.Process:
        environment = {**os.environ, **self.settings.environment, **self.credentials}
        process = self.context.Process(target=run_chain, args=(task, environment))
        process.start()
        self._processes[task.run_id] = process
        return process

    def alive(self, run_id: str) -> bool:
        process = self._processes.get(run_id)
        if process is not None and process.is_alive():
            return True
        self._processes.pop(run_id, None)
        return is_running(self.work, run_id)

    def last_words(self, run_id: str) -> str:
        path = self.work / run_id / "chain.txt"
        return path.read_text(encoding="utf-8", errors="replace").strip()[-300:] if path.exists() else ""

    def stop(self, grace_s: float) -> frozenset[str]:
        """Kill what runs, as a machine that is switched off."""
        ended = frozenset(run_id for run_id, process in self._processes.items() if process.is_alive())
        for process in self._processes.values():
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.join()
        self._processes.clear()
        return ended
