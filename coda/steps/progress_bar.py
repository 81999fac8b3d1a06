"""Progress of a long step: a bar on a terminal, a line every tenth of the way in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from coda.config.params import Compute
from coda.networks.runtime import resolve_runtime
from coda.training.matrix_rate import measure_matrix_rate
from coda.training.progress import Progress, Report

LONG_S = 30.0
"""Seconds that must be left for the machine's own rate to be worth measuring, which takes about one."""


@contextmanager
def shown(title: str, compute: Compute) -> Iterator[Report]:
    """Give a training its report function.

    Args:
        title: What is going on, in plain words.
        compute: Where the arithmetic runs: in long trainings its rate is compared with the machine's.
    """
    console, share = Console(stderr=True), _Share(compute)
    if not console.is_terminal:
        yield _Lines(title, share)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=None, note="")

        def report(progress: Progress) -> None:
            note = f"{progress.samples_per_s:.0f} samples/s{share(progress)}, {progress.note}"
            bars.update(task, completed=progress.done, total=progress.total, note=note)

        yield report


class _Lines:
    """Writes a line to standard error each time another tenth is done."""

    def __init__(self, title: str, share: "_Share") -> None:
        self._title, self._share, self._tenth = title, share, 0

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth > self._tenth:
            self._tenth = tenth
            rate = f"{progress.samples_per_s:.0f} samples/s{self._share(progress)}"
            left = f"{progress.remaining_s:.0f} s left"
            sys.stderr.write(f"{self._title}: {progress.done}/{progress.total}, {rate}, {left}, {progress.note}\n")


class _Share:
    """Says which share of the machine's matrix-product rate a long training puts to use."""

    def __init__(self, compute: Compute) -> None:
        self._compute, self._rate = compute, 0.0

    def __call__(self, progress: Progress) -> str:
        if not self._rate and progress.flops_per_s and progress.remaining_s > LONG_S:
            runtime = resolve_runtime(self._compute)
            kind = runtime.low_precision or torch.float32
            self._rate = measure_matrix_rate(runtime.device, kind, seconds=0.5).flops
        return f" ({progress.flops_per_s / self._rate:.0%} of the matrix rate)" if self._rate else ""
