"""The losses of a run between two reports, and whether a number has stopped to be one; both are kept on the device.

Reading a number from the device waits for it, so a run reads about one in a hundred. What is not read is not lost: the
mean is that of all iterations since the last report, and the first iteration whose loss or gradient was no number is
noted when it happens, by a few operations on scalars.
"""

import torch
from torch import Tensor

from coda.training.distributed import averaged, earliest


class NotFiniteError(ArithmeticError):
    """A loss or a gradient was no number.

    Attributes:
        iteration: The first iteration it happened in, from 0.
    """

    def __init__(self, iteration: int) -> None:
        """Say where."""
        super().__init__(f"a loss or gradient that is no number in iteration {iteration}")
        self.iteration = iteration


class Losses:
    """Sum and number of losses since they were last read, and the first iteration in which one was no number."""

    def __init__(self, device: torch.device) -> None:
        """Begin with nothing, on a device."""
        self._sum = torch.zeros(2, dtype=torch.float64, device=device)
        self._one = torch.ones((), dtype=torch.float64, device=device)
        self._broken = torch.full((), -1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def note(self, iteration: int, loss: Tensor, *others: Tensor) -> None:
        """Take in one iteration; nothing is waited for.

        Args:
            iteration: From 0.
            loss: A scalar on the device, whose mean is reported.
            others: Further scalars that must be numbers: the norm of the gradients, terms beside the loss.
        """
        self._sum += torch.stack([loss.detach().double(), self._one])
        numbers = torch.stack([number.detach().float() for number in (loss, *others)])
        first = ~numbers.isfinite().all() & (self._broken < 0)
        self._broken = torch.where(first, iteration, self._broken)

    def mean(self) -> float:
        """Return the mean loss, over all processes, since it was last asked for; waits for the device.

        Raises:
            NotFiniteError: A number was none since the start of the run.
        """
        self.require_finite()
        total, count = averaged(self._sum).tolist()
        self._sum = torch.zeros_like(self._sum)
        return float(total / count)

    def require_finite(self) -> None:
        """Refuse to continue where a number was none in any process; waits for the device.

        Raises:
            NotFiniteError: It names the first iteration.
        """
        own = int(self._broken)
        broken = earliest(own if own >= 0 else None)
        if broken is not None:
            raise NotFiniteError(broken)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs, so that the next mean is that of a run that was not stopped."""
        return {"losses": self._sum}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `state_dict` returned; a checkpoint of an earlier version may hold nothing of it."""
        if "losses" in tensors:
            self._sum = tensors["losses"].to(self._sum.device)
