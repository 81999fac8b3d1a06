"""Progress of a long step: a bar on a terminal, a line every tenth of the way in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from coda.training.progress import Progress, Report


@contextmanager
def shown(title: str) -> Iterator[Report]:
    """Give a training its report function.

    Args:
        title: What is going on, in plain words.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=None, note="")

        def report(progress: Progress) -> None:
            note = f"{progress.samples_per_s:.0f} samples/s, {progress.note}"
            bars.update(task, completed=progress.done, total=progress.total, note=note)

        yield report


class _Lines:
    """Writes a line to standard error each time another tenth is done."""

    def __init__(self, title: str) -> None:
        self._title, self._tenth = title, 0

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth > self._tenth:
            self._tenth = tenth
            rate, left = f"{progress.samples_per_s:.0f} samples/s", f"{progress.remaining_s:.0f} s left"
            sys.stderr.write(f"{self._title}: {progress.done}/{progress.total}, {rate}, {left}, {progress.note}\n")
