"""Several processes that learn as one: what torchrun starts, joined here; a single process needs nothing of it.

The batch size is that of all processes together, each takes its share of every batch, and gradients are averaged: the
result is that of one process but for rounding. Messages between processes are tensors and JSON, never pickles.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from coda.errors import ConfigError, Problem

Key = TypeVar("Key")
Found = tuple[int, dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class World:
    """The processes that learn together.

    Attributes:
        rank: Number of this one, from 0.
        size: How many there are.
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return the places of a batch that this process takes.

        Raises:
            ConfigError: The batch does not divide by the number of processes.
        """
        if batch % self.size:
            remedy = "Choose a batch size that is a multiple of the processes, or other processes."
            problem = Problem("batch_size", str(batch), f"a multiple of {self.size}", remedy)
            raise ConfigError("The batch cannot be shared among the processes.", [problem])
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def world() -> World:
    """Return the processes that this one has joined; itself alone outside `joined`."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World(0, 1)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Reads torchrun's variables (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). NCCL on CUDA, else gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield world()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield world()
    finally:
        distributed.destroy_process_group()


def together(learner: nn.Module) -> nn.Module:
    """Return the module with its gradients averaged over all processes; the module itself when there is one."""
    if world().size == 1:
        return learner
    return nn.parallel.DistributedDataParallel(learner)


def averaged(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient."""
    if world().size == 1:
        return tensor
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total / world().size


def agreed(*, flag: bool) -> bool:
    """Say whether any process says so: all must stop at the same iteration, or none."""
    if world().size == 1:
        return flag
    device = _wire()
    raised = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
    return bool(raised.item())


def earliest(iteration: int | None) -> int | None:
    """Return the smallest iteration that any process names; None when none names one."""
    if world().size == 1:
        return iteration
    device = _wire()
    named = torch.tensor([math.inf if iteration is None else float(iteration)], dtype=torch.float64, device=device)
    distributed.all_reduce(named, op=distributed.ReduceOp.MIN)
    found = named.item()
    return None if math.isinf(found) else int(found)


def numbers_from_first(numbers: list[float]) -> list[float]:
    """Return to every process the numbers of the first one, bit for bit."""
    if world().size == 1:
        return numbers
    told = torch.tensor(numbers, dtype=torch.float64, device=_wire())
    distributed.broadcast(told, src=0)
    return [float(number) for number in told.tolist()]


def by_turns(parts: Iterable[tuple[Key, Callable[[], Tensor]]]) -> Iterator[tuple[Key, Tensor]]:
    """Yield what parts come to, in order; of several processes, each computes its turn's and is given the others'.

    Args:
        parts: The same in every process. What follows in the iterable may depend on its having been asked for.

    Yields:
        The part's name, and its tensor of three axes, float32 on the CPU: the bits that one process alone computes.
    """
    size, mine, parts = world().size, world().rank, iter(parts)
    while turn := list(islice(parts, size)):
        own = turn[mine][1]() if mine < len(turn) else None
        for owner, (key, _) in enumerate(turn):
            yield key, _from(owner, own if owner == mine else None)


def _from(owner: int, own: Tensor | None) -> Tensor:
    if world().size == 1 and own is not None:
        return own
    shape = torch.tensor(own.shape if own is not None else [0, 0, 0], device=_wire())
    distributed.broadcast(shape, src=owner)
    sent = own.to(_wire()).contiguous() if own is not None else torch.empty(tuple(shape.tolist()), device=_wire())
    distributed.broadcast(sent, src=owner)
    return sent.cpu()


def _wire() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def from_first(find: Callable[[], Found | None]) -> Found | None:
    """Return to every process the checkpoint that the first one finds: iteration, tensors and records."""
    if world().size == 1:
        return find()
    found = find() if world().first else None
    described: dict[str, Any] = {}
    if found is not None:
        shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in found[1].items()}
        described = {"iteration": found[0], "records": found[2], "shapes": shapes}
    described = _json_from_first(described)
    if not described:
        return None
    tensors = _tensors_from_first(described["shapes"], found[1] if found is not None else {})
    return int(described["iteration"]), tensors, described["records"]


def _json_from_first(content: dict[str, Any]) -> dict[str, Any]:
    device = _wire()
    raw = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8).to(device)
    size = torch.tensor([len(raw)], device=device)
    distributed.broadcast(size, src=0)
    sent = raw if world().first else torch.empty(int(size.item()), dtype=torch.uint8, device=device)
    distributed.broadcast(sent, src=0)
    received: dict[str, Any] = json.loads(bytes(sent.cpu().tolist()))
    return received


def _tensors_from_first(shapes: Mapping[str, list[Any]], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = _wire()
    received = {}
    for name, (shape, kind) in shapes.items():
        tensor = own[name].contiguous() if name in own else torch.empty(shape, dtype=getattr(torch, kind))
        sent = tensor.to(device)
        distributed.broadcast(sent, src=0)
        received[name] = sent.cpu()
    return received
