"""What a training reports while it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report.

    Attributes:
        done: Iterations done.
        total: Iterations in all.
        samples_per_s: Fields a second since the start (or the resume).
        remaining_s: Estimated seconds to the end.
        note: A few words, such as the loss.
        flops_per_s: Floating-point work of the networks a second; 0 where it is not counted.
    """

    done: int
    total: int
    samples_per_s: float
    remaining_s: float
    note: str
    flops_per_s: float = 0.0


Report = Callable[[Progress], None]


class Clock:
    """Turns iterations into rates."""

    def __init__(self, done: int, total: int, batch_size: int, flops_per_sample: float = 0.0) -> None:
        """Start the clock at iteration `done` of `total`."""
        self._first, self._total, self._batch_size = done, total, batch_size
        self._flops_per_sample = flops_per_sample
        self._started = time.perf_counter()
        self._last = (done, self._started)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def since_last(self, done: int) -> dict[str, float]:
        """Return the speed since the last call or the start, after `done` iterations: iteration, samples_per_s."""
        (before, then), now = self._last, time.perf_counter()
        self._last = (done, now)
        return {
            "iteration": float(done - 1), "samples_per_s": (done - before) * self._batch_size / max(now - then, 1e-9),
        }  # fmt: skip

    def progress(self, done: int, note: str) -> Progress:
        """Return the report after `done` iterations."""
        rate = (done - self._first) / max(self.seconds, 1e-9)
        remaining = (self._total - done) / rate if rate > 0 else float("nan")
        samples = rate * self._batch_size
        return Progress(done, self._total, samples, remaining, note, samples * self._flops_per_sample)
