"""Monitors steps of the local runner: when, how much processor time and memory, and what is handed over."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.scale.process_use import children, ended_cpu_s, inherited_bytes, memory_of, programs
from coda.runners.starting import executor_input

EVERY_S = 0.1
"""Seconds between two looks at the memory of the programs."""

STORE_ENDING = ".zip"
"""End of the names of plate stores: the files of a batch that hold pixels."""

NOBODY = "runner"
"""Whose what is that moves while no step runs: the runner's, between two steps."""


@dataclass
class Watched:
    """What one step used; of tasks that ran side by side under one name, all of them together.

    Attributes:
        tasks: Times it was started.
        seconds: Seconds during which it ran.
        cpu_s: Processor time of its processes.
        peak_bytes: Most memory that one of its processes had, with the pages it shares with the warm worker.
        inherited_bytes: What the warm worker had imported when it was started, which its processes begin with.
        peak_all_bytes: Most memory that all its processes had at a time; shared pages count once for each.
        handed: Artifact -> bytes that it was given.
        left: Artifact -> bytes that it put out.
        stores_bytes: Bytes of plate stores among both: pixels, where the rest is tables and models.
    """

    tasks: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    inherited_bytes: int = 0
    peak_all_bytes: int = 0
    handed: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    stores_bytes: int = 0


@dataclass(frozen=True)
class Stretch:
    """A time during which the same steps ran, seconds of the monotonic clock."""

    began: float
    ended: float
    step: str


class Watching:
    """Watches one run of the local runner; give it to `run_local` while it is open.

    Attributes:
        steps: Step -> what it used. Steps that ran at the same time share an entry, 'a+b', for what cannot be parted.
        stretches: The run's time, piece by piece.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.steps: dict[str, Watched] = {}
        self.stretches: list[Stretch] = []
        self._running: list[str] = []
        self._since = 0.0
        self._cpu_s = 0.0
        self._strangers: frozenset[int] = frozenset()
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        """Begin: children that this process has now, the services, are no steps."""
        self._strangers = frozenset(children(os.getpid()))
        self._since, self._cpu_s = time.monotonic(), ended_cpu_s(self._strangers)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the last stretch."""
        self._over.set()
        self._sampler.join()
        with self._turn:
            self._change()

    @contextmanager
    def __call__(self, command: Sequence[str]) -> Iterator[None]:
        """Note a task for as long as this is open.

        Args:
            command: Its command line, as KFP gives it.
        """
        step, told = _name_of(command), executor_input(command)
        with self._turn:
            self._change()
            self._running.append(step)
            row = self.steps.setdefault(step, Watched())
            row.tasks += 1
            row.inherited_bytes = max(row.inherited_bytes, inherited_bytes(self._strangers))
            row.stores_bytes += _add(row.handed, told.get("inputs", {}))
        try:
            yield
        finally:
            with self._turn:
                self._change()
                self._running.remove(step)
                row.stores_bytes += _add(row.left, told.get("outputs", {}))

    def step_at(self, moment: float) -> str:
        """Return the step that ran at a moment of the monotonic clock."""
        return next((it.step for it in self.stretches if it.began <= moment < it.ended), NOBODY)

    def _label(self) -> str:
        return "+".join(sorted(set(self._running))) or NOBODY

    def _change(self) -> None:
        """Account for what was used since steps last began or ended; to be called before that changes."""
        now, cpu_s, label = time.monotonic(), ended_cpu_s(self._strangers), self._label()
        self.stretches.append(Stretch(self._since, now, label))
        if label != NOBODY:
            row = self.steps.setdefault(label, Watched())
            row.seconds += now - self._since
            row.cpu_s += cpu_s - self._cpu_s
        self._since, self._cpu_s = now, cpu_s

    def _sample(self) -> None:
        while not self._over.wait(EVERY_S):
            with self._turn:
                label = self._label()
            if label == NOBODY:
                continue
            seen = [memory_of(pid) for pid in programs(self._strangers)]
            with self._turn:
                if self._label() == label:
                    row = self.steps.setdefault(label, Watched())
                    row.peak_bytes = max([row.peak_bytes, *(most for _, most in seen)])
                    row.peak_all_bytes = max(row.peak_all_bytes, sum(now for now, _ in seen))


def bytes_below(path: Path, ending: str = "") -> int:
    """Return the bytes of a file, or of all files of a folder; what is there under two names counts twice.

    Args:
        path: File or folder; one that is not there has none.
        ending: Only files whose names end so.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and file.name.endswith(ending))


def bytes_on_disk(folder: Path) -> int:
    """Return the bytes of all files of a folder; what is there under two names counts once."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum({(it.st_dev, it.st_ino): it.st_size for it in found}.values())


def _name_of(command: Sequence[str]) -> str:
    given = list(command)
    return given[given.index("--function_to_execute") + 1]


def _add(sizes: dict[str, int], told: dict[str, Any]) -> int:
    """Add the bytes of artifacts to `sizes`, and return those of plate stores among them."""
    stores = 0
    for name, listed in told.get("artifacts", {}).items():
        for artifact in listed.get("artifacts", []):
            sizes[name] = sizes.get(name, 0) + bytes_below(Path(artifact["uri"]))
            stores += bytes_below(Path(artifact["uri"]), STORE_ENDING)
    return stores
