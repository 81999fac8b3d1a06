"""Two ways of training by turns: what each does in a second, and by how much one is faster than the other."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.speed.baseline_loop import CustomaryTraining, PairImages, customary_batches
from coda.benchmark.contestants import TOTAL, Contestant
from coda.config.params import Params
from coda.plates.fieldset import FieldSet
from coda.training.matrix_rate import wait_for
from coda.training.methods.dino.state import new_state
from coda.training.pairs import PairSampler
from coda.training.schedules import Length


@dataclass(frozen=True)
class Compared:
    """Samples a second of the customary way and of ours, turn by turn.

    Attributes:
        customary: One rate a turn.
        ours: One rate a turn, each taken right after the customary one.
    """

    customary: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Geometric mean of ours over customary."""
        return float(np.exp(np.mean(self._logs())))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return Student's interval of the ratio over turns, on the logarithmic scale; endless with one turn."""
        logs = self._logs()
        if len(logs) < 2:
            return (0.0, math.inf)
        half = float(stats.t.ppf((1 + level) / 2, len(logs) - 1)) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
        return (float(np.exp(np.mean(logs) - half)), float(np.exp(np.mean(logs) + half)))

    def _logs(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        logs: np.ndarray[tuple[int], np.dtype[np.float64]] = np.log(np.array(self.ours) / np.array(self.customary))
        return logs


class CustomaryStep:
    """The customary loop, its DataLoader included. The clock starts when the first batch is there."""

    least = 2

    def __init__(self, paths: Sequence[Path], fields: FieldSet, params: Params, device: torch.device) -> None:
        """Build a fresh state; see `benchmarks.speed.baseline_loop`."""
        self._feed = CustomaryFeed(paths, fields, params)
        state = new_state(params, seed=0).to(device)
        per_epoch = PairSampler(fields.table, params.pairs).fields_per_epoch
        length = Length(TOTAL, per_epoch / params.pretrain.batch_size)
        self.samples, self._device, self._next = params.pretrain.batch_size, device, 0
        self._training = CustomaryTraining(state, params, params.pretrain, length)

    def run(self, iterations: int) -> float:
        """Take that many steps; the workers end with the last batch, so none runs into the other's turn."""
        batches = self._feed.batches(iterations)
        views: list[Tensor] | None = next(batches)
        wait_for(self._device)
        started = time.perf_counter()
        while views is not None:
            self._training.step(views, self._next)
            self._next += 1
            views = next(batches, None)
        wait_for(self._device)
        return time.perf_counter() - started


class CustomaryFeed:
    """The customary DataLoader alone."""

    least = 12

    def __init__(self, paths: Sequence[Path], fields: FieldSet, params: Params) -> None:
        """Keep files and table; workers start with each run."""
        self.samples, self._started = params.pretrain.batch_size, 0
        by_batch = params.pairs.by != "none"
        self._paths, self._fields, self._crops, self._by_batch = paths, fields, params.crops, by_batch

    def batches(self, iterations: int) -> Iterator[list[Tensor]]:
        """Yield that many batches, of other samples each time."""
        self._started += 1
        images = PairImages(
            self._paths, self._fields.table, self._crops,
            by_batch=self._by_batch, samples=iterations * self.samples, seed=self._started,
        )  # fmt: skip
        return customary_batches(images, self.samples)

    def run(self, iterations: int) -> float:
        """Load that many batches after the first ones, which wait for the workers to start."""
        batches = self.batches(iterations + WARM)
        for _ in islice(batches, WARM):
            pass
        started = time.perf_counter()
        for _ in batches:
            pass
        return time.perf_counter() - started


WARM = 4
"""Batches that are not timed: what two workers prefetch while they start."""


def compare(
    customary: Contestant, ours: Contestant, *, turns: int, seconds: float, told: Callable[[str], None]
) -> Compared:
    """Let both run by turns, so that whatever else happens on the machine meets both.

    Args:
        customary: Goes first in every turn.
        ours: Goes second.
        turns: Number of turns.
        seconds: About how long each of the two runs in a turn, but not less than its shortest run.
        told: Called with a few words after each turn.
    """
    # the first run of each allocates its memory and is not counted
    ways = (customary, ours)
    counts = [max(way.least, round(seconds * way.least / way.run(way.least))) for way in ways]
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for way, count, kept in zip(ways, counts, rates, strict=True):
            kept.append(count * way.samples / way.run(count))
        told(f"turn {turn + 1} of {turns}: {rates[0][-1]:.3g} and {rates[1][-1]:.3g} samples/s")
    return Compared(tuple(rates[0]), tuple(rates[1]))
