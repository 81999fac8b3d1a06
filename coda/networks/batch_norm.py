"""Batch normalisation by the batch of all processes together, on any device (torch's own needs CUDA)."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm without running statistics; several processes normalise as one would, but for rounding."""

    def __init__(self, width: int) -> None:
        """Build the layer for features of one width; DINO normalises by the batch at hand in both networks."""
        super().__init__(width, track_running_stats=False)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise features (rows, width); every process must bring as many rows."""
        size = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        if size == 1:
            return super().forward(features)
        rows = features.float()
        mean = sum_over_processes(rows.mean(dim=0)) / size
        variance = sum_over_processes((rows - mean).square().mean(dim=0)) / size
        normal = (rows - mean) * torch.rsqrt(variance + self.eps)
        scaled: Tensor = normal * self.weight + self.bias
        return scaled.to(features.dtype)


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum over all processes; the gradient of each one's result reaches the input of all."""
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """Sum over all processes; every process's gradient reaches every process's input."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
