"""Rebuilding a network from a model folder's config without trusting it: the weights must be exactly its own.

Digests say that a folder is the one that was recorded, not that whoever recorded it meant well. A config is data: it
names a network that timm knows by a plain name, with numbers of a plausible size; what it describes is laid out without
memory first and held against the weights, so that a few bytes cannot ask for a giant network.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from coda.errors import ConfigError, IntegrityError, Problem, raise_if_any

Network = TypeVar("Network", bound=nn.Module)

LARGEST = 65_536
"""Largest number a config may hold: widths, prototypes and image sides are far below."""

DEEPEST = 128
"""Most transformer blocks; the deepest published ViT has 64."""

SIZES = ("width", "hidden_dim", "bottleneck_dim", "prototypes", "depth", "num_heads", "patch_size", "stains")
"""Numbers of the configs of a DINO head, a masked autoencoder's decoder and a linear head."""

_PLAIN_NAME = re.compile(r"[a-z0-9_]{1,100}")
REMEDY = "Do not use this model; fetch it from the registry again, and find out who made it."


def rebuild(
    build: Callable[[Mapping[str, Any]], Network], config: Any, tensors: Mapping[str, Tensor], folder: Path
) -> Network:
    """Build a network and load its weights.

    Args:
        build: Class of the network, called with its config.
        config: The config as it was read.
        tensors: All weights of the network, by name.
        folder: Where they came from, for messages.

    Raises:
        IntegrityError: The config is none, or the weights are not those of the network it describes.
    """
    raise_if_any(IntegrityError, f"The config in {folder} describes no network of ours.", list(_faults(config, folder)))
    try:
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, ConfigError) as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        problem = Problem(f"{folder}/config.json", found, "a network that can be built", REMEDY)
        raise IntegrityError(f"The network in {folder} cannot be built.", [problem]) from error
    problems = [
        Problem(
            f"{folder}/weights.safetensors: {name}",
            f"shape {tuple(tensors[name].shape)}" if name in tensors else "no such tensor",
            f"shape {wanted[name]}" if name in wanted else "only the network's own tensors",
            REMEDY,
        )
        for name in sorted(set(wanted) | set(tensors))
        if name not in wanted or name not in tensors or wanted[name] != tuple(tensors[name].shape)
    ]
    raise_if_any(IntegrityError, f"The weights in {folder} are not those of its config.", problems[:20])
    network = build(config)
    network.load_state_dict(dict(tensors))
    return network


def _faults(config: Any, folder: Path) -> Iterator[Problem]:
    where = f"{folder}/config.json"
    if not isinstance(config, dict):
        yield Problem(where, type(config).__name__, "a mapping", REMEDY)
        return
    if "arch" in config and not (isinstance(config["arch"], str) and _PLAIN_NAME.fullmatch(config["arch"])):
        # timm would take 'hf-hub:...' and 'local-dir:...' for places to fetch from
        yield Problem(f"{where}: arch", repr(config["arch"])[:100], "the plain name of a timm network", REMEDY)
    overrides = config.get("overrides", {})
    numbers = dict(overrides) if isinstance(overrides, dict) else {"overrides": overrides}
    numbers |= {name: value for name, value in config.items() if name in SIZES}
    for name, value in numbers.items():
        most = DEEPEST if name == "depth" else LARGEST
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            yield Problem(f"{where}: {name}", repr(value)[:100], f"a whole number from 1 to {most}", REMEDY)
