"""Contestants in processes of their own: for peak memory, and for two processes side by side."""

import resource
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.baseline_loop import WORKERS
from coda.config.params import Params
from coda.errors import Problem, TransientError
from coda.plates.fieldset import FieldSet

Kind = Literal["ours", "customary"]

WORKER_PROCESSES: dict[Kind, int] = {"ours": 0, "customary": WORKERS}
"""Workers whose memory counts; each is taken to be as large as the largest."""


class Remote:
    """A contestant in a fresh process with its own number of threads."""

    def __init__(
        self, kind: Kind, fields: FieldSet, params: Params, *, threads: int, paths: Sequence[Path] = ()
    ) -> None:
        """Start the process and wait until it is ready.

        Args:
            kind: Which contestant.
            fields: Images and table.
            params: As for `benchmarks.speed.contest`.
            threads: CPU threads.
            paths: PNG of every field, for the customary way.

        Raises:
            TransientError: The process died.
        """
        context = get_context("spawn")
        self.samples, self.least = params.pretrain.batch_size, 2 if kind == "customary" else 1
        self._connection, theirs = context.Pipe()
        arguments = (theirs, kind, fields, params, threads, list(paths))
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        theirs.close()
        self._answer()

    def run(self, iterations: int) -> float:
        """Do that many iterations there and return the seconds they took."""
        self._connection.send(iterations)
        return float(self._answer())

    def peak_bytes(self) -> int:
        """Return the largest memory so far: of the process and its workers together, or of the GPU."""
        self._connection.send("peak")
        return int(self._answer())

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            found = f"a process that ended with exit code {self._process.exitcode}"
            problem = Problem("coda benchmark speed", found, "a time", "Check free memory; run it again.")
            raise TransientError("A measuring process died.", [problem]) from error
        return answer


class Together:
    """Several contestants at the same time; the slowest one's time counts."""

    def __init__(self, remotes: Sequence[Remote]) -> None:
        """Take contestants that are ready."""
        self._remotes = remotes
        self.samples, self.least = sum(remote.samples for remote in remotes), remotes[0].least

    def run(self, iterations: int) -> float:
        """Let each do that many iterations."""
        with ThreadPoolExecutor(len(self._remotes)) as pool:
            times: list[float] = list(pool.map(lambda remote: remote.run(iterations), self._remotes))
        return max(times)


def _serve(
    connection: "Connection[Any, Any]", kind: Kind, fields: FieldSet, params: Params, threads: int, paths: list[Path]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes the connection
    import torch

    from benchmarks.speed.contest import CustomaryStep
    from coda.benchmark.contestants import Contestant, OurStep
    from coda.networks.runtime import resolve_runtime

    torch.set_num_threads(threads)
    device = resolve_runtime(params.compute).device
    contestant: Contestant = OurStep(fields, params) if kind == "ours" else CustomaryStep(paths, fields, params, device)
    connection.send("ready")
    while True:
        try:
            asked = connection.recv()
        except (EOFError, OSError):
            return
        if asked != "peak":
            connection.send(contestant.run(asked))
        elif device.type == "cuda":
            connection.send(torch.cuda.max_memory_allocated(device))
        else:
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            connection.send((own + largest * WORKER_PROCESSES[kind]) * 1024)
