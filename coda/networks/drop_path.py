"""Stochastic depth whose chance is given from outside: which branches are left out is a function of seed and iteration.

timm's layer draws from torch's global state, one number for each image it happens to see; several processes that share
a batch would then leave out other branches than one process does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves out a residual branch for some images while training; needs `factor` to be set before each pass.

    Attributes:
        rate: Share of images whose branch is left out.
        factor: For each image 0, or what the branch is multiplied with to keep its mean, shape (batch,).
    """

    def __init__(self, rate: float) -> None:
        """Build the layer; it has no weights."""
        super().__init__()
        self.rate = rate
        self.factor: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch (batch, tokens, width), scaled for each image; unchanged in evaluation mode.

        Raises:
            ValueError: Nobody said which images' branches are left out.
        """
        if not self.training:
            return branch
        if self.factor is None:
            message = "a network with drop path must be given its factors to be trained"
            raise ValueError(message)
        return branch * self.factor.to(branch.dtype)[:, None, None]


def given_drop_paths(network: nn.Module) -> list[DropPath]:
    """Put this layer in place of every drop path of timm's in a network; return them in order."""
    from timm.layers.drop import DropPath as TimmDropPath

    found = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TimmDropPath):
                layer = DropPath(float(child.drop_prob))
                setattr(parent, name, layer)
                found.append(layer)
    return found


def path_factors(
    rates: Sequence[float], crops: Sequence[int], batch: int, part: slice, source: torch.Generator
) -> list[Tensor]:
    """Draw which branches are left out, for all crops of a batch, and return those of a part of it.

    Args:
        rates: Of each drop path layer.
        crops: Crops of each image pair, in each forward pass.
        batch: Pairs of the whole batch, of all processes together.
        part: Pairs whose factors are returned. Numbers are drawn for all, so that several processes leave out
            together what one would.
        source: Generator on the CPU.

    Returns:
        For each forward pass, float32, shape (layers, crops * pairs of the part), crop by crop.
    """
    kept = 1 - torch.tensor(rates, dtype=torch.float32)[:, None, None]
    drawn = torch.rand((len(rates), sum(crops), batch), generator=source) < kept
    factors = (drawn / kept.where(kept > 0, 1.0))[:, :, part]
    return [own.flatten(1) for own in torch.split(factors, list(crops), dim=1)]
