"""What a method of self-supervision is to everything around it: one protocol (decision 0045).

A method pretrains an extractor on a source without labels and, where it can, continues on the plates of another one.
It owns its networks, how they are stored, and its step. What surrounds a step (iterations, checkpoints, exact resume)
is `coda.training.engine`; which images form pairs, and what else is added to the loss, is given to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import OptimizerConfig, Pairs, Params
from coda.networks.extractor import Extractor
from coda.plates.stored import Fields
from coda.training.checkpoint import Checkpoints
from coda.training.engine import RunResult
from coda.training.hooks import Hooks
from coda.training.pairs import PairReport
from coda.training.progress import Report

Stage = Literal["pretrain", "adapt"]
"""Whether a source is learned from, from first weights, or another one, from the source's state."""


class MethodState(Protocol):
    """Networks of a method, changed in place by training; what adaptation continues from.

    Attributes:
        method: Value of `ssl.method` that it belongs to.
    """

    method: str

    @property
    def extractor(self) -> Extractor:
        """The network that serves."""

    @property
    def learner(self) -> Extractor:
        """The network that an optimizer changes; the extractor itself where no other one follows it."""

    def to(self, device: torch.device) -> Any:
        """Move everything to a device and return the state itself."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return every tensor by its name in the stored state."""


@dataclass(frozen=True)
class SslTask:
    """What a method is to learn from, and the run's context.

    Attributes:
        fields: Unlabelled fields with the extractor's stains; in memory, or left in their plate stores.
        stage: Pretraining or adaptation: which of the method's parameters hold.
        pairs: Which two images form a pair; with by='none' every image is its own partner.
        seed: Of order, partners, views, masks and drop path.
        anchors: Fields that may start a pair; all when not given. All fields may be partners.
        hooks: Which weights learn, what is added to the loss, early stopping; only for a method that takes them.
        described: What the hooks are, as JSON, for the name of the experiment that checkpoints belong to.
        checkpoints: Where to keep checkpoints; none when not given.
        report: Called after every logged iteration.
        should_stop: Asked before every iteration; when it says yes, a checkpoint is written and the run ends.
    """

    fields: Fields
    stage: Stage
    pairs: Pairs
    seed: int
    anchors: NDArray[np.bool_] | None = None
    hooks: Hooks | None = None
    described: object = None
    checkpoints: Checkpoints | None = None
    report: Report | None = None
    should_stop: Callable[[], bool] | None = None


@dataclass(frozen=True)
class SslResult(RunResult):
    """What a training leaves beside how it went; samples are fields (anchors).

    Attributes:
        state: The state, on the device it was trained on, ready to serve.
        pairs: What the pair sampler found.
    """

    state: Any
    pairs: PairReport


State = TypeVar("State", bound=MethodState)


@runtime_checkable
class SslMethod(Protocol[State]):
    """One method; `METHOD` of ``coda.training.methods.<ssl.method>.method`` is one.

    What a method can do beside pretraining (single images, pairs, hooks) is declared at its section of the parameters
    (`coda.config.params.MethodSection`), so that a plan is refused before anything is computed.

    Attributes:
        name: Value of `ssl.method`.
        kind: ``kind`` in the config.json of its stored states; never changed, so that they stay readable.
    """

    name: str
    kind: str

    def new_state(self, params: Params, *, seed: int) -> State:
        """Return the state that pretraining starts from, float32 on the CPU.

        Raises:
            ConfigError: The networks cannot be built or their first weights cannot be had.
        """

    def save_state(self, folder: Path, state: State) -> str:
        """Write a model folder (`coda.networks.artifact`) for the state and return its digest."""

    def load_state(self, folder: Path, expected_digest: str | None = None) -> State:
        """Verify a model folder and rebuild its state on the CPU.

        Raises:
            IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
            ConfigError: It holds another kind of network.
        """

    def optimization(self, params: Params, stage: Stage) -> OptimizerConfig:
        """Return how long and how fast a stage trains."""

    def prepare_to_adapt(self, state: State, params: Params) -> None:
        """Make a source's state ready to be adapted with these parameters.

        Raises:
            ConfigError: The parameters contradict what the state has fixed, or ask for what it lacks.
        """

    def train(self, state: State, params: Params, task: SslTask) -> SslResult:
        """Learn; `state` is changed in place.

        A run that was stopped resumes from its newest checkpoint and is, on a CPU, bit-identical to one that was not.

        Raises:
            ConfigError: The fields do not fit, hold more than the field index, or nothing can be paired; a checkpoint
                is another experiment's; or the training diverged.
            TransientError: It was asked to stop; started again, it resumes from the checkpoint.
        """
