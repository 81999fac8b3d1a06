"""A description of the machine that a benchmark ran on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

DENSE_BFLOAT16 = {"H200": 790e12, "H100": 989e12}
"""Dense bfloat16 rates that are told of these cards, in FLOP/s: for context beside the rate that is measured."""


@dataclass(frozen=True)
class Machine:
    """What was measured on.

    Attributes:
        cpu: Model of the processor.
        cores: Cores this process may use.
        threads: Threads of torch.
        load: Mean number of running processes in the minute before; near 0 on a quiet machine.
        gpu: Name of the CUDA device, or None.
        torch: Its version.
    """

    cpu: str
    cores: int
    threads: int
    load: float
    gpu: str | None
    torch: str


def describe_machine(device: torch.device) -> Machine:
    """Return what is measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Machine(
        _cpu_model(), len(os.sched_getaffinity(0)), torch.get_num_threads(), os.getloadavg()[0], gpu, torch.__version__
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
