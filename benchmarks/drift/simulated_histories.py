"""Simulated histories of one number a batch, steady until a change that is known."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Noise = Literal["normal", "heavy tails", "skewed", "correlated"]

CORRELATION = 0.4
"""Between neighbouring batches, where they are correlated."""


@dataclass(frozen=True)
class Change:
    """What happens to a number after some steady batches.

    Attributes:
        name: In words.
        step: Deviations that it jumps by, for good.
        slope: Deviations that it moves by in each further batch.
        lasts: Batches until it is as before; 0: for good.
    """

    name: str
    step: float = 0.0
    slope: float = 0.0
    lasts: int = 0

    def shift(self, batches: int, before: int) -> Array:
        """Return the shift of each batch, in standard deviations, when this begins after so many steady ones."""
        age = np.arange(batches) - before + 1
        gone = (age > self.lasts) if self.lasts else np.zeros(batches, dtype=bool)
        moved: Array = np.where((age > 0) & ~gone, self.step + self.slope * age, 0.0)
        return moved


STEADY = Change("steady")
CHANGES = (
    Change("slow, 0.1 SD a batch", slope=0.1),
    Change("slow, 0.25 SD a batch", slope=0.25),
    Change("step of 1 SD", step=1.0),
    Change("step of 2 SD", step=2.0),
    Change("step of 4 SD", step=4.0),
    Change("one batch off by 4 SD", step=4.0, lasts=1),
)
"""Changes of one number that detectors are asked to see."""


def draw(
    seed: int, count: int, batches: int, change: Change = STEADY, before: int = 0, noise: Noise = "normal"
) -> Array:
    """Return histories, shape (count, batches), of mean 0 and standard deviation 1 before the change.

    The same seed gives the same noise whatever the change: detectors and changes are compared on the same histories.
    """
    rng = np.random.default_rng([seed, batches])
    shape = (count, batches)
    if noise == "heavy tails":  # Student's t of 4 degrees of freedom has variance 2
        values = rng.standard_t(4, shape) / np.sqrt(2.0)
    elif noise == "skewed":  # log-normal of log deviation 0.5
        variance = np.expm1(0.25) * np.exp(0.25)
        values = (np.exp(0.5 * rng.standard_normal(shape)) - np.exp(0.125)) / np.sqrt(variance)
    else:
        values = rng.standard_normal(shape)
    if noise == "correlated":
        for k in range(1, batches):
            values[:, k] = CORRELATION * values[:, k - 1] + np.sqrt(1 - CORRELATION**2) * values[:, k]
    moved: Array = values + change.shift(batches, before)
    return moved


def draw_plates(
    seed: int, count: int, batches: int, plates: int, *, spread: float, off: float = 0.0, at: int = -1
) -> Array:
    """Return histories of plates, shape (count, batches, plates); batches have a standard deviation of 1.

    Args:
        seed: Seed.
        count: Histories.
        batches: Batches of each.
        plates: Plates of each batch.
        spread: Deviation of the plates of a batch around it.
        off: Added to the first plate of one batch.
        at: That batch; the last.
    """
    rng = np.random.default_rng([seed, batches, plates])
    values: Array = rng.standard_normal((count, batches, 1)) + spread * rng.standard_normal((count, batches, plates))
    values[:, at, 0] += off
    return values
