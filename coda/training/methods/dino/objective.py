"""One DINO iteration: views, both networks, loss, optimizer, teacher, centre (paper section 4)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from coda.config.params import DinoOptimizerConfig, Params
from coda.networks.drop_path import path_factors
from coda.networks.extractor import Extractor, pool_tokens, set_attention
from coda.networks.runtime import Runtime, resolve_runtime
from coda.training import schedules
from coda.training.crops import Cropper, Views
from coda.training.distributed import agreed, averaged, together, world
from coda.training.engine import Entry
from coda.training.flops import dino_step
from coda.training.health import measure_health
from coda.training.hooks import Hooks
from coda.training.images import ImageSource
from coda.training.losses import Losses
from coda.training.methods.dino.loss import dino_loss, teacher_probabilities, updated_centre
from coda.training.methods.dino.state import DinoState
from coda.training.methods.dino.student_with_head import StudentWithHead
from coda.training.optimizer import (
    clip_global_norm,
    new_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_rates,
    update_ema,
)
from coda.training.pairs import PairSampler
from coda.training.randomness import generator
from coda.training.schedules import Length

DinoHeadMode = Literal["trained", "prototypes_frozen", "frozen"]
"""What of the DINO heads learns: all, all but the last layer, or nothing."""

AHEAD = 2
"""Batches whose images are read ahead, where they come from plate stores."""


@dataclass(frozen=True)
class Seen:
    """What both networks make of the views of one iteration.

    Attributes:
        teacher_features: Pooled, of the global views, shape (views, width).
        teacher_logits: Of the global views, shape (views, prototypes).
        student_logits: Of all views, global ones first, shape (views, prototypes).
        tokens: The student's, of the global views, shape (views, 1 + patches, width).
    """

    teacher_features: Tensor
    teacher_logits: Tensor
    student_logits: Tensor
    tokens: Tensor


class DinoObjective:
    """One iteration after another over a state; owns optimizer and images.

    Attributes:
        sections: Sections of the parameters that the result depends on, beside the budget's.
    """

    sections: ClassVar[frozenset[str]] = frozenset({"crops", "dino"})

    def __init__(
        self,
        images: ImageSource,
        params: Params,
        budget: DinoOptimizerConfig,
        *,
        state: DinoState,
        sampler: PairSampler,
        length: Length,
        seed: int,
        dino_head: DinoHeadMode = "trained",
        hooks: Hooks | None = None,
        keep_moments: bool = False,
    ) -> None:
        """Bring networks to the device; see `coda.training.methods.dino.training.train_dino` for the arguments."""
        self.params, self.budget, self.sampler, self.length, self.seed = params, budget, sampler, length, seed
        self.runtime: Runtime = resolve_runtime(params.compute)
        self.hooks, self.dino_head, self.share = hooks or Hooks(), dino_head, world().share(budget.batch_size)
        self.keep_moments = keep_moments
        device = self.runtime.device
        self.state, self.losses = state.to(device), Losses(device)
        self.cropper = Cropper(images, params.crops)
        self._train_only_what_learns()
        for network in (state.student, state.teacher):
            set_attention(network, self.runtime.attention)
        student = self._new_student()
        self.optimizer = new_optimizer([student], device)
        if state.moments:
            restore_optimizer(self.optimizer, state.moments)
        self.student = self._compiled(together(student))
        self.teacher = self._compiled(self._new_teacher())

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Run one iteration; return its numbers when asked, which costs a wait for the device."""
        dino = self.params.dino
        views = self.views(iteration)
        rate = schedules.learning_rate(iteration, self.length, self.budget)
        decay = schedules.weight_decay(iteration, self.length, self.budget)
        temperature = schedules.teacher_temperature(iteration, self.length, self.budget)
        momentum = schedules.teacher_momentum(iteration, self.length, self.budget)
        set_rates(self.optimizer, learning_rate=rate, weight_decay=decay)
        with self.runtime.autocast():
            seen = self._seen(iteration, views)
        shape = (-1, len(views.globals_) // 2, dino.prototypes)
        teacher_logits = seen.teacher_logits.view(shape)
        loss = dino_loss(
            seen.student_logits.view(shape), teacher_logits, self.state.centre,
            student_temperature=dino.student_temperature, teacher_temperature=temperature,
        )  # fmt: skip
        terms = self._further_losses(seen, temperature)
        terms |= {term.name: term(seen.tokens.float()) for term in self.hooks.regularizers}
        norm = self._learn(loss + sum(terms.values()), iteration)
        self.losses.note(iteration, loss, norm, *terms.values())
        self._update_teacher(momentum)
        evaluates = self._evaluates_at(iteration)
        # what is evaluated is measured too, so that alarms are never those of an earlier iteration
        measured = measure or evaluates
        q = teacher_probabilities(teacher_logits, self.state.centre, temperature) if measured else None
        self._move_centres(seen)
        if q is None:
            return None
        # before it is evaluated: a teacher of NaN has nothing to show
        mean, stopping = self.losses.mean(), self.hooks.early_stopping
        evaluated = stopping.evaluate(iteration + 1, self.state.teacher) if stopping is not None and evaluates else {}
        numbers = {"iteration": float(iteration), **evaluated}
        health = measure_health(float(averaged(loss.detach())), q, seen.teacher_features)
        numbers |= {"loss": mean, "learning_rate": rate, "momentum": momentum, "gradient_norm": float(norm)}
        numbers |= {name: float(term.detach()) for name, term in terms.items()}
        return Entry({**numbers, **asdict(health)}, health.alarms())

    def views(self, iteration: int) -> Views:
        """Return the views of one iteration, and begin to read what the next ones need."""
        size = self.budget.batch_size
        rows = self.sampler.batch(self.seed, iteration, size)
        source = generator(self.seed, "views", iteration)
        views = self.cropper.views(torch.from_numpy(rows[0]), torch.from_numpy(rows[1]), source, self.share)
        if self.cropper.images.reads_ahead:
            following = range(iteration + 1, min(iteration + 1 + AHEAD, self.length.iterations))
            batches = [self.sampler.batch(self.seed, number, size) for number in following]
            self.cropper.images.expect([part[self.share] for batch in batches for part in batch])
        return views

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything a checkpoint needs."""
        parts = {"state.": self.state.state_dict(), "optimizer.": optimizer_tensors(self.optimizer)}
        if self.hooks.trainable is not None:
            parts["part."] = self.hooks.trainable.state_dict()
        if self.hooks.early_stopping is not None:
            parts["watch."] = self.hooks.early_stopping.state_dict()
        named = {f"{prefix}{name}": tensor for prefix, own in parts.items() for name, tensor in own.items()}
        return {**named, **self.losses.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""

        def own(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.state.load_state_dict(own("state."))
        restore_optimizer(self.optimizer, own("optimizer."))
        self.losses.load_state_dict(tensors)
        if self.hooks.trainable is not None:
            self.hooks.trainable.load_state_dict(own("part."))
        if self.hooks.early_stopping is not None:
            self.hooks.early_stopping.load_state_dict(own("watch."))

    def get_extra_state(self) -> dict[str, Any]:
        """Return what early stopping remembers."""
        return self.hooks.early_stopping.get_extra_state() if self.hooks.early_stopping is not None else {}

    def set_extra_state(self, records: dict[str, Any]) -> None:
        """Go back to what `get_extra_state` returned."""
        if self.hooks.early_stopping is not None:
            self.hooks.early_stopping.set_extra_state(records)

    def finished(self, iteration: int) -> bool:
        """Say whether early stopping has seen enough."""
        stopping = self.hooks.early_stopping
        # asked after an evaluation alone, since processes wait for each other to agree
        return stopping is not None and iteration % stopping.every == 0 and agreed(flag=stopping.should_stop())

    def finish(self) -> None:
        """Leave the networks ready to serve, with the weights of the best evaluation."""
        best = self.hooks.early_stopping.best() if self.hooks.early_stopping is not None else None
        if best is not None:
            self.state.teacher.load_state_dict(dict(best))
        self.state.moments = optimizer_tensors(self.optimizer) if self.keep_moments else {}
        self.state.student.eval().requires_grad_(requires_grad=True)
        for head, _ in self.state.heads:
            head.requires_grad_(requires_grad=True)

    def work(self) -> float:
        """Return the floating-point work of one sample (a pair of images)."""
        return dino_step(self.state.student, self.state.student_head, self.params.crops)

    def _new_student(self) -> nn.Module:
        """Return all that the optimizer changes as one module."""
        state = self.state
        return StudentWithHead(state.student, state.student_head, state.student.pool, self.hooks.trainable)

    def _new_teacher(self) -> nn.Module:
        state = self.state
        return _Pooled(state.teacher, state.teacher_head, state.teacher.pool)

    def _seen(self, iteration: int, views: Views) -> Seen:
        """Run both networks on the views of an iteration."""
        with torch.no_grad():
            teacher_features, teacher_logits = self.teacher(views.globals_)
        # crops of one size in one forward; the head sees all crops at once, so BatchNorm does too
        sizes = [views.globals_, views.locals_] if len(views.locals_) else [views.globals_]
        student_logits, tokens = self.student(sizes, self._paths(iteration, sizes))
        return Seen(teacher_features, teacher_logits, student_logits, tokens)

    def _further_losses(self, seen: Seen, temperature: float) -> dict[str, Tensor]:
        """Return what a method built on DINO adds to its loss, weighted, by name."""
        return {}

    def _move_centres(self, seen: Seen) -> None:
        momentum = self.params.dino.centre_momentum
        self.state.centre = updated_centre(self.state.centre, seen.teacher_logits, momentum)

    def _train_only_what_learns(self) -> None:
        state = self.state
        state.teacher.eval().requires_grad_(requires_grad=False)
        state.student.train()
        if self.hooks.trainable is None:
            state.student.requires_grad_(requires_grad=True)
        for head, followed_by in state.heads:
            followed_by.requires_grad_(requires_grad=False)
            head.requires_grad_(requires_grad=self.dino_head != "frozen")
            if self.dino_head == "prototypes_frozen":
                head.last_layer.requires_grad_(requires_grad=False)

    def _compiled(self, module: nn.Module) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(module) if self.params.compute.compile else module
        return compiled

    def _learn(self, loss: Tensor, iteration: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if schedules.last_layer_is_frozen(iteration, self.length, self.budget):
            # before clipping, so that a gradient that is not used does not shrink the others (docs/deviations.md)
            for head, _ in self.state.heads:
                head.last_layer.weight.grad = None
        norm = clip_global_norm(self.optimizer, self.budget.clip_norm)
        self.optimizer.step()
        if self.hooks.trainable is not None:
            self.hooks.trainable.merge_()
        return norm

    def _update_teacher(self, momentum: float) -> None:
        state = self.state
        teacher: list[nn.Module] = [state.teacher]
        student: list[nn.Module] = [state.student]
        for head, followed_by in state.heads if self.dino_head != "frozen" else []:
            whole = self.dino_head == "trained"
            teacher.append(followed_by if whole else followed_by.mlp)
            student.append(head if whole else head.mlp)
        update_ema(teacher, student, momentum)

    def _evaluates_at(self, iteration: int) -> bool:
        stopping, done = self.hooks.early_stopping, iteration + 1
        return stopping is not None and (done % stopping.every == 0 or done == self.length.iterations)

    def _paths(self, iteration: int, sizes: Sequence[Tensor]) -> list[Tensor | None]:
        """Return which branches of the student are left out for this process's views, by seed and iteration alone."""
        rates, own = self.state.student.drop_path_rates, self.share.stop - self.share.start
        if not rates:
            return [None] * len(sizes)
        crops, source = [len(views) // own for views in sizes], generator(self.seed, "drop path", iteration)
        drawn = path_factors(rates, crops, self.budget.batch_size, self.share, source)
        return [factors.to(self.runtime.device, non_blocking=True) for factors in drawn]


class _Pooled(nn.Module):
    """The teacher as one module: pooled features and logits of the global views."""

    def __init__(self, extractor: Extractor, head: nn.Module, pool: Literal["cls", "mean"]) -> None:
        super().__init__()
        self.extractor, self.head, self.pool = extractor, head, pool

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = pool_tokens(self.extractor(crops), self.pool)
        return features, self.head(features)
