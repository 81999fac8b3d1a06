"""What a benchmark shows while it runs: a bar on a terminal, a line for each job in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coda.benchmark.jobs import Event, EventCallback


@contextmanager
def showing_plates() -> Iterator[Callable[[int, int], None]]:
    """Give a progress callback for rendered plates."""
    with _bars() as bars:
        task = bars.add_task("Simulating plates", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=done < total)

        yield show


@contextmanager
def showing_jobs(name: str) -> Iterator[EventCallback]:
    """Give a progress callback for jobs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    with _bars() as bars:
        task = bars.add_task(name, total=None)
        running: list[str] = []

        def show(event: Event) -> None:
            if event.state == "started":
                running.append(event.job)
            elif event.job in running:
                running.remove(event.job)
            if event.state == "failed":
                bars.console.print(f"[red]failed[/red] {event.job}: {event.cause}", soft_wrap=True)
            told = f"{name}: {'; '.join(running[:3])}" if running else name
            bars.update(task, completed=event.done, total=event.total, description=told)

        yield show


@contextmanager
def showing_words() -> Iterator[Callable[[str], None]]:
    """Give a progress callback for messages: a status on a terminal, lines in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: print(words, file=sys.stderr, flush=True)
        return
    with console.status("the machine") as status:
        yield status.update


@contextmanager
def going_on(work: Path, what: str = "jobs") -> Iterator[None]:
    """Say what Ctrl-C leaves."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True, highlight=False).print(
            f"\nStopped. Finished {what} are kept in {work}; the same command resumes with the others.", soft_wrap=True
        )
        raise typer.Exit(130) from None


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _line(event: Event) -> None:
    if event.state != "started":
        told = f" ({event.seconds:.0f} s)" if event.state == "finished" else ""
        cause = f": {event.cause}" if event.cause else ""
        sys.stderr.write(f"[{event.done}/{event.total}] {event.state} {event.job}{told}{cause}\n")
        sys.stderr.flush()
