"""One DINO iteration: views, both networks, loss, optimizer, teacher, centre (paper section 4)."""

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from coda.config.params import Budget, Params
from coda.errors import ConfigError, Problem
from coda.networks.extractor import pool_tokens, set_attention
from coda.networks.runtime import Runtime, resolve_runtime
from coda.networks.state import AdaptationState
from coda.plates.fieldset import FieldSet
from coda.training import schedules
from coda.training.crops import Cropper
from coda.training.dino_loss import dino_loss, teacher_probabilities, updated_centre
from coda.training.health import measure_health
from coda.training.optimizer import (
    clip_global_norm,
    follow,
    new_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_rates,
)
from coda.training.pairs import PairSampler
from coda.training.randomness import drawing, generator
from coda.training.schedules import Length


@dataclass(frozen=True)
class Entry:
    """Numbers of one logged iteration, and what is wrong with them in words."""

    numbers: dict[str, float]
    alarms: tuple[str, ...]


class DinoLoop:
    """One iteration after another over a state; owns optimizer and images."""

    def __init__(
        self,
        fields: FieldSet,
        params: Params,
        budget: Budget,
        *,
        state: AdaptationState,
        sampler: PairSampler,
        length: Length,
        seed: int,
        freeze_dino_head: bool,
    ) -> None:
        """Bring images and networks to the device; see `coda.training.engine.train_dino` for the arguments."""
        self.params, self.budget, self.sampler, self.length, self.seed = params, budget, sampler, length, seed
        self.runtime: Runtime = resolve_runtime(params.compute)
        device = self.runtime.device
        self.state = state.to(device)
        self.cropper = Cropper(torch.from_numpy(fields.images).to(device), params.crops)
        self.frozen_head = freeze_dino_head
        state.teacher.eval().requires_grad_(requires_grad=False)
        state.teacher_head.requires_grad_(requires_grad=False)
        state.student.train().requires_grad_(requires_grad=True)
        state.student_head.requires_grad_(requires_grad=not freeze_dino_head)
        for network in (state.student, state.teacher):
            set_attention(network, self.runtime.attention)
        trained = [state.student] if freeze_dino_head else [state.student, state.student_head]
        self.optimizer = new_optimizer(trained, device)

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Run one iteration; return its numbers when asked, which costs a wait for the device."""
        state, params, dino = self.state, self.params, self.params.dino
        rows = self.sampler.batch(self.seed, iteration, self.budget.batch_size)
        views = self.cropper.views(
            torch.from_numpy(rows[0]), torch.from_numpy(rows[1]), generator(self.seed, "views", iteration)
        )
        rate = schedules.learning_rate(iteration, self.length, self.budget)
        decay = schedules.weight_decay(iteration, self.length, self.budget)
        temperature = schedules.teacher_temperature(iteration, self.length, dino)
        momentum = schedules.teacher_momentum(iteration, self.length, dino)
        set_rates(self.optimizer, learning_rate=rate, weight_decay=decay)
        with self.runtime.autocast(), self._drop_path_numbers(iteration):
            with torch.no_grad():
                teacher_features = pool_tokens(state.teacher(views.globals_), dino.pool)
                teacher_logits = state.teacher_head(teacher_features)
            student_logits = self._student(views.globals_, views.locals_)
        shape = (-1, len(rows[0]), dino.prototypes)
        teacher_logits = teacher_logits.view(shape)
        loss = dino_loss(
            student_logits.view(shape), teacher_logits, state.centre,
            student_temperature=dino.student_temperature, teacher_temperature=temperature,
        )  # fmt: skip
        norm = self._learn(loss, iteration)
        if self.frozen_head:
            follow([state.teacher], [state.student], momentum)
        else:
            follow([state.teacher, state.teacher_head], [state.student, state.student_head], momentum)
        q = teacher_probabilities(teacher_logits, state.centre, temperature) if measure else None
        state.centre = updated_centre(state.centre, teacher_logits, params.dino.centre_momentum)
        if q is None:
            return None
        value = self._finite(float(loss.detach()), iteration)
        health = measure_health(value, q, teacher_features)
        numbers = {"iteration": iteration, "loss": value, "learning_rate": rate, "momentum": momentum}
        return Entry({**numbers, "gradient_norm": float(norm), **asdict(health)}, health.alarms())

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint needs."""
        moments = {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        return {**{f"state.{name}": tensor for name, tensor in self.state.tensors().items()}, **moments}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `tensors` returned."""
        parts = {
            prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            for prefix in ("state.", "optimizer.")
        }
        self.state.load_tensors(parts["state."])
        restore_optimizer(self.optimizer, parts["optimizer."])

    def finish(self) -> None:
        """Leave the networks ready to serve."""
        self.state.student.eval()
        self.state.student_head.requires_grad_(requires_grad=True)

    def _student(self, globals_: Tensor, locals_: Tensor) -> Tensor:
        # crops of one size in one forward; the head sees all crops at once, so BatchNorm does too
        pool, student = self.params.dino.pool, self.state.student
        sizes = [globals_, locals_] if len(locals_) else [globals_]
        features = torch.cat([pool_tokens(student(crops), pool) for crops in sizes])
        logits: Tensor = self.state.student_head(features)
        return logits

    def _learn(self, loss: Tensor, iteration: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if schedules.last_layer_is_frozen(iteration, self.length, self.params.dino):
            # before clipping, so that a gradient that is not used does not shrink the others (docs/deviations.md)
            self.state.student_head.last_layer.weight.grad = None
        norm = clip_global_norm(self.optimizer, self.budget.clip_norm)
        self.optimizer.step()
        return norm

    def _drop_path_numbers(self, iteration: int) -> Any:
        if not self.state.student.config["drop_path"]:
            return nullcontext()
        return drawing(self.seed, "drop path", iteration, self.runtime.device)

    def _finite(self, loss: float, iteration: int) -> float:
        if math.isfinite(loss):
            return loss
        remedy = "Lower the learning rate, or compute.precision=float32; the checkpoints before this are sound."
        problem = Problem(f"iteration {iteration}", f"a loss of {loss}", "a number", remedy)
        raise ConfigError("The training diverged.", [problem])
