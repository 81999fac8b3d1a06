"""Worker processes with results in order and a bounded number of tasks under way."""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Self, TypeVar

from threadpoolctl import threadpool_limits

from coda.errors import CodaError, Problem

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's parameters (malloc.h)."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """Runs a function over tasks in this process (count 1) or in several.

    Processes are started fresh (spawn) on first use: forking a process that already runs threads can deadlock.
    """

    def __init__(self, count: int) -> None:
        """Keep the number of processes; none is started yet."""
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; at most two tasks a process are under way.

        Raises:
            CodaError: A process died (usually for lack of memory).
        """
        if self.count == 1:
            keep_memory()
            yield from map(function, tasks)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), _begin)
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) >= 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            remedy = "Give the step more memory, or lower ingest.workers; finished plates are not repeated."
            problem = Problem("ingest", "a worker process that died", "workers that finish", remedy)
            raise CodaError("Ingest lost a worker process, probably for lack of memory.", [problem]) from error
        finally:
            for future in waiting:
                future.cancel()


def _begin() -> None:
    """Make a new process ready for work.

    The cores are left to the processes: threads of BLAS inside each would only be in each other's way. And a process
    ends with the one that started it: when that is killed, nobody else would tell it, and it would wait for ever.
    """
    threadpool_limits(1)
    keep_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def keep_memory() -> None:
    """Have the C library keep freed images for the next ones, up to 256 MiB.

    It gives memory of their size back to the system as a rule; fetching it again, page by page, took a tenth of the
    time of a field. A C library without this call (musl, macOS) is left as it is.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(M_MMAP_THRESHOLD, 32 * 2**20)
        tune(M_TRIM_THRESHOLD, 256 * 2**20)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
