"""Stages of a long job that are remembered: an interrupted job resumes where it stopped."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from coda.durable import give_name
from coda.errors import ConfigError, Problem


class Stages:
    """Finished stages of one job, in a JSON file below its folder.

    A stage's result must be JSON; stages may run in several threads. The file is written whole after every stage, so a
    job that is killed repeats at most the stages it was in; stages themselves may be repeated without harm.
    """

    def __init__(self, folder: Path, fingerprint: str, console: Console) -> None:
        """Open the memory of the job in `folder`.

        Raises:
            ConfigError: The folder holds results of a job with another fingerprint.
        """
        self.path = folder / "stages.json"
        self.console = console
        self._lock = threading.Lock()
        self.memory: dict[str, Any] = {"fingerprint": fingerprint, "stages": {}}
        if self.path.exists():
            known = json.loads(self.path.read_text(encoding="utf-8"))
            if known["fingerprint"] != fingerprint:
                problem = Problem(
                    str(folder),
                    "results made with other parameters or another plate design",
                    "results of these parameters and this design",
                    "Run `make clean` to forget them, then start again.",
                )
                raise ConfigError("The demo cannot resume from what is there.", [problem])
            self.memory = known

    def run(self, name: str, sentence: str, work: Callable[[], Any]) -> Any:
        """Run a stage unless it is finished, and return its result either way."""
        finished = self.memory["stages"]
        if name in finished:
            self.console.print(f"[dim]{sentence} Done before ({finished[name]['seconds']:.0f} s).[/dim]")
            return finished[name]["result"]
        self.console.print(f"[bold]{sentence}[/bold]")
        started = time.monotonic()
        result = work()
        self.note(name, time.monotonic() - started, result)
        return result

    def note(self, name: str, seconds: float, result: Any) -> None:
        """Remember a stage as finished."""
        with self._lock:
            self.memory["stages"][name] = {"seconds": round(seconds, 2), "result": result}
            draft = self.path.with_suffix(".part")
            draft.write_text(json.dumps(self.memory, indent=2), encoding="utf-8")
            give_name(draft, self.path)

    def result(self, name: str) -> Any:
        """Return the result of a finished stage."""
        return self.memory["stages"][name]["result"]

    def finished(self, name: str) -> bool:
        """Return whether a stage was finished by this or an earlier start."""
        return name in self.memory["stages"]

    def seconds(self) -> list[dict[str, Any]]:
        """Return name and seconds of every finished stage, in order."""
        return [{"name": name, "seconds": stage["seconds"]} for name, stage in self.memory["stages"].items()]
