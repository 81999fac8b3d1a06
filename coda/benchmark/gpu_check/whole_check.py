"""The check as a whole: one measurement after the other, each recorded as it ends, within a limit of minutes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from coda.benchmark.gpu_check.check_page import tables_of, write_page
from coda.benchmark.gpu_check.check_plan import SIZES, Item, items_of
from coda.benchmark.gpu_check.check_record import NAME, Record, open_record
from coda.benchmark.gpu_check.measuring_process import Setup, Worker
from coda.errors import ConfigError, Problem, TransientError

START_S, LEAST_S, RESERVE_S = 120.0, 25.0, 5.0
"""Seconds a process may take to start; under which nothing is begun; that are kept for the last writing."""

MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What a person asked for.

    Attributes:
        out: Folder of the record and the page.
        work: Folder of the plate store.
        device: 'cuda' or 'cpu'.
        size: 'full' or 'tiny'.
        minutes: Limit of the whole call.
        only: Patterns of names; all measurements when there are none.
    """

    out: Path
    work: Path
    device: str
    size: str
    minutes: float
    only: Sequence[str] = ()


def run_check(asked: Asked, told: MessageCallback) -> tuple[Record, list[str]]:
    """Measure what is not recorded yet, and write record and page.

    Args:
        asked: What, where, how long.
        told: Called with a line about each measurement.

    Returns:
        The record, and the names that were asked for; what failed is in the record, what there was no time for is not.

    Raises:
        ConfigError: There is no GPU, a pattern names nothing, or the file there is no record.
        TransientError: The measuring process does not start.
    """
    deadline = time.monotonic() + 60 * asked.minutes
    chosen = _chosen(asked)
    ways = _Workers(Setup(asked.size, asked.device, asked.work))
    try:
        ways.worker(60 * asked.minutes)
        record = _opened(asked, ways.machine, told)
        for item in _in_turn(chosen, record):
            if deadline - time.monotonic() < LEAST_S + RESERVE_S:
                told("The time is up; the same command resumes with the rest.")
                break
            worker = ways.worker(deadline - time.monotonic() - RESERVE_S)
            left = max(0.0, deadline - time.monotonic() - RESERVE_S)
            cut = left < item.budget_s
            answer = worker.ask(item, min(item.budget_s, left))
            if answer.result is None:
                ways.renew()
            if answer.late and cut:
                told(f"{item.name}: cut off, the time is up; the same command resumes with it.")
                break
            record.items[item.name] = {
                "state": "failed" if answer.result is None else "measured", "seconds": answer.seconds,
                "budget_s": item.budget_s, "peaks": answer.peaks, "result": answer.result, "error": answer.error,
            }  # fmt: skip
            _write(asked.out, record)
            told(f"{item.name}: {answer.error or 'measured'} ({answer.seconds:.0f} s)")
    finally:
        ways.renew()
    _write(asked.out, record)
    return record, [item.name for item in chosen]


class _Workers:
    """One measuring process at a time, started when it is needed."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._worker: Worker | None = None
        self.machine: dict[str, Any] = {}

    def worker(self, seconds: float) -> Worker:
        """Return the process, ready to measure.

        Args:
            seconds: That it may take to start, at most.

        Raises:
            TransientError: It does not start.
        """
        if self._worker is None:
            self._worker = Worker(self._setup)
            answer = self._worker.ask(None, min(START_S, seconds))
            if answer.result is None:
                remedy = "Try on this machine: python3 -c 'import torch; print(torch.cuda.is_available())'"
                problem = Problem("measuring process", answer.error, "a description of the machine", remedy)
                raise TransientError("The measuring process does not work.", [problem])
            self.machine = answer.result
        return self._worker

    def renew(self) -> None:
        """End the process; the next measurement starts another."""
        if self._worker is not None:
            self._worker.end()
        self._worker = None


def _chosen(asked: Asked) -> list[Item]:
    items = items_of(SIZES[asked.size])
    unknown = [only for only in asked.only if not any(fnmatch(item.name, only) for item in items)]
    if unknown:
        names = ", ".join(item.name for item in items)
        problems = [Problem("--only", pattern, f"a pattern of {names}", "Name one of them.") for pattern in unknown]
        raise ConfigError("There is no such measurement.", problems)
    return [item for item in items if not asked.only or any(fnmatch(item.name, only) for only in asked.only)]


def _opened(asked: Asked, machine: dict[str, Any], told: MessageCallback) -> Record:
    if asked.device == "cuda" and not machine["has_gpu"]:
        remedy = (
            "Run `make gpu-check` on a machine with a CUDA device. How to see without one that it runs, with figures "
            "that mean nothing, is in docs/gpu_check.md."
        )
        problem = Problem(f"torch {machine['torch']}", "no CUDA device", "a GPU", remedy)
        raise ConfigError("No GPU is here. Nothing was measured, and nothing is estimated.", [problem])
    key = {
        "device": machine["gpu"] or f"cpu: {machine['cpu']}", "torch": str(machine["torch"]),
        "cuda": str(machine["cuda"]), "code": machine["code"], "size": asked.size,
    }  # fmt: skip
    planned = [item.name for item in items_of(SIZES[asked.size])]
    record, words = open_record(asked.out / NAME, key, machine, planned)
    if words:
        told(words)
    return record


def _in_turn(items: Sequence[Item], record: Record) -> list[Item]:
    """Return what is not measured, that which was never tried before that which failed."""
    waiting = [item for item in items if not record.measured(item.name)]
    return sorted(waiting, key=lambda item: item.name in record.items)


def _write(out: Path, record: Record) -> None:
    tables = tables_of(record)
    record.write(out / NAME, tables)
    write_page(out, record, tables)
