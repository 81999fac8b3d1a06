"""Cells: the parts of a benchmark that are computed, kept and gone on from one by one.

A cell's file is named by the digest of everything its result depends on, and is written whole. So a benchmark that
was killed at any moment goes on with the cells that are missing, and changed parameters never meet old results.
"""

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coda.benchmark.job import Cell, Outcome, Work, read_cell
from coda.benchmark.job_processes import in_processes, in_this_process
from coda.errors import CodaError, ConfigError, Problem, raise_if_any

__all__ = ["Cell", "Event", "Outcome", "Tell", "Work", "attempt_cells", "raise_for_failures", "run_cells"]

State = Literal["kept", "started", "finished", "failed"]


@dataclass(frozen=True)
class Event:
    """What happened to one cell, for showing progress.

    Attributes:
        cell: Its name.
        state: 'kept' (finished in an earlier run), 'started', 'finished' or 'failed'.
        done: Cells that need no more work, so far.
        total: All cells.
        cause: Why it failed.
        seconds: Wall time of the work, for 'finished'.
    """

    cell: str
    state: State
    done: int
    total: int
    cause: str = ""
    seconds: float = 0.0


Tell = Callable[[Event], None]


def run_cells(
    cells: Sequence[Cell], work: Work, folder: Path, *, processes: int = 1, report: Tell | None = None
) -> list[dict[str, Any]]:
    """Do the work of all cells and return their results, in the order of the cells.

    Args:
        cells: The cells, with those they build upon.
        work: Called with a cell; returns JSON values. With several processes it must be a function of a module.
        folder: Folder of the benchmark; results lie in ``folder/cells``.
        processes: Cells worked on at the same time; each has its share of the cores as threads.
        report: Told about every cell.

    Raises:
        CodaError: Cells failed; each is named with its cause. The others are done and kept.
    """
    outcomes = attempt_cells(cells, work, folder, processes=processes, report=report)
    raise_for_failures(outcomes)
    return [outcome.result for outcome in outcomes if outcome.result is not None]


def attempt_cells(
    cells: Sequence[Cell], work: Work, folder: Path, *, processes: int = 1, report: Tell | None = None
) -> list[Outcome]:
    """Do the work of all cells, whatever fails; see `run_cells`.

    Returns:
        One outcome a cell, in the order of the cells.

    Raises:
        ConfigError: Another benchmark works in this folder.
    """
    told = _Telling(report, len(cells))
    outcomes: dict[str, Outcome] = {}
    for cell in cells:
        kept = read_cell(cell, folder)
        if kept is not None:
            outcomes[cell.digest] = kept
            told.tell(cell, "kept")
    waiting = [cell for cell in cells if cell.digest not in outcomes]
    run = in_this_process if processes <= 1 else in_processes
    with _alone(folder):
        for outcome in run(waiting, work, folder, processes, outcomes, lambda cell: told.tell(cell, "started")):
            outcomes[outcome.cell.digest] = outcome
            state: State = "failed" if outcome.result is None else "finished"
            told.tell(outcome.cell, state, outcome)
    return [outcomes[cell.digest] for cell in cells]


def raise_for_failures(outcomes: Iterable[Outcome]) -> None:
    """Raise one error that names every failed cell, or return when there is none.

    Raises:
        CodaError: Cells failed.
    """
    failed = [outcome for outcome in outcomes if outcome.result is None]
    remedy = "Remove the cause and give the same command again: finished cells are kept."
    problems = [Problem(outcome.cell.name, outcome.cause, "a result", remedy) for outcome in failed]
    raise_if_any(CodaError, f"{len(failed)} cell(s) of the benchmark failed; the others are done and kept.", problems)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other benchmarks out of the folder, which would do the same cells; a process that dies lets go of it."""
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
    """Counts cells that need no more work, and tells."""

    def __init__(self, report: Tell | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def tell(self, cell: Cell, state: State, outcome: Outcome | None = None) -> None:
        self.done += state != "started"
        if self.report is not None:
            cause, seconds = (outcome.cause, outcome.seconds) if outcome else ("", 0.0)
            self.report(Event(cell.name, state, self.done, self.total, cause, seconds))
