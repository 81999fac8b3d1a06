"""Cells in this process, or in several worker processes that share the cores.

Workers are started fresh (spawn): forking a process that already runs threads can deadlock. One that dies takes only
its own cell with it, and another takes its place.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from coda.benchmark.job import Cell, Outcome, Work, do

Started = Callable[[Cell], None]
DEPENDENCY = "it needs '{}', which failed"


def in_this_process(
    cells: Sequence[Cell],
    work: Work,
    folder: Path,
    processes: int,
    finished: Mapping[str, Outcome],
    started: Started,
) -> Iterator[Outcome]:
    """Yield the outcome of each cell, one after the other; see `in_processes`."""
    outcomes = dict(finished)
    for cell in _in_order(cells):
        blocked = _blocked(cell, outcomes)
        if blocked is None:
            started(cell)
        outcomes[cell.digest] = blocked or do(cell, work, folder)
        yield outcomes[cell.digest]


def in_processes(
    cells: Sequence[Cell],
    work: Work,
    folder: Path,
    processes: int,
    finished: Mapping[str, Outcome],
    started: Started,
) -> Iterator[Outcome]:
    """Yield the outcome of each cell as it ends.

    Args:
        cells: Cells to work on; those they build upon are among them or finished.
        work: A function of a module.
        folder: Folder of the benchmark.
        processes: Worker processes; each has its share of the cores as threads.
        finished: Outcomes there are already, by digest.
        started: Told about every cell that a worker begins with.
    """
    outcomes, waiting = dict(finished), _in_order(cells)
    threads = max(1, (os.cpu_count() or 1) // processes)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.cell is not None for worker in workers):
            for cell in [cell for cell in waiting if (_blocked(cell, outcomes)) is not None]:
                waiting.remove(cell)
                outcomes[cell.digest] = _blocked(cell, outcomes) or Outcome(cell, None)
                yield outcomes[cell.digest]
            for cell in [cell for cell in waiting if all(other.digest in outcomes for other in cell.after)]:
                worker = _idle(workers, processes, work, folder, threads)
                if worker is None:
                    break
                waiting.remove(cell)
                worker.give(cell)
                started(cell)
            busy = {worker.connection: worker for worker in workers if worker.cell is not None}
            for connection in wait(list(busy)) if busy else []:
                outcome = busy[connection].take()  # type: ignore[index]
                outcomes[outcome.cell.digest] = outcome
                yield outcome
            workers = [worker for worker in workers if not worker.dead]
    finally:
        for worker in workers:
            worker.end()


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells so that each comes after those it builds upon, else in their order."""
    placed: dict[str, Cell] = {}
    wanted = {cell.digest for cell in cells}

    def place(cell: Cell) -> None:
        if cell.digest in placed or cell.digest not in wanted:
            return
        for other in cell.after:
            place(other)
        placed[cell.digest] = cell

    for cell in cells:
        place(cell)
    return list(placed.values())


def _blocked(cell: Cell, outcomes: Mapping[str, Outcome]) -> Outcome | None:
    for other in cell.after:
        if other.digest in outcomes and outcomes[other.digest].result is None:
            return Outcome(cell, None, DEPENDENCY.format(other.name))
    return None


def _idle(workers: list["_Worker"], processes: int, work: Work, folder: Path, threads: int) -> "_Worker | None":
    for worker in workers:
        if worker.cell is None:
            return worker
    if len(workers) >= processes:
        return None
    workers.append(_Worker(work, folder, threads))
    return workers[-1]


class _Worker:
    """One process, the connection to it, and the cell it works on."""

    def __init__(self, work: Work, folder: Path, threads: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.cell: Cell | None = None
        self.dead = False
        self._process = context.Process(target=serve, args=(theirs, work, folder, threads))
        self._process.start()
        theirs.close()

    def give(self, cell: Cell) -> None:
        self.cell = cell
        self.connection.send(cell)

    def take(self) -> Outcome:
        """Return what became of the cell: its outcome, or how the process died."""
        cell, self.cell = self.cell, None
        if cell is None:
            message = "no cell was given to this worker"
            raise RuntimeError(message)
        try:
            result, cause, seconds = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.end()
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            likely = "; it was probably killed for lack of memory" if code == -signal.SIGKILL else ""
            return Outcome(cell, None, f"its process died ({how}){likely}")
        return Outcome(cell, result, cause, seconds)

    def end(self) -> None:
        """End the process, whatever it is doing: what is finished is kept, and nothing else would be."""
        self.dead = True
        self.connection.close()
        if self.cell is not None:
            self._process.terminate()
        self._process.join()


def serve(connection: "Connection[Any, Any]", work: Work, folder: Path, threads: int) -> None:
    """Do cells as they come, until the other side is gone; the main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the cells
    import torch
    from threadpoolctl import threadpool_limits

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        while True:
            try:
                cell = connection.recv()
            except (EOFError, OSError):
                return
            outcome = do(cell, work, folder)
            try:
                connection.send((outcome.result, outcome.cause, outcome.seconds))
            except (BrokenPipeError, ConnectionResetError):
                return


def end_with_parent() -> None:
    """End this process in the middle of its cell when the one that hands out cells is gone: nobody waits for it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
