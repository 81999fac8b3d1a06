"""Jobs in this process, or in several worker processes that share the cores.

Workers are started fresh (spawn): forking a process that already runs threads can deadlock. One that dies takes only
its own job with it, and another takes its place.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from coda.benchmark.job import Job, Outcome, Work, do

Started = Callable[[Job], None]
DEPENDENCY = "it needs '{}', which failed"


def in_this_process(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    processes: int,
    finished: Mapping[str, Outcome],
    started: Started,
) -> Iterator[Outcome]:
    """Yield the outcome of each job, one after the other; see `in_processes`."""
    outcomes = dict(finished)
    for job in _in_order(jobs):
        blocked = _blocked(job, outcomes)
        if blocked is None:
            started(job)
        outcomes[job.digest] = blocked or do(job, work, folder)
        yield outcomes[job.digest]


def in_processes(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    processes: int,
    finished: Mapping[str, Outcome],
    started: Started,
) -> Iterator[Outcome]:
    """Yield the outcome of each job as it ends.

    Args:
        jobs: Jobs to work on; those they build upon are among them or finished.
        work: A function of a module.
        folder: Folder of the benchmark.
        processes: Worker processes; each has its share of the cores as threads.
        finished: Outcomes there are already, by digest.
        started: Called with every job that a worker begins with.
    """
    outcomes, waiting = dict(finished), _in_order(jobs)
    threads = max(1, (os.cpu_count() or 1) // processes)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.job is not None for worker in workers):
            for job in [job for job in waiting if (_blocked(job, outcomes)) is not None]:
                waiting.remove(job)
                outcomes[job.digest] = _blocked(job, outcomes) or Outcome(job, None)
                yield outcomes[job.digest]
            for job in [job for job in waiting if all(other.digest in outcomes for other in job.after)]:
                worker = _idle(workers, processes, work, folder, threads)
                if worker is None:
                    break
                waiting.remove(job)
                worker.give(job)
                started(job)
            busy = {worker.connection: worker for worker in workers if worker.job is not None}
            for connection in wait(list(busy)) if busy else []:
                outcome = busy[connection].take()  # type: ignore[index]
                outcomes[outcome.job.digest] = outcome
                yield outcome
            workers = [worker for worker in workers if not worker.dead]
    finally:
        for worker in workers:
            worker.end()


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs so that each comes after those it builds upon, else in their order."""
    placed: dict[str, Job] = {}
    wanted = {job.digest for job in jobs}

    def place(job: Job) -> None:
        if job.digest in placed or job.digest not in wanted:
            return
        for other in job.after:
            place(other)
        placed[job.digest] = job

    for job in jobs:
        place(job)
    return list(placed.values())


def _blocked(job: Job, outcomes: Mapping[str, Outcome]) -> Outcome | None:
    for other in job.after:
        if other.digest in outcomes and outcomes[other.digest].result is None:
            return Outcome(job, None, DEPENDENCY.format(other.name))
    return None


def _idle(workers: list["_Worker"], processes: int, work: Work, folder: Path, threads: int) -> "_Worker | None":
    for worker in workers:
        if worker.job is None:
            return worker
    if len(workers) >= processes:
        return None
    workers.append(_Worker(work, folder, threads))
    return workers[-1]


class _Worker:
    """One process, the connection to it, and the job it works on."""

    def __init__(self, work: Work, folder: Path, threads: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: Job | None = None
        self.dead = False
        self._process = context.Process(target=serve, args=(theirs, work, folder, threads))
        self._process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def take(self) -> Outcome:
        """Return what became of the job: its outcome, or how the process died."""
        job, self.job = self.job, None
        if job is None:
            message = "no job was given to this worker"
            raise RuntimeError(message)
        try:
            result, cause, seconds = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.end()
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            likely = "; it was probably killed for lack of memory" if code == -signal.SIGKILL else ""
            return Outcome(job, None, f"its process died ({how}){likely}")
        return Outcome(job, result, cause, seconds)

    def end(self) -> None:
        """End the process, whatever it is doing: what is finished is kept, and nothing else would be."""
        self.dead = True
        self.connection.close()
        if self.job is not None:
            self._process.terminate()
        self._process.join()


def serve(connection: "Connection[Any, Any]", work: Work, folder: Path, threads: int) -> None:
    """Do jobs as they come, until the other side is gone; the main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the jobs
    import torch
    from threadpoolctl import threadpool_limits

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        while True:
            try:
                job = connection.recv()
            except (EOFError, OSError):
                return
            outcome = do(job, work, folder)
            try:
                connection.send((outcome.result, outcome.cause, outcome.seconds))
            except (BrokenPipeError, ConnectionResetError):
                return


def end_with_parent() -> None:
    """End this process in the middle of its job when the one that hands out jobs is gone: nobody waits for it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
