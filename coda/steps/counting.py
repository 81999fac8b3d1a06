"""Progress of a step that counts things: a bar on a terminal, a line every tenth of the way in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Counted = Callable[[int, int, str], None]
"""Called with what is done, the total, and a few words about where it is."""


@contextmanager
def counted(title: str, *, unit: str, quiet_s: float = 5.0) -> Iterator[Counted]:
    """Give a step a progress callback.

    Args:
        title: What is going on, in plain words.
        unit: What is counted: 'fields'.
        quiet_s: A log stays empty for this long: what is over by then needs no lines.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, unit, quiet_s)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=None)

        def report(done: int, total: int, words: str) -> None:
            bars.update(task, completed=done, total=total, description=f"{title} {words}")

        yield report


class _Lines:
    """Writes a line to standard error each time another tenth is done."""

    def __init__(self, title: str, unit: str, quiet_s: float) -> None:
        self._title, self._unit, self._quiet_s = title, unit, quiet_s
        self._begin, self._tenth = time.monotonic(), 0
        self._first: int | None = None

    def __call__(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done  # what an earlier call had finished already says nothing of the speed
        tenth = 10 * done // max(1, total)
        if tenth <= self._tenth or now - self._begin < self._quiet_s:
            return
        self._tenth = tenth
        rate = (done - self._first) / (now - self._begin)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        sys.stderr.write(f"{self._title} {words}: {done}/{total} {self._unit}, {rate:.1f} a second{left}\n")
