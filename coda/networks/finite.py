"""Whether tensors are numbers throughout: asked before anything is written, and of what is read of earlier versions."""

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors in which a number is NaN or infinite; waits once for each device."""
    by_device: dict[torch.device, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            by_device.setdefault(tensor.device, []).append(name)
    broken = []
    for names in by_device.values():
        sound = torch.stack([tensors[name].detach().isfinite().all() for name in names]).tolist()
        broken += [name for name, fine in zip(names, sound, strict=True) if not fine]
    return sorted(broken)
