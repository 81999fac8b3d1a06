"""Which patches of the global views the student does not see: blocks, as in iBOT and DINOv2."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRIES, SMALLEST, ASPECT = 10, 4, 0.3
"""Tries for a block before patches are drawn one by one; patches of the smallest block; its flattest aspect ratio."""


@dataclass(frozen=True)
class Masks:
    """Hidden patches of some views.

    Attributes:
        hidden: Bool, shape (views, patches).
        places: Hidden patches, numbered through all views, int64, shape (hidden patches,).
        weights: For each of them 1 over the hidden patches of its view, float32, so that views count alike.
    """

    hidden: Tensor
    places: Tensor
    weights: Tensor

    @classmethod
    def of(cls, hidden: Tensor, device: torch.device) -> "Masks":
        """Send masks to a device; places are found on the CPU, where nothing waits for them."""
        places = hidden.flatten().nonzero().flatten()
        counts = hidden.sum(dim=1).float().clamp(min=1)
        weights = (1 / counts)[places // hidden.shape[1]]
        return cls(*(tensor.to(device, non_blocking=True) for tensor in (hidden, places, weights)))


def draw_masks(
    views: int, grid: tuple[int, int], *, share: float, ratio: tuple[float, float], rng: np.random.Generator
) -> Tensor:
    """Draw which patches are hidden.

    As in DINOv2, a share of the views is masked, at least one; their ratios are drawn from equal steps between the two
    bounds, one from each step, so that every batch has small masks and large ones; and masked views are in any order.

    Args:
        views: Number of views.
        grid: Rows and columns of patches.
        share: Share (0..1] of the views that are masked at all.
        ratio: Smallest and largest share of the patches of a masked view that is hidden.
        rng: Source of chance.

    Returns:
        Bool, shape (views, rows * columns); a masked view hides at least one patch and leaves at least one.
    """
    patches, masked = grid[0] * grid[1], max(1, int(views * share))
    steps = np.linspace(*ratio, masked + 1)
    hidden = np.zeros((views, patches), dtype=bool)
    for number, view in enumerate(rng.permutation(views)[:masked]):
        count = round(patches * rng.uniform(steps[number], steps[number + 1]))
        hidden[view] = block_mask(grid, min(max(count, 1), patches - 1), rng).flatten()
    return torch.from_numpy(hidden)


def block_mask(grid: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide exactly `count` patches: rectangles while one fits, single patches for the rest.

    Returns:
        Bool, shape (rows, columns).
    """
    hidden = np.zeros(grid, dtype=bool)
    while (left := count - int(hidden.sum())) >= SMALLEST and _add_block(hidden, left, rng):
        pass
    free = np.flatnonzero(~hidden)
    hidden.flat[rng.choice(free, count - int(hidden.sum()), replace=False)] = True
    return hidden


def _add_block(hidden: NDArray[np.bool_], most: int, rng: np.random.Generator) -> bool:
    rows, columns = hidden.shape
    for _ in range(TRIES):
        area, aspect = rng.uniform(SMALLEST, most), math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        block = hidden[top : top + height, left : left + width]
        if 0 < block.size - int(block.sum()) <= most:
            block[:] = True
            return True
    return False
