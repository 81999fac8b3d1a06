"""The masked autoencoder: an extractor that sees a few patches, and a decoder that paints the others (paper section 4).

The paper compares with MAE (He et al. 2022) and gives no details; see docs/deviations.md. At inference the encoder is
the extractor as it is, with all of its tokens and nothing hidden.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from coda.networks.extractor import cut_patches


class MaeDecoder(nn.Module):
    """From the encoder's tokens of visible patches to the pixels of all patches.

    Attributes:
        config: ``width`` of the encoder's tokens, ``hidden_dim`` of its own, ``depth``, ``num_heads``, ``patch_size``
            in pixels, and ``stains``, the number of channels.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the decoder; its positions are fixed and computed when they are needed.

        Raises:
            ValueError: Its width cannot be split into heads or into the four parts of a position.
        """
        super().__init__()
        self.config = dict(config)
        width, heads = config["hidden_dim"], config["num_heads"]
        if width % heads or width % 4:
            message = f"a decoder of width {width} cannot have {heads} heads and positions of four parts"
            raise ValueError(message)
        from coda.networks.torchvision_shim import ensure_torchvision

        ensure_torchvision()
        from timm.models.vision_transformer import Block

        self.embed = nn.Linear(config["width"], width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(config["depth"])))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor = nn.Linear(width, config["stains"] * config["patch_size"] ** 2)

    def forward(self, tokens: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predict the pixels of every patch.

        Args:
            tokens: Of the encoder, shape (batch, 1 + visible, width), class token first.
            keep: Patch that each of the visible tokens shows, shape (batch, visible).
            grid: Rows and columns of patches.

        Returns:
            Shape (batch, rows * columns, stains * patch_size**2), pixels in the order of `cut_patches`.
        """
        hidden = self.embed(tokens)
        batch, width = len(tokens), hidden.shape[-1]
        painted = self.mask_token.to(hidden.dtype).expand(batch, grid[0] * grid[1], -1)
        painted = painted.scatter(1, keep[..., None].expand(-1, -1, width), hidden[:, 1:])
        positions = _kept_positions(grid, width, hidden.device).to(hidden.dtype)
        full = torch.cat([hidden[:, :1], painted + positions], dim=1)
        return self.predictor(self.norm(self.blocks(full))[:, 1:])  # type: ignore[no-any-return]


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Return the fixed positions of MAE's decoder, float32, shape (rows * columns, width).

    A quarter of the width each for sine and cosine of the column, then sine and cosine of the row, at frequencies
    ``10000 ** (-4 k / width)``; the class token has none.
    """
    quarter = width // 4
    frequency = torch.exp(-math.log(10_000) * torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = (torch.arange(count, dtype=torch.float64)[:, None] * frequency for count in grid)
    vertical = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, grid[1], -1)
    horizontal = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(grid[0], -1, -1)
    return torch.cat([horizontal, vertical], dim=-1).flatten(0, 1).float()


@lru_cache(maxsize=8)
def _kept_positions(grid: tuple[int, int], width: int, device: torch.device) -> Tensor:
    # computed and sent once, and never as a tensor of inference mode, which training could not use
    with torch.inference_mode(mode=False):
        return sine_positions(grid, width).to(device)


def random_keep(count: int, patches: int, mask_ratio: float, source: torch.Generator) -> Tensor:
    """Draw the patches that stay visible, for each image on its own.

    Args:
        count: Images.
        patches: Patches of an image.
        mask_ratio: Share that is hidden; the number is rounded.
        source: Generator on the CPU.

    Returns:
        Patch numbers, int64, shape (count, patches - hidden).

    Raises:
        ValueError: Nothing would be hidden, or nothing would be left.
    """
    hidden = round(patches * mask_ratio)
    if not 0 < hidden < patches:
        message = f"hiding {mask_ratio} of {patches} patches hides {hidden}; at least one must be hidden and one left"
        raise ValueError(message)
    return torch.rand((count, patches), generator=source).argsort(dim=1)[:, : patches - hidden]


def mae_loss(predicted: Tensor, images: Tensor, keep: Tensor, patch_size: int, *, norm_pixels: bool) -> Tensor:
    """Return the mean squared error over the pixels of hidden patches, in float32.

    Args:
        predicted: Shape (batch, patches, pixels of a patch).
        images: What the encoder saw a part of, shape (batch, channels, height, width).
        keep: Visible patches, shape (batch, visible); they do not count.
        patch_size: Side of a patch, in pixels.
        norm_pixels: Compare with each patch's pixels less their mean, over their (unbiased) standard deviation.
    """
    target, _ = cut_patches(images.float(), patch_size)
    if norm_pixels:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    error = (predicted.float() - target).square().mean(dim=-1)
    hidden = torch.ones_like(error).scatter(1, keep, 0.0)
    return (error * hidden).sum() / hidden.sum()
