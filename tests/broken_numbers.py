"""A number that breaks in the middle of a training: NaN or infinity in a loss, a gradient or a weight."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from coda.errors import ConfigError
from coda.networks import artifact
from coda.networks.finite import not_finite
from coda.training.checkpoint import Checkpoints

PLACES = ("loss", "gradient", "weight")
VALUES = (float("nan"), float("inf"))


@dataclass(frozen=True)
class Fault:
    """What breaks: the place, the value, and in which optimizer step (from 0)."""

    place: str
    value: float
    at: int


def faults(steps: int) -> list[Fault]:
    """Each place and value at a random step, and a weight after the last step, when nothing is computed any more."""
    drawn = random.Random(f"faults {steps}")
    found = [Fault(place, value, drawn.randrange(steps)) for place in PLACES for value in VALUES]
    return [*found, Fault("weight", float("nan"), steps - 1)]


@contextmanager
def injected(fault: Fault, loss: str) -> Iterator[None]:
    """Break one number in one step.

    Args:
        fault: What and when.
        loss: Import path of the function that the objective computes its loss by.
    """
    count = -1

    def changed(tensor: torch.Tensor) -> None:
        with torch.no_grad():
            tensor.view(-1)[0] = fault.value

    def first(optimizer: Any) -> torch.Tensor:
        return next(p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    def before(optimizer: Any, *_: Any) -> None:
        nonlocal count
        count += 1
        if fault.place == "gradient" and count == fault.at:
            changed(first(optimizer).grad)

    def after(optimizer: Any, *_: Any) -> None:
        if fault.place == "weight" and count == fault.at:
            changed(first(optimizer))

    with pytest.MonkeyPatch.context() as patch:
        if fault.place == "loss":
            module, _, name = loss.rpartition(".")
            real, calls = getattr(import_module(module), name), iter(range(10**9))
            patch.setattr(
                loss, lambda *args, **more: real(*args, **more) * (fault.value if next(calls) == fault.at else 1)
            )
        hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


_WHOLE: dict[tuple[str, str, str], Any] = {}
"""What each training ends with when nothing breaks."""


def check_divergence(
    train: Callable[[Checkpoints], Any], fault: Fault, folder: Path, loss: str, rate: str, variant: str = ""
) -> None:
    """A broken number ends the run, keeps nothing broken, tells the truth, and the same run goes on to the same end.

    Args:
        train: Runs the training with checkpoints and returns its result in a form that can be compared.
        fault: What breaks.
        folder: Where checkpoints are kept; empty.
        loss: As for `injected`.
        rate: Parameter that the remedy must name.
        variant: Tells trainings of one test apart.
    """
    kept = Checkpoints(folder / "kept")
    with injected(fault, loss), pytest.raises(ConfigError, match="diverged") as caught:
        train(kept)
    (problem,) = caught.value.problems
    iteration = int(problem.where.removeprefix("iteration "))
    assert f"lower {rate}" in problem.remedy
    finished = kept.finished()
    for path in finished:
        tensors, _ = artifact.load(path)
        assert not_finite(tensors) == []
    if finished:
        assert f"after {int(finished[-1].name)} iterations, which is sound" in problem.remedy
        assert int(finished[-1].name) <= iteration
    else:
        assert "no checkpoint had been written" in problem.remedy
    key = (train.__module__, train.__qualname__, variant)
    if key not in _WHOLE:
        _WHOLE[key] = train(Checkpoints(folder / "whole"))
    started: list[int] = []
    again = train(Checkpoints(folder / "kept", written=lambda path: started.append(int(path.name))))
    assert again == _WHOLE[key]
    assert all(number > int(finished[-1].name) for number in started) if finished else True
