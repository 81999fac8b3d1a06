"""The one engine behind every kind of learning: iterations, checkpoints, exact resume, early end, reports.

What is learned, and how one step goes, is an objective's business (DINO, masked images, supervised, head); everything
around the step is here once.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
import safetensors.torch
from torch import Tensor

from coda.config.params import OptimizerConfig
from coda.contracts.base import digest_of_json
from coda.errors import ConfigError, Problem, StoppedError
from coda.networks.finite import not_finite
from coda.plates.stored import Fields, StoredFields
from coda.training.checkpoint import Checkpoints
from coda.training.distributed import agreed, from_first, world
from coda.training.losses import Losses, NotFiniteError
from coda.training.progress import Clock, Report
from coda.training.schedules import Length

LOGGED = 100
"""Iterations of a run that are measured and logged, about."""


AGREE_EVERY = 10
"""Iterations between questions of several processes to each other whether to stop."""


@dataclass(frozen=True)
class Entry:
    """Numbers of one logged iteration, and messages about what is wrong with them."""

    numbers: dict[str, float]
    alarms: tuple[str, ...] = ()


class Objective(Protocol):
    """One way of learning: owns networks, optimizer and images, and is changed in place by every step.

    Attributes:
        losses: Takes in the loss of every step, and says when a number was none.
    """

    losses: Losses

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Take one optimizer step; return its numbers when asked, which costs a wait for the device.

        Raises:
            NotFiniteError: A loss or gradient was no number in this step or an earlier one.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything a checkpoint needs."""

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state that is no tensor, as JSON."""

    def set_extra_state(self, records: dict[str, Any]) -> None:
        """Go back to what `get_extra_state` returned."""

    def finished(self, iteration: int) -> bool:
        """Say, before an iteration, whether there is nothing left to gain."""


@dataclass(frozen=True)
class RunResult:
    """How a run went.

    Attributes:
        log: Numbers of each logged iteration, those before a resume included; a loss is the mean since the one before.
        alarms: Signs of collapse that were present at the last logged iteration, in words.
        iterations: Iterations done; fewer than planned when the objective had finished.
        samples_per_s: Samples a second, since the start or the resume.
        seconds: Wall time since the start or the resume.
        speed: Samples a second since the logged iteration before, since the start or the resume: iteration,
            samples_per_s. No part of the log, which is the same however often a run was interrupted.
    """

    log: list[dict[str, float]]
    alarms: tuple[str, ...]
    iterations: int
    samples_per_s: float
    seconds: float
    speed: list[dict[str, float]]


class Running(TypedDict, total=False):
    """How a training is kept, told of and stopped: what `run`, and every training, takes by these names.

    Attributes:
        checkpoints: Where to keep checkpoints, every ``checkpoint_every`` iterations; none when not given.
        report: Called after every logged iteration.
        should_stop: Asked before every iteration (of several processes, before every tenth); when it says yes, a
            checkpoint is written and the run ends.
    """

    checkpoints: Checkpoints | None
    report: Report | None
    should_stop: Callable[[], bool] | None


def run(
    objective: Objective,
    *,
    length: Length,
    budget: OptimizerConfig,
    identity: str,
    flops_per_sample: float = 0.0,
    rate: str = "learning_rate",
    **running: Unpack[Running],
) -> RunResult:
    """Take an objective through its iterations, from the newest checkpoint where there is one.

    With several processes (`coda.training.distributed`), the first one keeps checkpoints and reports; the others are
    given what it read, and all stop together.

    Only numbers are kept: whether every loss and every gradient was one is read at each logged iteration; before a
    checkpoint and at the end, all weights and the optimizer's state are looked at as well.

    Args:
        objective: What is learned.
        length: Iterations.
        budget: ``batch_size`` (of all processes together) and ``checkpoint_every`` are read.
        identity: Names the experiment (`fingerprint`); a checkpoint of another one is refused.
        flops_per_sample: Floating-point work of one sample, for the report.
        rate: Dotted name of the parameter that sets the learning rate, for the remedy of a divergence.
        **running: See `Running`.

    Raises:
        ConfigError: The checkpoint is another experiment's, or a loss, gradient or weight is no number.
        StoppedError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    report, should_stop = running.get("report"), running.get("should_stop")
    way = _Run(objective, length.iterations, budget.checkpoint_every, identity, running.get("checkpoints"), rate)
    start = way.resume()
    clock = Clock(start, length.iterations, budget.batch_size, flops_per_sample)
    every = max(1, length.iterations // LOGGED)
    iteration, speed = start, []
    for iteration in range(start, length.iterations):
        # to agree, processes must wait for each other and for the device: not before every iteration
        asked = world().size == 1 or iteration % AGREE_EVERY == 0
        if asked and agreed(flag=should_stop is not None and should_stop()):
            way.interrupt(iteration)
        if objective.finished(iteration):
            break
        measure = iteration % every == 0 or iteration == length.iterations - 1
        entry = way.step(iteration, measure=measure)
        if entry is not None:
            way.note(entry)
            speed.append(clock.since_last(iteration + 1))
            if report is not None and world().first:
                report(clock.progress(iteration + 1, _said(entry)))
        way.keep(iteration + 1)
    else:
        iteration = length.iterations
    way.require_sound(iteration)
    mean = clock.progress(iteration, "").samples_per_s
    return RunResult(way.log, way.alarms, iteration, mean, clock.seconds, speed)


@dataclass
class _Run:
    """The state of a run that belongs to no objective."""

    objective: Objective
    total: int
    checkpoint_every: int
    identity: str
    checkpoints: Checkpoints | None
    rate: str
    kept: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    alarms: tuple[str, ...] = ()

    def resume(self) -> int:
        """Go back to the newest checkpoint and return its iteration; 0 without one."""
        kept = self.checkpoints
        found = from_first(lambda: kept.latest(self.identity) if kept is not None else None)
        if found is None:
            return 0
        iteration, tensors, records = found
        self.objective.load_state_dict(tensors)
        self.objective.set_extra_state(records["objective"])
        self.log, self.alarms = records["log"], tuple(records["alarms"])
        self.kept = iteration
        return iteration

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Take one step; where it is measured, find out whether all numbers since the start were numbers."""
        try:
            entry = self.objective.step(iteration, measure=measure)
            if measure:
                self.objective.losses.require_finite()
        except NotFiniteError as error:
            raise self._diverged(error.iteration, "a loss or gradient that is no number") from error
        return entry

    def require_sound(self, done: int) -> None:
        """Refuse to keep anything after `done` iterations unless every loss, gradient and weight was a number.

        Raises:
            ConfigError: One was not.
        """
        try:
            self.objective.losses.require_finite()
        except NotFiniteError as error:
            raise self._diverged(error.iteration, "a loss or gradient that is no number") from error
        names = not_finite(self.objective.state_dict())
        # all processes hold the same weights, but none may continue alone should they not
        if agreed(flag=bool(names)):
            raise self._diverged(done - 1, f"NaN or infinity in {', '.join(names[:3]) or 'another process'}")

    def _diverged(self, iteration: int, found: str) -> ConfigError:
        resumes = f"it resumes from the checkpoint after {self.kept} iterations, which is sound" if self.kept else (
            "it starts anew, since no checkpoint had been written"
        )  # fmt: skip
        anew = f" {self.checkpoints.anew}." if self.kept and self.checkpoints is not None else ""
        remedy = (
            f"Start the same run with --set compute.precision=float32: {resumes}. If that was the precision, lower "
            f"{self.rate}, which is another training.{anew}"
        )
        return ConfigError("The training diverged.", [Problem(f"iteration {iteration}", found, "numbers", remedy)])

    def note(self, entry: Entry) -> None:
        """Keep a log entry."""
        self.log.append(entry.numbers)
        self.alarms = entry.alarms

    def keep(self, done: int) -> None:
        """Write a checkpoint after `done` iterations, when it is time for one."""
        if done % self.checkpoint_every == 0 and done < self.total:
            self._save(done)

    def interrupt(self, iteration: int) -> None:
        """Write a checkpoint and end the run."""
        self._save(iteration)
        found, remedy = f"a request to stop at iteration {iteration}", "Start the step again; it resumes from here."
        raise StoppedError("The training was interrupted.", [Problem("training", found, "no interruption", remedy)])

    def _save(self, done: int) -> None:
        self.require_sound(done)
        if self.checkpoints is not None and done:
            self.kept = done
        if self.checkpoints is not None and done and world().first:
            records = {"log": self.log, "alarms": self.alarms, "objective": self.objective.get_extra_state()}
            self.checkpoints.save(done, self.identity, self.objective.state_dict(), records)


def _said(entry: Entry) -> str:
    loss = entry.numbers.get("loss", entry.numbers.get("train_loss"))
    said = f"loss {loss:.3f}" if loss is not None else ""
    accuracy = entry.numbers.get("validation_accuracy")
    return said if accuracy is None else f"{said}, held-out accuracy {accuracy:.3f}"


def fingerprint(*parts: object) -> str:
    """Name the experiment a checkpoint belongs to by everything its result depends on, as JSON.

    Data, parameters, start and options belong to it; where it is computed does not.
    """
    return digest_of_json(list(parts))


def fields_digest(fields: Fields) -> str:
    """Return a digest of which fields there are and of their pixels.

    Of images in memory a sparse grid is read; fields in plate stores are named by the recorded digests of all pixels.
    """
    if isinstance(fields, StoredFields):
        recorded = [(place.image_id, place.sha256) for place in fields.places]
        return digest_of_json([recorded, fields.channels, fields.centre])
    sparse = fields.pool[:, :, ::16, ::16] if fields.rows is None else fields.pool[:, :, ::16, ::16][fields.rows]
    pixels = hashlib.sha256(np.ascontiguousarray(sparse).tobytes()).hexdigest()
    return digest_of_json([fields.table["image_id"].tolist(), pixels])


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors as they are in memory now."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return hashlib.sha256(safetensors.torch.save(plain)).hexdigest()
