"""The extractor: a timm vision transformer that returns all of its tokens, at any resolution and number of stains.

Method section 1.1: the final norm's output for class token and patches, which the head reads and DINO pools.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coda.config.params import Params
from coda.config.recorded import TRAINED
from coda.errors import ConfigError, Problem
from coda.networks import artifact
from coda.networks.backbone import build_vit, family_of, prefix_positions, with_prefix, without_registers
from coda.networks.drop_path import given_drop_paths
from coda.networks.made_with import made_with
from coda.networks.rebuild import rebuild
from coda.networks.weights import fit_to, initial_weights, initialise_xavier, seeded


class Extractor(nn.Module):
    """A vision transformer from timm without a classifier.

    Attributes:
        vit: timm's network; its own forward pass is not used, since it resizes positions differently.
        config: Everything needed to rebuild it: arch, overrides, channels, pool, drop_path; and what it is made with,
            which serving repeats: crops, and below ``trained`` precision, attention, preparation of the pixels.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the network with timm's own initial weights; see `new_extractor` for a start that is chosen."""
        super().__init__()
        self.config = dict(config)
        self.vit: Any = build_vit(
            config["arch"], len(config["channels"]), config["overrides"], drop_path=config["drop_path"]
        )
        self._family = family_of(self.vit)
        self._drop_paths = given_drop_paths(self.vit)

    @property
    def channels(self) -> tuple[str, ...]:
        """Stains along the channel axis of the input."""
        return tuple(self.config["channels"])

    @property
    def pool(self) -> Literal["cls", "mean"]:
        """What of its tokens is its feature: the class token, or the mean of all (where none was recorded)."""
        return "cls" if self.config.get("pool") == "cls" else "mean"

    @property
    def width(self) -> int:
        """Length of a token."""
        return int(self.vit.embed_dim)

    @property
    def prefix(self) -> int:
        """Tokens inside the network that belong to no patch: the class token and registers."""
        return int(self.vit.num_prefix_tokens)

    @property
    def patch_size(self) -> int:
        """Side of a square patch, in pixels."""
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def drop_path_rates(self) -> list[float]:
        """Rate of each drop path layer, in order; those at rate 0 are left out."""
        return [layer.rate for layer in self._drop_paths]

    def forward(
        self,
        images: Tensor,
        keep: Tensor | None = None,
        paths: Tensor | None = None,
        hidden: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return all tokens after the final norm, or those of some patches that the network sees nothing beside.

        Args:
            images: Shape (batch, channels, height, width); both sides multiples of the patch size.
            keep: Patches of each image to look at, shape (batch, visible), for a masked autoencoder; all without it.
            paths: Factors of each drop path layer, shape (layers, batch) (`coda.networks.drop_path.path_factors`);
                needed to train a network that has any.
            hidden: Which patches are replaced, shape (batch, patches), bool, and what by, shape (width,), before
                positions are added; none without it.

        Returns:
            Shape (batch, 1 + patches, width), class token first, registers left out; with `keep`, (batch, 1 + visible,
            width) in its order.
        """
        vit = self.vit
        for number, layer in enumerate(self._drop_paths):
            layer.factor = paths[number] if paths is not None else None
        patches, grid = self._patches(images)
        if hidden is not None:
            patches = torch.where(hidden[0][..., None], hidden[1].to(patches.dtype), patches)
        tokens, rotation = with_prefix(vit, patches, grid), self._family.rotation(vit, grid)
        if keep is not None:
            prefix = torch.arange(self.prefix, device=keep.device).expand(len(keep), -1)
            places = torch.cat([prefix, keep + self.prefix], dim=1)
            tokens = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
            if rotation is not None:
                rotation = rotation[keep][:, None]  # one for each image, the same for all attention heads
        return without_registers(vit, vit.norm(self._family.blocks(vit.blocks, vit.norm_pre(tokens), rotation)))

    def _patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        # the convolution has no overlap, so it is one matrix product; as such it is several times faster on a CPU
        layer, size = self.vit.patch_embed, self.patch_size
        _, channels, height, width = images.shape
        if channels != len(self.channels) or height % size or width % size:
            message = (
                f"images of shape {tuple(images.shape)} do not fit {len(self.channels)} stains and patches of {size} px"
            )
            raise ValueError(message)
        flat, grid = cut_patches(images, size)
        return layer.norm(F.linear(flat, layer.proj.weight.flatten(1), layer.proj.bias)), grid


def cut_patches(images: Tensor, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut images into square patches, row by row.

    Args:
        images: Shape (batch, channels, height, width); both sides multiples of `size`.
        size: Side of a patch, in pixels.

    Returns:
        Pixels of shape (batch, rows * columns, channels * size * size), channel by channel; and rows and columns.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // size, width // size
    cut = images.reshape(batch, channels, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, rows * columns, channels * size * size), (rows, columns)


def new_extractor(params: Params, *, seed: int, drop_path: float | None = None) -> Extractor:
    """Return an extractor with the first weights that the parameters ask for, in float32 on the CPU.

    Args:
        params: The `extractor` and `crops` sections; precision, attention and pooling are noted from the others.
        seed: Of random first weights.
        drop_path: Stochastic depth in place of ``extractor.drop_path``, which is DINO's.

    Raises:
        ConfigError: The network cannot be built, or its weights cannot be had or do not fit.

    Example:
        >>> from pathlib import Path
        >>> from coda.config import load_params
        >>> params = load_params(Path("params.yaml"), [Path("params/demo.yaml")])
        >>> extractor = new_extractor(params, seed=0).eval()
        >>> size = params.crops.global_size
        >>> with torch.inference_mode():
        ...     tokens = extractor(torch.zeros(2, len(extractor.channels), size, size))
        >>> pool_tokens(tokens, "cls").shape == (2, tokens.shape[-1])
        True
    """
    wanted = params.extractor
    weights = initial_weights(wanted.weights, wanted.arch)
    config = {
        "kind": "extractor",
        "arch": wanted.arch,
        "channels": list(wanted.channels),
        "overrides": dict(wanted.overrides),
        "drop_path": wanted.drop_path if drop_path is None else drop_path,
        "initial_weights": weights.origin if weights else f"random:{seed}",
        "pool": wanted.pool,
        "crops": params.crops.model_dump(mode="json"),
        TRAINED: made_with(params),
    }
    with seeded(seed):
        extractor = Extractor(config)
        if weights is None:
            initialise_xavier(extractor)
    if weights is not None:
        grid = extractor.vit.patch_embed.grid_size
        fit_to(extractor.vit, weights, (grid[0], grid[1]), prefix_positions(extractor.vit))
    return extractor


def untrained_extractor(config: Mapping[str, Any], *, seed: int) -> Extractor:
    """Return an extractor that never learned anything, in evaluation mode on the CPU.

    Args:
        config: Configuration of another extractor, whose architecture it has.
        seed: Seed of its weights.
    """
    with seeded(seed):
        extractor = Extractor({**config, "initial_weights": f"random:{seed}"})
        initialise_xavier(extractor)
    return extractor.eval()


def pool_tokens(tokens: Tensor, pool: Literal["cls", "mean"]) -> Tensor:
    """Turn tokens (..., tokens, width) into features (..., width): the class token, or the mean of all tokens."""
    return tokens[..., 0, :] if pool == "cls" else tokens.mean(dim=-2)


def set_attention(network: nn.Module, attention: Literal["explicit", "sdpa"]) -> None:
    """Choose how every attention layer of a network computes; the result is the same but for rounding."""
    for layer in network.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = attention == "sdpa"  # type: ignore[assignment]


def save_extractor(folder: Path, extractor: Extractor, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a model folder for an extractor and return its digest."""
    config = {**extractor.config, "drop_path": 0.0, **({"provenance": dict(provenance)} if provenance else {})}
    return artifact.save(folder, extractor.state_dict(), config)


def load_extractor(folder: Path, expected_digest: str | None = None) -> Extractor:
    """Verify a model folder and rebuild its extractor, in evaluation mode on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones.
        ConfigError: It holds another kind of network.
    """
    tensors, config = artifact.load(folder, expected_digest)
    require_kind(config, "extractor", folder)
    return rebuild(Extractor, config, tensors, folder).eval()


def require_kind(config: Mapping[str, Any], kind: str, folder: Path) -> None:
    """Refuse a model folder of another kind."""
    if config.get("kind") != kind:
        problem = Problem(str(folder), f"kind {config.get('kind')!r}", f"kind {kind!r}", "Give the right model folder.")
        raise ConfigError("This is another kind of model.", [problem])


def require_channels(extractor: Extractor, channels: Sequence[str], where: str) -> None:
    """Refuse images whose stains are not the extractor's, by name and order."""
    if tuple(channels) != extractor.channels:
        remedy = "Load the fields with the extractor's own channels, in its order."
        problem = Problem(where, ", ".join(channels), ", ".join(extractor.channels), remedy)
        raise ConfigError("The images have other channels than the extractor was trained on.", [problem])
