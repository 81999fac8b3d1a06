"""Every schedule as a closed form of the iteration (paper section 4); epochs are converted once.

The released code's own forms are off by one in places (a peak above the peak, an index past the end); these are the
ones the paper and the original DINO describe (docs/deviations.md).
"""

import math
from dataclasses import dataclass

from coda.config.params import DinoOptimizerConfig, OptimizerConfig


@dataclass(frozen=True)
class Length:
    """Length of a training run.

    Attributes:
        iterations: Optimizer steps in all.
        iterations_per_epoch: Fields in an epoch over the batch size; need not be whole.
    """

    iterations: int
    iterations_per_epoch: float

    def of_epochs(self, epochs: float) -> float:
        """Return epochs as iterations."""
        return epochs * self.iterations_per_epoch


def length_of(budget: OptimizerConfig, fields_per_epoch: int) -> Length:
    """Return how long a budget trains on that many fields (at least one iteration)."""
    per_epoch = fields_per_epoch / budget.batch_size
    iterations = budget.iterations if budget.iterations is not None else round((budget.epochs or 0) * per_epoch)
    return Length(max(1, iterations), per_epoch)


def cosine(iteration: int, total: int, start: float, end: float) -> float:
    """Half a cosine from `start` at iteration 0 to `end` at iteration `total`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(iteration, total) / total)) / 2


def learning_rate(iteration: int, length: Length, budget: OptimizerConfig) -> float:
    """Linear warm-up to the peak, reached at the last warm-up iteration, then half a cosine to the end."""
    warmup = min(round(length.of_epochs(budget.warmup_epochs)), length.iterations - 1)
    if iteration < warmup:
        return budget.learning_rate * (iteration + 1) / warmup
    rest = max(1, length.iterations - warmup)
    return cosine(iteration - warmup, rest, budget.learning_rate, budget.learning_rate_end)


def weight_decay(iteration: int, length: Length, budget: OptimizerConfig) -> float:
    """Half a cosine from start to end."""
    return cosine(iteration, length.iterations, budget.weight_decay_start, budget.weight_decay_end)


def teacher_momentum(iteration: int, length: Length, budget: DinoOptimizerConfig) -> float:
    """Share of the teacher that stays: half a cosine from ``ema_start`` to 1."""
    return cosine(iteration, length.iterations, budget.ema_start, 1.0)


def teacher_temperature(iteration: int, length: Length, budget: DinoOptimizerConfig) -> float:
    """Linear from the start value to the final one over the warm-up, then constant."""
    warmup = length.of_epochs(budget.teacher_temperature_warmup_epochs)
    share = min(1.0, iteration / warmup) if warmup > 0 else 1.0
    start = budget.teacher_temperature_start
    return start + share * (budget.teacher_temperature - start)


def last_layer_is_frozen(iteration: int, length: Length, budget: DinoOptimizerConfig) -> bool:
    """Whether the DINO head's last layer stays as it is in this iteration."""
    return iteration < length.of_epochs(budget.freeze_last_layer_epochs)
