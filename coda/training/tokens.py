"""Tokens, features and probabilities of whole fields, in batches and without gradients."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.served_params import Views
from coda.networks.classical_head import ClassicalHead
from coda.networks.classifier import LinearHead
from coda.networks.extractor import Extractor, pool_tokens, require_channels, set_attention
from coda.networks.head import Head
from coda.networks.runtime import resolve_runtime
from coda.plates.stored import Fields
from coda.training.crops import Cropper
from coda.training.distributed import by_turns
from coda.training.images import image_source
from coda.training.randomness import generator

BATCH = 256
"""Crops in one forward pass."""


def extract_tokens(extractor: Extractor, fields: Fields, params: Views) -> Tensor:
    """Return the tokens of every field's evaluation crops: one centre crop, or a grid (``crops.eval_grid``).

    Args:
        extractor: Any; it is left in evaluation mode on the device of ``params.compute``.
        fields: Images with the extractor's stains.
        params: Crops and compute.

    Returns:
        Float32 on the CPU, shape (fields, crops, 1 + patches, width): 0.3 MB a field for DeiT-S. Use `token_batches`
        where that is too much.

    Raises:
        ConfigError: The stains are not the extractor's, or a crop is larger than the images.
    """
    return torch.cat(list(token_batches(extractor, fields, params)))


@torch.inference_mode()
def token_batches(extractor: Extractor, fields: Fields, params: Views) -> Iterator[Tensor]:
    """Yield the tokens of `extract_tokens` for a few fields at a time, in order."""
    cropper, per_batch = _prepare(extractor, fields, params), max(1, BATCH // params.crops.eval_grid**2)

    def of(rows: Tensor) -> Tensor:
        return _forward(extractor, cropper.grid_crops(rows).flatten(0, 1), params)

    parts = ((rows, partial(of, rows)) for rows in torch.split(torch.arange(len(fields)), per_batch) if len(rows))
    for rows, tokens in by_turns(parts):
        yield tokens.view(len(rows), -1, *tokens.shape[1:])


@torch.inference_mode()
def random_crop_batches(
    extractor: Extractor,
    fields: Fields,
    params: Views,
    *,
    seed: int,
    crops: int,
    chosen: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield tokens of random, augmented crops, as the head is trained on, a few fields at a time.

    Args:
        extractor: Any.
        fields: Images with the extractor's stains.
        params: Crops and compute.
        seed: Of the crops. Numbers are drawn for all fields, so that a field's crop does not depend on the choice.
        crops: Rounds of one crop of every field.
        chosen: Fields that are computed; all when not given.

    Yields:
        Round, rows, and tokens of these rows: float32 on the CPU, shape (rows, 1 + patches, width).
    """
    cropper = _prepare(extractor, fields, params)
    wanted = torch.ones(len(fields), dtype=torch.bool) if chosen is None else torch.from_numpy(chosen)

    def parts() -> Iterator[tuple[tuple[int, Tensor], Callable[[], Tensor]]]:
        for number in range(crops):
            source = generator(seed, "head crops", number)
            for rows in torch.split(torch.arange(len(fields)), BATCH):
                keep = wanted[rows].nonzero().flatten()
                drawn = cropper.drawn(rows, params.crops.global_size, source, jitter=True, keep=keep)
                if len(keep):
                    yield (number, rows[keep]), partial(_forward_cut, extractor, drawn, params)

    for (number, rows), tokens in by_turns(parts()):
        yield number, rows, tokens


def field_features(tokens: Tensor, pool: Literal["cls", "mean"]) -> Tensor:
    """Return one feature vector a field: tokens pooled, then averaged over crops.

    Args:
        tokens: Shape (fields, crops, 1 + patches, width).
        pool: 'cls' for the class token, 'mean' for the mean of all tokens: what the extractor was trained for.

    Returns:
        Float32, shape (fields, width).
    """
    return pool_tokens(tokens.float(), pool).mean(dim=1)


@torch.inference_mode()
def field_probabilities(head: Head | LinearHead | ClassicalHead, tokens: Tensor, params: Views) -> NDArray[np.float32]:
    """Return the head's class probabilities of every field: the mean over its crops.

    Args:
        head: Frozen; it is left in evaluation mode on the device of ``params.compute``.
        tokens: Shape (fields, crops, 1 + patches, width), aligned as the head expects.
        params: Compute.

    Returns:
        Shape (fields, classes); rows sum to 1.
    """
    runtime = resolve_runtime(params.compute)
    head.to(runtime.device).eval()
    set_attention(head, runtime.attention)
    flat, parts = tokens.flatten(0, 1), []
    for start in range(0, len(flat), BATCH):
        with runtime.autocast():
            logits = head(flat[start : start + BATCH].to(runtime.device))
        parts.append(logits.float().softmax(dim=-1).cpu())
    probabilities: NDArray[np.float32] = torch.cat(parts).view(*tokens.shape[:2], -1).mean(dim=1).numpy()
    return probabilities


def predict_fields(
    extractor: Extractor, head: Head | LinearHead | ClassicalHead, fields: Fields, params: Views
) -> NDArray[np.float32]:
    """Return the class probabilities of every field without keeping tokens, for a head trained on raw tokens.

    Returns:
        Shape (fields, classes); the same as `field_probabilities` of `extract_tokens`.
    """
    parts = [field_probabilities(head, tokens, params) for tokens in token_batches(extractor, fields, params)]
    return np.concatenate(parts)


def _prepare(extractor: Extractor, fields: Fields, params: Views) -> Cropper:
    require_channels(extractor, fields.channels, "fields")
    runtime = resolve_runtime(params.compute)
    extractor.to(runtime.device).eval()
    set_attention(extractor, runtime.attention)
    return Cropper(image_source(fields, runtime.device, params.compute.images), params.crops)


def _forward_cut(extractor: Extractor, cut: Callable[[], Tensor], params: Views) -> Tensor:
    return _forward(extractor, cut(), params)


def _forward(extractor: Extractor, crops: Tensor, params: Views) -> Tensor:
    with resolve_runtime(params.compute).autocast():
        return extractor(crops).float().cpu()  # type: ignore[no-any-return]
