"""What KFP's local runners print: kept in a log file, and turned into one plain line when a step starts or ends."""

import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from coda.settings import without_secrets
from coda.steps.declarations import STEPS

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STARTS = re.compile(r"Executing task '([^']+)'")
_ENDS = re.compile(r"Task '([^']+)' finished with status (SUCCESS|FAILURE)")
_REMEMBERED = re.compile(r"Task ([\w-]+) cache hit")

KEPT = 40
"""Last lines kept to explain a failure that left no reason of its own."""


class Capture:
    """A text stream that writes to a log file and tells of steps; stands in for standard output during a run.

    Attributes:
        failed: Names of the steps that KFP reported as failed, in order.
        tail: Last lines of the log, up to the first failure: steps that need nothing of the failed one still run.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, log: TextIO, say: Callable[[str], None]) -> None:
        """Write to `log`; call `say` with a line for each step that starts or ends."""
        self.failed: list[str] = []
        self.tail: deque[str] = deque(maxlen=KEPT)
        self._log = log
        self._say = say
        self._line = ""
        self._started: dict[str, float] = {}

    def write(self, text: str) -> int:
        """Take text as it comes; whole lines are passed on."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(_COLOUR.sub("", line))
        return len(text)

    def flush(self) -> None:
        """Flush the log file."""
        self._log.flush()

    def isatty(self) -> bool:
        """Return that this is no terminal."""
        return False

    def close_line(self) -> None:
        """Take what is left of an unfinished line."""
        if self._line:
            self.write("\n")

    def _take(self, line: str) -> None:
        line = without_secrets(line)
        self._log.write(line + "\n")
        self._log.flush()
        if line.strip() and set(line) != {"-"} and not self.failed:
            self.tail.append(line.strip())
        if match := _STARTS.search(line):
            self._started[match[1]] = time.monotonic()
            self._say(f"{_words(match[1])} ...")
        elif match := _ENDS.search(line):
            seconds = time.monotonic() - self._started.pop(match[1], time.monotonic())
            if match[2] == "FAILURE":
                self.failed.append(_plain(match[1]))
                self._say(f"{_words(match[1])} failed after {seconds:.1f} s.")
            else:
                self._say(f"{_words(match[1])}: done in {seconds:.1f} s.")
        elif match := _REMEMBERED.search(line):
            self._say(f"{_words(match[1])}: done before.")


def open_log(path: Path) -> TextIO:
    """Open the log of a run for more lines; earlier attempts stay in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8")


def _plain(task: str) -> str:
    # the second task of one name in a pipeline is called 'report-2'
    return re.sub(r"-\d+$", "", task)


def _words(task: str) -> str:
    step = STEPS.get(_plain(task).replace("-", "_"))
    return task if step is None else step.says
