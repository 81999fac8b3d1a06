"""Step 2: the head learns on tokens of the frozen extractor (paper section 3)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.extractor import Extractor, set_attention
from coda.networks.head import Head, new_head
from coda.networks.runtime import resolve_runtime
from coda.training.optimizer import clip_global_norm, new_optimizer, set_rates
from coda.training.progress import Clock, Report
from coda.training.randomness import derived_seed, generator
from coda.training.schedules import length_of
from coda.training.tokens import field_probabilities

VALIDATIONS = 10
"""Validations of a run, at least, when it has that many iterations; else one an epoch."""


@dataclass(frozen=True)
class TokenSet:
    """Tokens with their classes: rounds of random crops for training, evaluation crops for validation.

    Attributes:
        tokens: Shape (rounds or crops, fields, 1 + patches, width), float32 on the CPU, aligned already.
        codes: Class of every field, none negative, shape (fields,).
    """

    tokens: Tensor
    codes: NDArray[np.int64]


@dataclass
class Plateau:
    """Divides the learning rate when validation stops to improve, as the paper says (the released code does not).

    Attributes:
        factor: What the rate is multiplied with.
        patience: Validations without improvement that are waited for.
        scale: Factor reached so far.
    """

    factor: float
    patience: int
    scale: float = 1.0
    best: tuple[float, float] = (-1.0, -float("inf"))
    waited: int = 0

    def improves(self, accuracy: float, loss: float) -> bool:
        """Note one validation; say whether it is the best so far: higher accuracy, or the same at a lower loss."""
        if (accuracy, -loss) > self.best:
            self.best, self.waited = (accuracy, -loss), 0
            return True
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
        return False


@dataclass(frozen=True)
class HeadResult:
    """A trained head and how it came about.

    Attributes:
        head: The weights of the best validation, frozen, in evaluation mode on the CPU.
        accuracy: Field accuracy of those weights on the held-out batches.
        log: One entry a validation: iteration, learning_rate, train_loss, validation_loss, validation_accuracy.
        seconds: Wall time.
    """

    head: Head
    accuracy: float
    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def train_head(
    training: Callable[[int], TokenSet],
    validation: TokenSet,
    extractor: Extractor,
    params: Params,
    *,
    classes: tuple[str, ...],
    alignment: str,
    seed: int,
    report: Report | None = None,
) -> HeadResult:
    """Train one head on tokens: warm-up, plateau schedule, best validation kept.

    Args:
        training: Gives the tokens of an epoch by its number (the same ones, or new random crops).
        validation: Tokens of the held-out batches' evaluation crops.
        extractor: The network the tokens come from; only its size is used.
        params: The `head` and `compute` sections.
        classes: Mechanisms in the order of the codes.
        alignment: What was done to the tokens; kept in the head's config.
        seed: Of first weights and order.
        report: Called after each validation.

    Raises:
        ConfigError: There is nothing to train on or to validate with.
    """
    first = training(0)
    _require_fields(first, validation)
    budget = params.head.budget
    length = length_of(budget, first.tokens.shape[0] * first.tokens.shape[1])
    every = max(1, min(round(length.iterations_per_epoch), length.iterations // VALIDATIONS))
    head = new_head(params, extractor, classes, alignment, seed=derived_seed(seed, "head", 0))
    lesson = _Lesson(head, params, warmup=round(length.of_epochs(budget.warmup_epochs)))
    batches = _batches(training, first, budget.batch_size, seed)
    clock, losses, log = Clock(0, length.iterations, budget.batch_size), [], []
    for iteration in range(length.iterations):
        rate = lesson.learning_rate(iteration)
        if rate < budget.learning_rate_end and iteration >= lesson.warmup:
            break
        losses.append(lesson.learn(*next(batches), rate=rate))
        if (iteration + 1) % every == 0 or iteration == length.iterations - 1:
            accuracy, validation_loss = lesson.validate(validation)
            log.append({
                "iteration": iteration + 1, "learning_rate": rate, "train_loss": float(np.mean(losses)),
                "validation_loss": validation_loss, "validation_accuracy": accuracy,
            })  # fmt: skip
            losses = []
            if report is not None:
                report(clock.progress(iteration + 1, f"held-out accuracy {accuracy:.3f}"))
    return HeadResult(lesson.best_head(), lesson.plateau.best[0], log, clock.seconds)


class _Lesson:
    """A head in training, with its optimizer, plateau and best weights."""

    def __init__(self, head: Head, params: Params, *, warmup: int) -> None:
        self.params, self.warmup = params, warmup
        self.runtime = resolve_runtime(params.compute)
        self.head = head.to(self.runtime.device)
        set_attention(head, self.runtime.attention)
        self.optimizer = new_optimizer([head], self.runtime.device)
        self.plateau = Plateau(params.head.plateau_factor, params.head.plateau_patience)
        self._best: dict[str, Tensor] = {}

    def learning_rate(self, iteration: int) -> float:
        ramp = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        return self.params.head.budget.learning_rate * ramp * self.plateau.scale

    def learn(self, tokens: Tensor, codes: Tensor, *, rate: float) -> float:
        budget = self.params.head.budget
        set_rates(self.optimizer, learning_rate=rate, weight_decay=budget.weight_decay_start)
        self.head.train()
        with self.runtime.autocast():
            logits = self.head(tokens.to(self.runtime.device))
        loss = F.cross_entropy(logits.float(), codes.to(self.runtime.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_global_norm(self.optimizer, budget.clip_norm)
        self.optimizer.step()
        return float(loss.detach())

    def validate(self, validation: TokenSet) -> tuple[float, float]:
        """Return field accuracy and cross-entropy of the mean probability over crops; remember the best weights."""
        tokens = validation.tokens.transpose(0, 1)
        probabilities = torch.from_numpy(field_probabilities(self.head, tokens, self.params))
        codes = torch.from_numpy(validation.codes)
        accuracy = float((probabilities.argmax(dim=-1) == codes).float().mean())
        loss = float(F.nll_loss(probabilities.clamp_min(1e-12).log(), codes))
        if self.plateau.improves(accuracy, loss):
            self._best = {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}
        return accuracy, loss

    def best_head(self) -> Head:
        self.head.load_state_dict(self._best)
        return self.head.cpu().requires_grad_(requires_grad=False).eval()


def _batches(
    training: Callable[[int], TokenSet], first: TokenSet, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever: every crop of every field once an epoch, in random order; the last batch may be small."""
    epoch, current = 0, first
    while True:
        rounds, fields = current.tokens.shape[:2]
        flat, codes = current.tokens.flatten(0, 1), torch.from_numpy(np.tile(current.codes, rounds))
        order = torch.randperm(rounds * fields, generator=generator(seed, "head order", epoch))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield flat[rows], codes[rows]
        epoch += 1
        current = training(epoch)


def _require_fields(training: TokenSet, validation: TokenSet) -> None:
    problems = [
        Problem(name, "no labelled field", "labelled fields", "Label compounds that are on these plates.")
        for name, tokens in (("training batches", training), ("held-out batches", validation))
        if not len(tokens.codes)
    ]
    if problems:
        raise ConfigError("The head cannot be trained.", problems)
