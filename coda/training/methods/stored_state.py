"""Stored states of methods, read back: every tensor belongs to a network of the config, or is one that is known."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from coda.errors import IntegrityError, Problem
from coda.networks import artifact
from coda.networks.extractor import require_kind
from coda.networks.rebuild import REMEDY, rebuild

MOMENTS = "optimizer."
"""Prefix of the optimizer's tensors in a kept state."""

Shape = Callable[[Mapping[str, Any]], tuple[int, ...]]


def read_state(
    folder: Path, expected_digest: str | None, kind: str, networks: Mapping[str, tuple[Any, str]],
    loose: Mapping[str, Shape] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Verify a model folder of a method's networks, and rebuild what is in it on the CPU.

    Args:
        folder: Model folder that `save_state` wrote.
        expected_digest: What the registry recorded for it.
        kind: ``kind`` that its config must have.
        networks: Name of each network -> its class, and the key of its config.
        loose: Tensors that belong to no network -> their shapes, by the state's config; None where there are none, nor
            the optimizer's.

    Returns:
        Networks by name, the loose tensors, and the optimizer's state.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
        ConfigError: It holds another kind of network.
    """
    loaded, config = artifact.load(folder, expected_digest)
    require_kind(config, kind, folder)
    kept = {name for name in loaded if loose is not None and name.startswith(MOMENTS)}
    moments = {name.removeprefix(MOMENTS): loaded[name] for name in kept}
    tensors = {name: tensor for name, tensor in loaded.items() if name not in kept}
    built: dict[str, Any] = {}
    for name, (build, key) in networks.items():
        own = {path.removeprefix(f"{name}."): t for path, t in tensors.items() if path.startswith(f"{name}.")}
        built[name] = rebuild(build, config.get(key), own, folder)
    known = {f"{name}.{key}" for name, network in built.items() for key in network.state_dict()}
    others = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in known}
    wanted = {name: shape(config) for name, shape in (loose or {}).items()}
    if others != wanted:
        found = f"further tensors {dict(sorted(others.items())[:5])}"
        problem = Problem(f"{folder}/weights.safetensors", found, f"these alone: {wanted or 'none'}", REMEDY)
        raise IntegrityError(f"The weights in {folder} are not those of its config.", [problem])
    return built, {name: tensors[name] for name in wanted}, moments
