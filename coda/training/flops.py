"""Floating-point work of one sample, as closed forms of the shapes.

Two operations for each multiply-add, and matrix products only: linear layers, attention, patch embedding, DINO head.
Norms, softmax, activations, views and the optimizer are not counted. A backward pass counts twice the forward pass,
whatever part of the network is trained: the figure of `dino_step` for DeiT-S with 2 x 224 and 6 x 96 crops is 103.0
GFLOP. It is the work that the method asks for, so rate times work over the machine's rate is the share of the machine
that is put to use.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from coda.config.params import Crops
from coda.networks.dino_head import DinoHead
from coda.networks.extractor import Extractor

BACKWARD = 2.0
"""Work of a backward pass over that of its forward pass."""


def linear(rows: float, inputs: float, outputs: float) -> float:
    """Return the work of one linear layer on that many rows."""
    return 2.0 * rows * inputs * outputs


def blocks(tokens: float, *, width: int, depth: int, hidden: float) -> float:
    """Return the forward work of transformer blocks on one sequence."""
    weights = linear(tokens, width, 4 * width + 2 * hidden)
    attention = 4.0 * tokens**2 * width
    return depth * (weights + attention)


def extractor_forward(extractor: Extractor, side: int, *, visible: float | None = None) -> float:
    """Return the forward work of an extractor on one square crop.

    Args:
        extractor: Its shapes count.
        side: Of the crop in pixels.
        visible: Patches that reach the blocks (MAE drops the others after the patch embedding); all when not given.
    """
    vit, size = extractor.vit, extractor.patch_size
    patches = (side // size) ** 2
    embedding = linear(patches, size * size * len(extractor.channels), extractor.width)
    seen = patches if visible is None else visible
    return embedding + _blocks_of(vit.blocks, extractor.prefix + seen, extractor.width)


def dino_head_forward(head: DinoHead) -> float:
    """Return the forward work of a DINO head on one crop."""
    config: Mapping[str, Any] = head.config
    width, hidden, bottleneck = config["width"], config["hidden_dim"], config["bottleneck_dim"]
    mlp = linear(1, width, hidden) + linear(1, hidden, hidden) + linear(1, hidden, bottleneck)
    return mlp + linear(1, bottleneck, config["prototypes"])


def student_forward(extractor: Extractor, head: DinoHead, crops: Crops) -> float:
    """Return the forward work of the student: both global views and all local ones, each through the DINO head."""
    locals_ = 2 * crops.locals_per_image
    views = 2 * extractor_forward(extractor, crops.global_size) + locals_ * extractor_forward(
        extractor, crops.local_size
    )
    return views + (2 + locals_) * dino_head_forward(head)


def teacher_forward(extractor: Extractor, head: DinoHead, crops: Crops) -> float:
    """Return the forward work of the teacher: the two global views."""
    return 2 * (extractor_forward(extractor, crops.global_size) + dino_head_forward(head))


def dino_step(extractor: Extractor, head: DinoHead, crops: Crops) -> float:
    """Return the work of a DINO step for one sample (a pair of images): student and teacher, forward and backward."""
    student = student_forward(extractor, head, crops)
    return (1 + BACKWARD) * student + teacher_forward(extractor, head, crops)


def supervised_step(extractor: Extractor, classes: int, side: int) -> float:
    """Return the work of a supervised step for one crop: extractor and linear classifier on one pooled token."""
    return (1 + BACKWARD) * (extractor_forward(extractor, side) + linear(1, extractor.width, classes))


def mae_forward(extractor: Extractor, side: int, *, mask_ratio: float, width: int, depth: int, hidden: int) -> float:
    """Return the forward work of a masked autoencoder on one crop.

    The decoder: a linear layer from the encoder's visible tokens, blocks over all tokens, and a linear layer to the
    pixels of each patch.

    Args:
        extractor: Encoder.
        side: Of the crop in pixels.
        mask_ratio: Share (0..1) of the patches that the encoder does not see.
        width: Of the decoder's tokens.
        depth: Blocks of the decoder.
        hidden: Width inside the decoder's MLP.
    """
    patches, pixels = (side // extractor.patch_size) ** 2, extractor.patch_size**2 * len(extractor.channels)
    visible = patches - round(patches * mask_ratio)
    encoder = extractor_forward(extractor, side, visible=visible)
    decoder = blocks(1 + patches, width=width, depth=depth, hidden=hidden)
    borders = linear(1 + visible, extractor.width, width) + linear(1 + patches, width, pixels)
    return encoder + decoder + borders


def mae_step(extractor: Extractor, side: int, *, mask_ratio: float, width: int, depth: int, hidden: int) -> float:
    """Return the work of an MAE step for one crop; arguments as of `mae_forward`."""
    forward = mae_forward(extractor, side, mask_ratio=mask_ratio, width=width, depth=depth, hidden=hidden)
    return (1 + BACKWARD) * forward


def _blocks_of(stack: Any, tokens: float, width: int) -> float:
    layers = [layer for layer in stack[0].mlp.modules() if isinstance(layer, nn.Linear)]
    # a gated MLP has three matrices in place of two: as if it had two of a larger hidden width
    hidden = sum(layer.in_features * layer.out_features for layer in layers) / (2 * width)
    return blocks(tokens, width=width, depth=len(stack), hidden=hidden)
