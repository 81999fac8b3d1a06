"""The trigger processes of the soak: started, killed, frozen, doubled and weighed from outside."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.soak.stage import Stage

WARM_UP_S = 30.0
"""A process's first seconds: imports, first connections, caches."""


@dataclass(frozen=True)
class Weight:
    """One look at a process.

    Attributes:
        at: Seconds since it was started.
        rss_mib: Resident memory.
        files: Open files.
    """

    at: float
    rss_mib: float
    files: int


@dataclass
class Life:
    """One trigger process from its start to its end."""

    process: "subprocess.Popen[bytes]"
    started: float = field(default_factory=time.monotonic)
    weights: list[Weight] = field(default_factory=list)
    peak_rss_mib: float = 0.0

    def weigh(self) -> None:
        """Look at the process, if it is there."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            files = sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
        except OSError:
            return
        sizes = {name: int(value) / 1024 for name, value in re.findall(r"^(Vm\w+):\s+(\d+) kB", status, re.MULTILINE)}
        if "VmRSS" in sizes:
            self.weights.append(Weight(time.monotonic() - self.started, sizes["VmRSS"], files))
            self.peak_rss_mib = max(self.peak_rss_mib, sizes["VmHWM"])

    @property
    def settled(self) -> list[Weight]:
        """What was seen after the warm-up."""
        return [weight for weight in self.weights if weight.at >= WARM_UP_S]

    def slope_mib_per_hour(self) -> float | None:
        """Return the trend of the resident memory after the warm-up; None for a life too short to say."""
        seen = self.settled
        if len(seen) < 10:
            return None
        at, rss = np.array([(weight.at, weight.rss_mib) for weight in seen]).T
        return float(np.polyfit(at, rss, 1)[0] * 3600)


class Triggers:
    """The first trigger, which is always there, and a second one at times."""

    def __init__(self, stage: Stage) -> None:
        self.lives: list[Life] = []
        self._stage = stage
        self._first = self._start("poll+queue", "trigger-1.log")
        self._second: Life | None = None

    @property
    def longest(self) -> Life:
        """The life that was watched for longest."""
        return max(self.lives, key=lambda life: len(life.weights))

    def keep(self) -> None:
        """Start the first trigger again when it is gone, as Kubernetes does, and weigh what there is.

        Raises:
            RuntimeError: A trigger ended by itself, which it never does.
        """
        code = self._first.process.poll()
        if code is not None and code != -signal.SIGKILL:
            raise RuntimeError(f"The trigger ended by itself with {code}; see trigger-1.log.")
        if code is not None:
            self._first = self._start("poll+queue", "trigger-1.log")
        for life in (self._first, self._second):
            if life is not None:
                life.weigh()

    def kill(self) -> bool:
        """Kill the first trigger where it stands."""
        self._first.process.kill()
        self._first.process.wait()
        return True

    def freeze(self, seconds: float) -> bool:
        """Stop the first trigger's process for longer than its lease, and have it go on as if nothing had been."""
        process = self._first.process
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        return process.poll() is None

    @contextmanager
    def second(self, front_ends: str) -> Iterator[None]:
        """Have a second trigger beside the first one; it is asked to end, as a roll-out does."""
        self._second = life = self._start(front_ends, "trigger-2.log")
        try:
            yield
        finally:
            self._second = None
            _end(life.process)

    def stop(self) -> None:
        """End the first trigger politely."""
        _end(self._first.process)

    def _start(self, front_ends: str, log: str) -> Life:
        params = self._stage.folder / "params.json"
        process = self._stage.start(
            "tests.soak.service", str(params), str(self._stage.work), front_ends, log=log
        )  # fmt: skip
        self.lives.append(Life(process))
        return self.lives[-1]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
