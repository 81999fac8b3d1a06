"""Learning from labels: cross-entropy, warm-up, a plateau schedule, and the weights of the best validation.

The head on a frozen extractor and the supervised system differ in what is put in and in what learns; the rest is here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from coda.config.params import Compute, OptimizerConfig
from coda.errors import ConfigError, Problem
from coda.networks.extractor import set_attention
from coda.networks.runtime import resolve_runtime
from coda.training.distributed import numbers_from_first
from coda.training.engine import Entry
from coda.training.losses import Losses, NotFiniteError
from coda.training.optimizer import clip_global_norm, new_optimizer, optimizer_tensors, restore_optimizer, set_rates
from coda.training.schedules import Length, weight_decay

VALIDATIONS = 10
"""Validations of a run, at least, when it has that many iterations; else one an epoch."""


@dataclass
class Plateau:
    """Divides the learning rate when validation stops to improve, as the paper says (the released code does not).

    Attributes:
        factor: What the rate is multiplied with.
        patience: Validations without improvement that are waited for.
        scale: Factor reached so far.
        best: Accuracy and loss of the best validation so far.
        waited: Validations since then, or since the last division.
    """

    factor: float
    patience: int
    scale: float = 1.0
    best: tuple[float, float] | None = None
    waited: int = 0

    def improves(self, accuracy: float, loss: float) -> bool:
        """Note one validation; say whether it is the best so far: higher accuracy, or the same at a lower loss."""
        if self.best is None or (accuracy, -loss) > (self.best[0], -self.best[1]):
            self.best, self.waited = (accuracy, loss), 0
            return True
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
        return False


class ClassifierTrainer(ABC):
    """An objective of the engine; a subclass says what a batch is and how the held-out fields are predicted.

    Attributes:
        networks: What learns, by name, on the device.
        plateau: Its schedule so far.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        compute: Compute,
        budget: OptimizerConfig,
        length: Length,
        *,
        plateau: Plateau,
    ) -> None:
        """Bring the networks to the device.

        Args:
            networks: What learns, by name.
            compute: Where it runs.
            budget: Rates.
            length: Iterations; they also set how often there is a validation.
            plateau: Divides the rate; it has seen no validation yet.
        """
        self.budget, self.length = budget, length
        self.runtime = resolve_runtime(compute)
        self.networks = {name: network.to(self.runtime.device) for name, network in networks.items()}
        for network in self.networks.values():
            set_attention(network.requires_grad_(requires_grad=True), self.runtime.attention)
        self.optimizer = new_optimizer(self.networks.values(), self.runtime.device)
        self.plateau = plateau
        self.warmup = round(length.of_epochs(budget.warmup_epochs))
        self.every = max(1, min(round(length.iterations_per_epoch), length.iterations // VALIDATIONS))
        self._best: dict[str, Tensor] = {}
        self.losses = Losses(self.runtime.device)

    @abstractmethod
    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return one batch on the device: what goes in, and the classes, shape (batch,)."""

    @abstractmethod
    def logits(self, inputs: Tensor) -> Tensor:
        """Run the networks, under autocast; shape (batch, classes)."""

    @abstractmethod
    def validate(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the held-out fields' probabilities (fields, classes) and classes (fields,)."""

    @property
    def accuracy(self) -> float:
        """Field accuracy of the best validation so far."""
        return self.plateau.best[0] if self.plateau.best else float("nan")

    def learning_rate(self, iteration: int) -> float:
        """Linear warm-up, then the peak as often divided as there were plateaus."""
        ramp = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        return self.budget.learning_rate * ramp * self.plateau.scale

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Learn from one batch; after every `every` iterations, and the last, validate and return the numbers."""
        rate, decay = self.learning_rate(iteration), weight_decay(iteration, self.length, self.budget)
        set_rates(self.optimizer, learning_rate=rate, weight_decay=decay)
        for network in self.networks.values():
            network.train()
        inputs, codes = self.batch(iteration)
        with self.runtime.autocast():
            logits = self.logits(inputs)
        loss = F.cross_entropy(logits.float(), codes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_global_norm(self.optimizer, self.budget.clip_norm)
        self.optimizer.step()
        self.losses.note(iteration, loss, norm)
        done = iteration + 1
        return self._validated(done, rate) if done % self.every == 0 or done == self.length.iterations else None

    def finished(self, iteration: int) -> bool:
        """Say whether the rate has fallen below its end, so that nothing would change any more."""
        return iteration >= self.warmup and self.learning_rate(iteration) < self.budget.learning_rate_end

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, best weights, moments and losses."""
        moments = {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        best = {f"best.{name}": tensor for name, tensor in self._best.items()}
        own = {f"weights.{name}": tensor for name, tensor in self._weights().items()}
        return {**own, **best, **moments, **self.losses.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""
        self._load(_below("weights.", tensors))
        device = self.runtime.device
        self._best = {name: tensor.to(device) for name, tensor in _below("best.", tensors).items()}
        restore_optimizer(self.optimizer, _below("optimizer.", tensors))
        self.losses.load_state_dict(tensors)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the plateau."""
        plateau = self.plateau
        return {"scale": plateau.scale, "best": plateau.best, "waited": plateau.waited}

    def set_extra_state(self, records: dict[str, Any]) -> None:
        """Go back to what `get_extra_state` returned."""
        self.plateau.scale, self.plateau.waited = records["scale"], records["waited"]
        self.plateau.best = tuple(records["best"]) if records["best"] is not None else None

    def take_best(self) -> None:
        """Leave the networks with the weights of the best validation, frozen, in evaluation mode, on the CPU."""
        self._load(self._best)
        for network in self.networks.values():
            network.cpu().requires_grad_(requires_grad=False).eval()

    def _validated(self, done: int, rate: float) -> Entry:
        # before it is validated: weights of NaN must never be the best so far
        mean = self.losses.mean()
        found, classes = self.validate()
        probabilities, codes = torch.from_numpy(found), torch.from_numpy(classes)
        accuracy = float((probabilities.argmax(dim=-1) == codes).float().mean())
        loss = float(F.nll_loss(probabilities.clamp_min(1e-12).log(), codes))
        # one judge: rate, best weights and end must be the same in all processes
        accuracy, loss = numbers_from_first([accuracy, loss])
        if not math.isfinite(loss):
            raise NotFiniteError(done - 1)
        if self.plateau.improves(accuracy, loss):
            self._best = {name: tensor.detach().clone() for name, tensor in self._weights().items()}
        return Entry({
            "iteration": done, "learning_rate": rate, "train_loss": mean,
            "validation_loss": loss, "validation_accuracy": accuracy,
        })  # fmt: skip

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": t for part, network in self.networks.items() for name, t in network.state_dict().items()
        }

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        for part, network in self.networks.items():
            network.load_state_dict(_below(f"{part}.", tensors))


def require_fields(training: int, validation: int) -> None:
    """Refuse to learn without labelled fields, or to choose without held-out ones.

    Raises:
        ConfigError: One of the numbers is 0.
    """
    problems = [
        Problem(name, "no labelled field", "labelled fields", "Label compounds that are on these plates.")
        for name, count in (("training batches", training), ("held-out batches", validation))
        if not count
    ]
    if problems:
        raise ConfigError("Nothing can be learned from labels.", problems)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
