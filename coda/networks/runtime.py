"""Device, precision and attention of a computation, resolved once from the parameters."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from coda.config.params import Compute
from coda.errors import ConfigError, Problem


@dataclass(frozen=True)
class Runtime:
    """Where and how the arithmetic runs.

    Attributes:
        device: Device of weights and images.
        low_precision: bfloat16 for autocast, or None for float32 throughout. Weights are float32 always.
        attention: 'explicit' (softmax of the product) or 'sdpa' (torch's fused kernel).
    """

    device: torch.device
    low_precision: torch.dtype | None
    attention: Literal["explicit", "sdpa"]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run forward; it does nothing in float32."""
        if self.low_precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.low_precision)


def resolve_runtime(compute: Compute) -> Runtime:
    """Turn 'auto' into what suits the machine.

    bfloat16 on CUDA, float32 on a CPU; the fused attention on CUDA, the explicit one on a CPU, where the fused
    kernel's backward pass in bfloat16 is slower for short sequences (measured; decision 0005).

    Raises:
        ConfigError: CUDA is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        problem = Problem("compute.device", "cuda", "a device that is here", "Set compute.device to cpu or auto.")
        raise ConfigError("There is no CUDA device on this machine.", [problem])
    name = compute.device if compute.device != "auto" else ("cuda" if available else "cpu")
    precision = compute.precision if compute.precision != "auto" else ("bfloat16" if name == "cuda" else "float32")
    attention = compute.attention if compute.attention != "auto" else ("sdpa" if name == "cuda" else "explicit")
    return Runtime(torch.device(name), torch.bfloat16 if precision == "bfloat16" else None, attention)


def set_threads(compute: Compute) -> None:
    """Give this process the CPU threads of the parameters; for steps, since the setting is the whole process's."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
