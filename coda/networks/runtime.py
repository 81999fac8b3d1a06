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

    bfloat16 where the device multiplies it in hardware, else float32; the fused attention on CUDA, the explicit one on
    a CPU, where the fused kernel's backward pass in bfloat16 is slower for short sequences (measured; decision 0005).

    Raises:
        ConfigError: CUDA is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        problem = Problem("compute.device", "cuda", "a device that is here", "Set compute.device to cpu or auto.")
        raise ConfigError("There is no CUDA device on this machine.", [problem])
    name = compute.device if compute.device != "auto" else ("cuda" if available else "cpu")
    precision = compute.precision
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(name) else "float32"
    attention = compute.attention if compute.attention != "auto" else ("sdpa" if name == "cuda" else "explicit")
    return Runtime(torch.device(name), torch.bfloat16 if precision == "bfloat16" else None, attention)


def multiplies_bfloat16(device: str) -> bool:
    """Return whether a device has instructions for products of bfloat16 matrices.

    Without them such a product is right and slow: a CPU of 2017 with AVX2 alone does 34 GFLOP/s in float32 and 1.9 in
    bfloat16 (measured).

    Args:
        device: 'cpu' or 'cuda'.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx10_1"))


def set_threads(compute: Compute) -> None:
    """Give this process the CPU threads of the parameters; for steps, since the setting is the whole process's."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
