"""Tokens after every layer of an extractor, a minibatch at a time, in an order that is the same for all extractors."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params
from coda.networks.backbone import without_registers
from coda.networks.extractor import Extractor, require_channels, set_attention
from coda.networks.runtime import resolve_runtime
from coda.plates.fieldset import FieldSet
from coda.training.crops import Cropper
from coda.training.images import image_source
from coda.training.randomness import generator


def layer_names(extractor: Extractor) -> tuple[str, ...]:
    """Return what the layers of `layer_tokens` are: patch embedding with positions, blocks, final norm."""
    return ("patches", *(f"block {number}" for number in range(1, len(extractor.vit.blocks) + 1)), "norm")


@torch.inference_mode()
def layer_tokens(
    extractor: Extractor, fields: FieldSet, params: Params, *, seed: int, batch: int
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the tokens after every layer for minibatches of fields, one centre crop a field.

    Fields come in random order, so that a minibatch is a sample of all plates; what is left over at the end is
    dropped.

    Args:
        extractor: Any; it is left in evaluation mode on the device of ``params.compute``.
        fields: Images with the extractor's stains.
        params: Crops and compute; computed in float32 whatever `compute.precision` says.
        seed: Of the order.
        batch: Fields of a minibatch.

    Yields:
        For each layer of `layer_names`, shape (batch, 1 + patches, width), class token first.
    """
    require_channels(extractor, fields.channels, "fields")
    runtime = resolve_runtime(params.compute)
    extractor.to(runtime.device).eval()
    set_attention(extractor, runtime.attention)
    one_crop = params.crops.model_copy(update={"eval_grid": 1})
    cropper = Cropper(image_source(fields, runtime.device, params.compute.images), one_crop)
    order = torch.randperm(len(fields), generator=generator(seed, "layers", 0))
    found: list[Tensor] = []
    layers = [extractor.vit.norm_pre, *extractor.vit.blocks, extractor.vit.norm]
    hooks = [layer.register_forward_hook(lambda _m, _i, output: found.append(output)) for layer in layers]
    try:
        for start in range(0, len(fields) - batch + 1, batch):
            found.clear()
            extractor(cropper.grid_crops(order[start : start + batch]).flatten(0, 1))
            yield [without_registers(extractor.vit, tokens).float().cpu().numpy() for tokens in found]
    finally:
        for hook in hooks:
            hook.remove()
