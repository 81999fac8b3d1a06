"""The rate at which this machine multiplies matrices: what every other rate is measured against."""

import time
from dataclasses import dataclass

import torch

SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices that are tried, by device."""


@dataclass(frozen=True)
class MatrixRate:
    """The best rate that was seen.

    Attributes:
        flops: Floating-point operations a second; two for each multiply-add.
        dtype: 'float32' or 'bfloat16'.
        device: 'cpu' or 'cuda'.
        threads: CPU threads of one operation.
        side: Of the square matrices that were fastest.
    """

    flops: float
    dtype: str
    device: str
    threads: int
    side: int


def measure_matrix_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 2.0) -> MatrixRate:
    """Return the best rate of a matrix product over several sizes and many repeats.

    The best and not the mean: whatever else runs on the machine can only make it slower.

    Args:
        device: Where.
        dtype: Of the matrices. On CUDA, float32 is with TF32 only if torch is set so.
        seconds: Time to take in all; every size is tried at least twice, except those that would take longer than that
            at the rate of the smaller ones (2,048 in bfloat16 is 12 s on a CPU without instructions for it).
    """
    sides = SIDES[device.type]
    best, fastest = 0.0, sides[0]
    for side in sides:
        if best and 2.0 * side**3 / best > seconds / len(sides):
            break
        first, second = (torch.randn((side, side), device=device).to(dtype) for _ in range(2))
        result = torch.empty_like(first)
        torch.mm(first, second, out=result)
        for elapsed in _times(first, second, result, seconds / len(sides)):
            rate = 2.0 * side**3 / elapsed
            if rate > best:
                best, fastest = rate, side
    return MatrixRate(best, str(dtype).removeprefix("torch."), device.type, torch.get_num_threads(), fastest)


def _times(first: torch.Tensor, second: torch.Tensor, result: torch.Tensor, seconds: float) -> list[float]:
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - started < seconds:
        wait_for(first.device)
        before = time.perf_counter()
        torch.mm(first, second, out=result)
        wait_for(first.device)
        times.append(time.perf_counter() - before)
    return times


def wait_for(device: torch.device) -> None:
    """Wait until a CUDA device has done what it was given; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
