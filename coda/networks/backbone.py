"""What the project asks of a backbone, and the families of timm's ViTs that answer (docs/bring_your_backbone.md).

A backbone turns patches into tokens: learned positions are added, prefix tokens (class token, registers) are put
before, and blocks follow, which may turn the tokens of patches by their place (rotary positions). Everything else
(crops, pools, heads, alignments, objectives) sees the class token and the patches and knows nothing of the family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coda.errors import ConfigError, Problem
from coda.networks.weights import resize_positions


@dataclass(frozen=True)
class Family:
    """One family of timm's networks, by what differs between families.

    Attributes:
        why_not: Says why a network of this class cannot be used; nothing where it can.
        rotation: Returns what the blocks turn patches by, for a grid of rows and columns, shape (patches, 2 * width of
            an attention head); None for none.
        blocks: Runs the blocks: (network's blocks, tokens (batch, tokens, width), rotation or None) -> tokens.
    """

    why_not: Callable[[Any], str]
    rotation: Callable[[Any, tuple[int, int]], Tensor | None]
    blocks: Callable[[Any, Tensor, Tensor | None], Tensor]


def families() -> Mapping[type[nn.Module], Family]:
    """Return class of timm -> its family. A new family is an entry here."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return {
        VisionTransformer: Family(_plain, lambda _vit, _grid: None, lambda blocks, tokens, _: blocks(tokens)),
        Eva: Family(_rotary, _rope, _turned),
    }


def build_vit(arch: str, channels: int, overrides: Mapping[str, int], *, drop_path: float) -> nn.Module:
    """Build a timm ViT with a class token, a final norm on all tokens, and no classifier.

    Raises:
        ConfigError: timm does not know the name or an override, or no family takes the network.
    """
    from coda.networks.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import timm

    try:
        # dynamic: else rotations are kept for one grid, whatever the size of the images
        arguments: dict[str, Any] = {
            "num_classes": 0, "in_chans": channels, "global_pool": "token", "dynamic_img_size": True,
        }  # fmt: skip
        vit: nn.Module = timm.create_model(arch, drop_path_rate=drop_path, **arguments, **dict[str, Any](overrides))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        found = f"{arch!r} with {dict(overrides)} ({error})"
        problem = Problem("extractor.arch", found, "a timm ViT and its arguments", "See timm.list_models('*vit*').")
        raise ConfigError("The extractor cannot be built.", [problem]) from error
    family = families().get(type(vit))
    reason = f"a network of the class {type(vit).__name__}" if family is None else family.why_not(vit)
    if reason:
        remedy = (
            "Choose for example deit_small_patch16_224, vit_small_patch14_reg4_dinov2 or vit_small_patch16_dinov3; "
            "docs/bring_your_backbone.md says how to add a family."
        )
        expected = "a ViT with a class token and a norm of all tokens, without a distillation token"
        problem = Problem("extractor.arch", f"{arch!r}: {reason}", expected, remedy)
        raise ConfigError("The extractor cannot be built.", [problem])
    if getattr(getattr(vit, "rope", None), "aug_active", False):
        vit.rope.aug_active = False  # type: ignore[union-attr]  # drawn from a global state: not repeatable
    return vit


def family_of(vit: nn.Module) -> Family:
    """Return the family of a network that `build_vit` built."""
    return families()[type(vit)]


def prefix_positions(vit: Any) -> int:
    """Return how many learned positions belong to no patch."""
    return 0 if vit.no_embed_class else int(vit.num_prefix_tokens)


def with_prefix(vit: Any, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add learned positions, where a network has any, and put class token and registers before the patches.

    Args:
        vit: The network.
        patches: Embedded patches, shape (batch, rows * columns, width).
        grid: Rows and columns.

    Returns:
        Shape (batch, prefix + rows * columns, width).
    """
    prefix = [vit.cls_token] if vit.reg_token is None else [vit.cls_token, vit.reg_token]
    before = [token.expand(len(patches), -1, -1).to(patches.dtype) for token in prefix]
    if vit.pos_embed is None:
        return torch.cat([*before, patches], dim=1)
    positions = resize_positions(vit.pos_embed, grid, prefix_positions(vit)).to(patches.dtype)
    if vit.no_embed_class:
        return torch.cat([*before, patches + positions], dim=1)
    return torch.cat([*before, patches], dim=1) + positions


def without_registers(vit: Any, tokens: Tensor) -> Tensor:
    """Return class token and patches of tokens (batch, prefix + patches, width); registers are for the blocks alone."""
    registers = int(vit.num_prefix_tokens) - 1
    return tokens if not registers else torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)


def run_blocks(blocks: Any, tokens: Tensor) -> Tensor:
    """Run the blocks of any family on tokens that have no places, as a head does."""
    if isinstance(blocks, nn.Sequential):
        return blocks(tokens)  # type: ignore[no-any-return]
    return _turned(blocks, tokens, None)


def _plain(vit: Any) -> str:
    return "no learned positions" if vit.pos_embed is None else _unnormed(vit)


def _rotary(vit: Any) -> str:
    if vit.cls_token is None:
        return "no class token"
    if getattr(vit, "rope_mixed", False):
        return "rotations that are learned for each block"
    return _unnormed(vit)


def _unnormed(vit: Any) -> str:
    return "no norm of all tokens" if isinstance(vit.norm, nn.Identity) else ""


def _rope(vit: Any, grid: tuple[int, int]) -> Tensor | None:
    return None if vit.rope is None else vit.rope.get_embed(shape=list(grid))


def _turned(blocks: Any, tokens: Tensor, rotation: Tensor | None) -> Tensor:
    for block in blocks:
        tokens = block(tokens, rope=rotation)
    return tokens
