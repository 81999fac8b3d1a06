"""What may be hung into a method's step: which weights learn, regularizers, early stopping without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from coda.networks.extractor import Extractor


class TrainableSubset(Protocol):
    """Which weights of the student learn (`coda.training.trainable`)."""

    def parameters(self) -> list[nn.Parameter]:
        """Return what is optimised, heads of the method apart."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights the student computes with, by its parameters' names; empty for its own."""

    def merge_(self) -> None:
        """Write the weights it computes with into the student, after an optimizer step."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors of its own for a checkpoint."""

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""


class Regularizer(Protocol):
    """Something that is added to the loss (`coda.training.regularizers`)."""

    name: str

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return a weighted scalar.

        Args:
            tokens: The student's tokens of the global views, float32, shape (2 * batch, 1 + patches, width).
        """


class EarlyStopping(Protocol):
    """Evaluates the teacher now and then, without labels (`coda.adaptation.early_stopping`)."""

    every: int

    def evaluate(self, iteration: int, teacher: Extractor) -> dict[str, float]:
        """Measure the teacher after `iteration` iterations; return numbers for the log."""

    def should_stop(self) -> bool:
        """Say whether the run should end now."""

    def best(self) -> Mapping[str, Tensor] | None:
        """Return the teacher's weights to serve in place of the last ones, if there are better ones."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors of its own for a checkpoint."""

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state that is no tensor, as JSON."""

    def set_extra_state(self, records: Mapping[str, Any]) -> None:
        """Go back to what `get_extra_state` returned."""


@dataclass(frozen=True)
class Hooks:
    """What is hung into the step; nothing of it in pretraining."""

    trainable: TrainableSubset | None = None
    regularizers: Sequence[Regularizer] = ()
    early_stopping: EarlyStopping | None = None
