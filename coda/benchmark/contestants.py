"""The engine as something whose speed is measured: its step, and its views alone."""

import time
from typing import Protocol

from coda.config.params import Params
from coda.networks.runtime import resolve_runtime
from coda.plates.fieldset import FieldSet
from coda.plates.stored import StoredFields
from coda.training.images import image_source
from coda.training.matrix_rate import wait_for
from coda.training.methods.dino.objective import DinoObjective
from coda.training.methods.dino.state import new_state
from coda.training.pairs import PairSampler
from coda.training.schedules import Length

TOTAL = 10_000
"""Iterations of the schedules: so many that none of them ends while it is timed."""


class Contestant(Protocol):
    """One way of doing the same work.

    Attributes:
        samples: Samples of one iteration.
        least: Iterations of the shortest run that says something.
    """

    samples: int
    least: int

    def run(self, iterations: int) -> float:
        """Do that many iterations and return the seconds they took."""


class OurStep:
    """The engine's step with all it needs, from drawing rows to the moved teacher."""

    least = 1

    def __init__(self, fields: FieldSet | StoredFields, params: Params) -> None:
        """Build a fresh state and objective as `coda.training.methods.dino.training.train_dino` does."""
        sampler = PairSampler(fields.table, params.pairs)
        length = Length(TOTAL, sampler.fields_per_epoch / params.pretrain.batch_size)
        images = image_source(fields, resolve_runtime(params.compute).device, params.compute.images)
        self.objective = DinoObjective(
            images, params, params.pretrain,
            state=new_state(params, seed=0), sampler=sampler, length=length, seed=0,
        )  # fmt: skip
        self.samples, self._next = params.pretrain.batch_size, 0

    def run(self, iterations: int) -> float:
        """Take that many steps."""
        device = self.objective.runtime.device
        wait_for(device)
        started = time.perf_counter()
        for _ in range(iterations):
            self.objective.step(self._next, measure=False)
            self._next += 1
        wait_for(device)
        return time.perf_counter() - started


class OurFeed:
    """Rows, partners and views alone."""

    least = 1

    def __init__(self, fields: FieldSet | StoredFields, params: Params) -> None:
        """Build what `OurStep` feeds its networks with."""
        self._objective, self._next = OurStep(fields, params).objective, 0
        self.samples = params.pretrain.batch_size

    def run(self, iterations: int) -> float:
        """Cut that many batches of views."""
        objective = self._objective
        wait_for(objective.runtime.device)
        started = time.perf_counter()
        for _ in range(iterations):
            objective.views(self._next)
            self._next += 1
        wait_for(objective.runtime.device)
        return time.perf_counter() - started
