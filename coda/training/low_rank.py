"""Low-rank adaptation: every large matrix of the student changes by a product of two thin ones (Hu et al., 2022).

The student computes with ``W + scale * B @ A``; only A and B learn. After every step that sum is written into the
student, so that the teacher's average, saving and serving see ordinary weights and know nothing of A and B.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coda.errors import ConfigError, Problem
from coda.networks.extractor import Extractor
from coda.training.randomness import generator

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""Layers of every block whose matrices change."""


class LowRank:
    """A student whose matrices change by products of rank r (`coda.training.hooks.TrainableSubset`).

    A starts at random and B at 0, so that the first step starts from the student's own function. The student as it
    is given is what W stays: a run that resumes is given the same start, and its checkpoint holds A and B.
    """

    def __init__(self, student: Extractor, *, rank: int, scale: float, seed: int) -> None:
        """Freeze the student and put a pair of thin matrices beside each of its large ones.

        Args:
            student: On the device it is trained on.
            rank: Columns of B and rows of A; at most the smaller side of each matrix.
            scale: Factor of the product.
            seed: Seed of every A.

        Raises:
            ConfigError: A matrix is smaller than the rank.
        """
        student.requires_grad_(requires_grad=False)
        self.scale = scale
        own = dict(student.named_parameters())
        names = [f"vit.blocks.{block}.{layer}.weight" for block in range(len(student.vit.blocks)) for layer in LAYERS]
        self._student = {name: own[name] for name in names}
        smallest = min(min(weight.shape) for weight in self._student.values())
        if rank > smallest:
            problem = Problem("adaptation.low_rank_rank", str(rank), f"at most {smallest}", "Lower it.")
            raise ConfigError("The extractor's matrices are smaller than the rank.", [problem])
        self._start = {name: weight.detach().clone() for name, weight in self._student.items()}
        self._a: dict[str, nn.Parameter] = {}
        self._b: dict[str, nn.Parameter] = {}
        for number, (name, weight) in enumerate(self._student.items()):
            rows, columns = weight.shape
            drawn = torch.randn((rank, columns), generator=generator(seed, "low rank", number)) / columns**0.5
            self._a[name] = nn.Parameter(drawn.to(weight.device))
            self._b[name] = nn.Parameter(torch.zeros((rows, rank), device=weight.device))

    def parameters(self) -> list[nn.Parameter]:
        """Return A and B of every matrix."""
        return [*self._a.values(), *self._b.values()]

    def weights(self) -> Mapping[str, Tensor]:
        """Return ``W + scale * B @ A`` of every matrix, differentiable in A and B."""
        # the products stay float32 under autocast, as all weights do
        with torch.autocast(next(iter(self._a.values())).device.type, enabled=False):
            return {name: start + self.scale * (self._b[name] @ self._a[name]) for name, start in self._start.items()}

    @torch.no_grad()
    def merge_(self) -> None:
        """Write the sums into the student."""
        for name, weight in self.weights().items():
            self._student[name].copy_(weight)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every A and B, as ``a.<name>`` and ``b.<name>``."""
        named = [("a", self._a), ("b", self._b)]
        return {f"{side}.{name}": p.detach() for side, own in named for name, p in own.items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned, and write the sums into the student."""
        for side, own in (("a", self._a), ("b", self._b)):
            for name, parameter in own.items():
                parameter.copy_(tensors[f"{side}.{name}"])
        self.merge_()
