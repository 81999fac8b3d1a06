"""Where a process dies: before its n-th write, one write later on every attempt, until it gets through.

A write is anything that another process or a later attempt can see: an object written or deleted, a command of git or
DVC, a change in MLflow, and (of the many) some files that the step opens for writing or renames in the run's folder.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coda.storage import programs
from coda.storage.objects import ObjectStore

OF_STORE = ("put", "put_if_absent", "upload", "delete")
OF_MLFLOW = (
    "create_experiment", "create_run", "set_terminated", "create_logged_model", "log_model_artifacts",
    "finalize_logged_model", "create_registered_model", "create_model_version", "delete_model_version",
    "set_registered_model_alias",
)  # fmt: skip
BOOK = "deaths.json"


@dataclass
class Deaths:
    """Kills this process with signal 9, as nobody can catch it.

    Attributes:
        seed: Draws which local files count.
        share: Share of the local files that count as a write.
        steps: Steps in which to die; all when empty.
        most: Deaths in one step at most.
        growing: One write later each time, for what begins anew each time; else before the second to the seventh write
            in turn, for what resumes where it stopped. A state comes after its mark, and a run that is claimed and not
            yet running is lost with its trigger: a life of one write would get nowhere.
    """

    seed: int
    share: float = 0.0
    steps: tuple[str, ...] = ()
    most: int = 1000
    growing: bool = True
    _left: int | None = field(default=None, init=False)
    _process: int = field(default=0, init=False)
    _step: str = field(default="", init=False)
    _folder: Path = field(default=Path(), init=False)
    _installed: bool = field(default=False, init=False)

    def watch(self, step: str, folder: Path) -> None:
        """Count from here on; the number of this attempt says which write is the last."""
        if self.steps and step not in self.steps:
            return
        if not self._installed:
            self._install()
        number = _book(folder).get(step, 0)
        if number >= self.most:
            return
        self._chance = random.Random(f"{self.seed} {step}")
        self._process = os.getpid()
        self._step, self._folder, self._left = step, folder, number if self.growing else 1 + number % 6

    def rest(self) -> None:
        """Stop counting."""
        self._left = None

    def _write(self) -> None:
        if self._left is None or os.getpid() != self._process:
            return  # a child of this process has a life of its own
        if self._left > 0:
            self._left -= 1
            return
        self._left = None
        book = _book(self._folder)
        draft = self._folder / f"{BOOK}.part"
        draft.write_text(json.dumps({**book, self._step: book.get(self._step, 0) + 1}), encoding="utf-8")
        draft.replace(self._folder / BOOK)
        os.kill(os.getpid(), signal.SIGKILL)

    def _install(self) -> None:
        from mlflow import MlflowClient

        self._installed = True
        for name in OF_STORE:
            self._before(ObjectStore, name)
        for name in OF_MLFLOW:
            self._before(MlflowClient, name)
        self._before(programs, "_run")
        if self.share > 0:
            sys.addaudithook(self._file)

    def _before(self, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._write()
            result = original(*arguments, **named)
            if result is False and self._left is not None:
                self._left += 1  # a conditional write that was lost wrote nothing
            return result

        setattr(owner, name, call)

    def _file(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._left is None or event not in ("open", "os.rename"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = arguments[0]
        inside = isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(str(self._folder))
        if inside and self._chance.random() < self.share:
            self._write()


def _book(folder: Path) -> dict[str, int]:
    path = folder / BOOK
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def deaths_of(work: Path) -> dict[str, int]:
    """Return how often the runs of this machine died, by step."""
    found: dict[str, int] = {}
    for book in work.glob(f"*/{BOOK}"):
        for step, deaths in _book(book.parent).items():
            found[step] = found.get(step, 0) + deaths
    return found
