"""Where a network's first weights come from: ImageNet, a safetensors file, or a seeded random start. Never silently."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from coda.errors import ConfigError, Problem

FIRST_LAYER, POSITIONS = "patch_embed.proj.weight", "pos_embed"
REMEDY = (
    "Connect this machine to the model hub, or fill its cache elsewhere and set HF_HOME, or set extractor.weights to "
    "the path of a safetensors file, or choose extractor.weights=random on purpose."
)


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from, in timm's names, and where they came from."""

    tensors: dict[str, Tensor]
    origin: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file they were read from."""
        return self.origin.rpartition(":")[2]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's initial weights from `seed` and leave the process's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def initial_weights(weights: str, arch: str) -> InitialWeights | None:
    """Read the weights that ``extractor.weights`` names.

    Args:
        weights: 'imagenet', 'random' or the path of a safetensors file.
        arch: timm's name of the network, for 'imagenet'.

    Returns:
        The weights, or None for 'random'.

    Raises:
        ConfigError: The weights cannot be had; there is no silent random start.
    """
    if weights == "random":
        return None
    path = _imagenet_file(arch) if weights == "imagenet" else Path(weights)
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
    except (OSError, SafetensorError) as error:
        problem = Problem("extractor.weights", f"{weights!r} ({error})", "a readable safetensors file", REMEDY)
        raise ConfigError("The extractor's first weights cannot be read.", [problem]) from error
    digest = hashlib.sha256(content).hexdigest()
    kept = {
        name: tensor for name, tensor in tensors.items() if not name.startswith(("head.", "head_dist.", "fc_norm."))
    }
    return InitialWeights(kept, f"{weights}:{path.name}:{digest}")


def fit_to(vit: nn.Module, weights: InitialWeights, patches: tuple[int, int], prefix_tokens: int) -> None:
    """Copy weights into a ViT whose channels or input size may differ from theirs.

    Raises:
        ConfigError: A tensor is missing, unknown or of a shape that cannot be fitted; all of them together.
    """
    wanted = vit.state_dict()
    tensors = dict(weights.tensors)
    if FIRST_LAYER in tensors and FIRST_LAYER in wanted:
        tensors[FIRST_LAYER] = repeat_channels(tensors[FIRST_LAYER], wanted[FIRST_LAYER].shape[1])
    if POSITIONS in tensors and POSITIONS in wanted:
        tensors[POSITIONS] = resize_positions(tensors[POSITIONS], patches, prefix_tokens)
    remedy = "Use weights of the same timm network, or correct extractor.arch and extractor.overrides."
    problems = [
        Problem(f"extractor.weights: {name}", "no such tensor", f"shape {tuple(wanted[name].shape)}", remedy)
        for name in sorted(set(wanted) - set(tensors))
    ]
    for name, tensor in sorted(tensors.items()):
        if name not in wanted:
            problems.append(
                Problem(f"extractor.weights: {name}", "an unknown tensor", "only the network's own", remedy)
            )
        elif tensor.shape != wanted[name].shape:
            found, expected = f"shape {tuple(tensor.shape)}", f"shape {tuple(wanted[name].shape)}"
            problems.append(Problem(f"extractor.weights: {name}", found, expected, remedy))
    if problems:
        raise ConfigError("The extractor's first weights do not fit the network.", problems)
    vit.load_state_dict(tensors)


def repeat_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first layer to any number of channels: repeated cyclically, rescaled so that activations keep their size.

    Args:
        weight: Shape (width, channels of the weights, height, width); RGB has 3.
        channels: Channels of the images.

    Returns:
        Shape (width, channels, height, width). The released code does not rescale (docs/deviations.md).
    """
    before = weight.shape[1]
    if channels == before:
        return weight
    return weight[:, torch.arange(channels) % before] * (before / channels)


def resize_positions(positions: Tensor, patches: tuple[int, int], prefix_tokens: int) -> Tensor:
    """Resize learned positions to another grid of patches, bicubically by target size and without antialiasing.

    timm's own function smooths (antialias), which gives other values when the grid shrinks; the method does not.

    Args:
        positions: Shape (1, prefix_tokens + side * side, width); differentiable.
        patches: Rows and columns of the new grid.
        prefix_tokens: Leading positions that belong to no patch (class token, registers).
    """
    prefix, grid = positions[:, :prefix_tokens], positions[:, prefix_tokens:]
    side = round(grid.shape[1] ** 0.5)
    if side * side != grid.shape[1]:
        problem = Problem("pos_embed", f"{grid.shape[1]} patches", "a square grid", "Use a square extractor.")
        raise ConfigError("The extractor's positions cannot be resized.", [problem])
    if patches == (side, side):
        return positions
    picture = grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(picture, size=patches, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([prefix, resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)


def initialise_xavier(network: nn.Module) -> None:
    """Give every linear and convolutional layer Xavier-uniform weights and zero biases.

    A random start learns in hundreds of steps with these and hardly with timm's truncated normal (decision 0005).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.view(layer.weight.shape[0], -1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _imagenet_file(arch: str) -> Path:
    from coda.networks.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    known = timm.get_pretrained_cfg(arch)
    if known is None or not known.hf_hub_id:
        problem = Problem("extractor.weights", f"'imagenet' for {arch!r}", "a network with published weights", REMEDY)
        raise ConfigError(f"timm knows no ImageNet weights for {arch!r}.", [problem])
    try:
        # the safetensors file alone: timm's own download would fall back to a pickled one
        return Path(hf_hub_download(known.hf_hub_id, "model.safetensors"))
    except (OSError, HfHubHTTPError) as error:
        found = f"'imagenet', but {known.hf_hub_id} cannot be fetched ({type(error).__name__})"
        problem = Problem("extractor.weights", found, "weights in the local cache or a reachable hub", REMEDY)
        raise ConfigError("The ImageNet weights cannot be had; nothing was trained.", [problem]) from error
