"""Jobs: the parts of a benchmark that are computed, kept and resumed one by one.

A job's file is named by the digest of everything its result depends on, and is written whole. So a benchmark that
was killed at any moment resumes with the jobs that are missing, and changed parameters never meet old results.
"""

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coda.benchmark.job import Job, Outcome, Work, read_job
from coda.benchmark.job_processes import in_processes, in_this_process
from coda.errors import CodaError, ConfigError, Problem, raise_if_any

__all__ = ["Event", "EventCallback", "Job", "Outcome", "Work", "attempt_jobs", "raise_for_failures", "run_jobs"]

State = Literal["kept", "started", "finished", "failed"]


@dataclass(frozen=True)
class Event:
    """What happened to one job, for showing progress.

    Attributes:
        job: Its name.
        state: 'kept' (finished in an earlier run), 'started', 'finished' or 'failed'.
        done: Jobs that need no more work, so far.
        total: All jobs.
        cause: Why it failed.
        seconds: Wall time of the work, for 'finished'.
    """

    job: str
    state: State
    done: int
    total: int
    cause: str = ""
    seconds: float = 0.0


EventCallback = Callable[[Event], None]


def run_jobs(
    jobs: Sequence[Job], work: Work, folder: Path, *, processes: int = 1, report: EventCallback | None = None
) -> list[dict[str, Any]]:
    """Do the work of all jobs and return their results, in the order of the jobs.

    Args:
        jobs: The jobs, with those they build upon.
        work: Called with a job; returns JSON values. With several processes it must be a function of a module.
        folder: Folder of the benchmark; results lie in ``folder/jobs``.
        processes: Jobs worked on at the same time; each has its share of the cores as threads.
        report: Called with every event of a job.

    Raises:
        CodaError: Jobs failed; each is named with its cause. The others are done and kept.
    """
    outcomes = attempt_jobs(jobs, work, folder, processes=processes, report=report)
    raise_for_failures(outcomes)
    return [outcome.result for outcome in outcomes if outcome.result is not None]


def attempt_jobs(
    jobs: Sequence[Job], work: Work, folder: Path, *, processes: int = 1, report: EventCallback | None = None
) -> list[Outcome]:
    """Do the work of all jobs, whatever fails; see `run_jobs`.

    Returns:
        One outcome a job, in the order of the jobs.

    Raises:
        ConfigError: Another benchmark works in this folder.
    """
    told = _Telling(report, len(jobs))
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        kept = read_job(job, folder)
        if kept is not None:
            outcomes[job.digest] = kept
            told.tell(job, "kept")
    waiting = [job for job in jobs if job.digest not in outcomes]
    run = in_this_process if processes <= 1 else in_processes
    with _alone(folder):
        for outcome in run(waiting, work, folder, processes, outcomes, lambda job: told.tell(job, "started")):
            outcomes[outcome.job.digest] = outcome
            state: State = "failed" if outcome.result is None else "finished"
            told.tell(outcome.job, state, outcome)
    return [outcomes[job.digest] for job in jobs]


def raise_for_failures(outcomes: Iterable[Outcome]) -> None:
    """Raise one error that names every failed job, or return when there is none.

    Raises:
        CodaError: Jobs failed.
    """
    failed = [outcome for outcome in outcomes if outcome.result is None]
    remedy = "Remove the cause and give the same command again: finished jobs are kept."
    problems = [Problem(outcome.job.name, outcome.cause, "a result", remedy) for outcome in failed]
    raise_if_any(CodaError, f"{len(failed)} job(s) of the benchmark failed; the others are done and kept.", problems)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other benchmarks out of the folder, which would do the same jobs; a process that dies lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "benchmark.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "Wait until it has ended, or give this one another folder with --work."
            problem = Problem(str(folder), "another benchmark at work", "nobody else", remedy)
            raise ConfigError("Two benchmarks cannot work in one folder.", [problem]) from None
        yield


class _Telling:
    """Counts jobs that need no more work, and tells."""

    def __init__(self, report: EventCallback | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def tell(self, job: Job, state: State, outcome: Outcome | None = None) -> None:
        self.done += state != "started"
        if self.report is not None:
            cause, seconds = (outcome.cause, outcome.seconds) if outcome else ("", 0.0)
            self.report(Event(job.name, state, self.done, self.total, cause, seconds))
