"""Step 2: the head learns on tokens of the frozen extractor (paper section 3)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params
from coda.networks.alignment import TokenStatistics
from coda.networks.extractor import Extractor
from coda.networks.head import Head, new_head
from coda.training.classifier_trainer import ClassifierTrainer, Plateau, require_fields
from coda.training.distributed import together, world
from coda.training.engine import Running, fingerprint, run, tensors_digest
from coda.training.groups import standardise_groups
from coda.training.passes import passes
from coda.training.randomness import derived_seed
from coda.training.schedules import Length, length_of
from coda.training.tokens import BATCH, field_probabilities


@dataclass(frozen=True)
class TokenSet:
    """Tokens with their classes: rounds of random crops for training, evaluation crops for validation.

    Attributes:
        tokens: Shape (rounds or crops, fields, 1 + patches, width), float32 on the CPU, as the extractor made them.
        codes: Class of every field, none negative, shape (fields,).
        names: Group of every field, for alignment.
        statistics: Of each group, to standardise by; None for raw tokens.
        made_of: Digest of all that the tokens follow from; by themselves where it is not given.
    """

    tokens: Tensor
    codes: NDArray[np.int64]
    names: NDArray[np.str_] | None = None
    statistics: dict[str, TokenStatistics] | None = None
    made_of: str | None = None

    def at(self, rounds: Tensor, fields: Tensor) -> Tensor:
        """Return aligned tokens of some crops: (samples,) of each give (samples, tokens, width)."""
        return self._aligned(self.tokens[rounds, fields], fields)

    def of_fields(self, fields: Tensor) -> Tensor:
        """Return aligned tokens of all crops of some fields, shape (fields, crops, tokens, width)."""
        return self._aligned(self.tokens[:, fields].transpose(0, 1), fields)

    @property
    def identity(self) -> str:
        """Digest that names the tokens, for the experiment that a checkpoint belongs to."""
        return self.made_of or tensors_digest({"tokens": self.tokens})

    def _aligned(self, tokens: Tensor, fields: Tensor) -> Tensor:
        if self.statistics is None or self.names is None:
            return tokens
        return standardise_groups(tokens, self.names[fields.numpy()], self.statistics)


@dataclass(frozen=True)
class HeadResult:
    """A trained head and how it came about.

    Attributes:
        head: The weights of the best validation, frozen, in evaluation mode on the CPU.
        accuracy: Field accuracy of those weights on the held-out batches.
        log: One entry a validation: iteration, learning_rate, train_loss, validation_loss, validation_accuracy.
        seconds: Wall time, since the start or the resume.
    """

    head: Head
    accuracy: float
    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def train_head(
    training: Callable[[int], TokenSet],
    validation: TokenSet,
    extractor: Extractor,
    params: Params,
    *,
    classes: tuple[str, ...],
    alignment: str,
    seed: int,
    **running: Unpack[Running],
) -> HeadResult:
    """Train one head on tokens: warm-up, plateau schedule, best validation kept.

    A run that was stopped resumes from its newest checkpoint and is, on a CPU, bit-identical to one that was
    not.

    Args:
        training: Gives the tokens of an epoch by its number (the same ones, or new random crops).
        validation: Tokens of the held-out batches' evaluation crops.
        extractor: The network the tokens come from; only its size is used.
        params: The `head` and `compute` sections.
        classes: Mechanisms in the order of the codes.
        alignment: What was done to the tokens; kept in the head's config.
        seed: Of first weights and order.
        **running: As every training takes them, see `coda.training.engine.Running`.

    Raises:
        ConfigError: There is nothing to train on or to validate with, the checkpoint is another experiment's, or the
            loss is no longer a number.
        TransientError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    first = training(0)
    require_fields(len(first.codes), len(validation.codes))
    budget = params.head.budget
    length = length_of(budget, first.tokens.shape[0] * first.tokens.shape[1])
    head = new_head(params, extractor, classes, alignment, seed=derived_seed(seed, "head", 0))
    codes = [first.codes.tolist(), validation.codes.tolist(), list(classes)]
    options = [params.head.model_dump(mode="json"), alignment, seed]
    identity = fingerprint(
        "head", first.identity, validation.identity, tensors_digest(head.state_dict()), codes, options
    )
    trainer = _HeadTrainer(head, training, first, validation, params, length, seed)
    result = run(
        trainer, length=length, budget=budget, identity=identity,
        rate="head.budget.learning_rate", **running,
    )  # fmt: skip
    trainer.take_best()
    return HeadResult(head, trainer.accuracy, result.log, result.seconds)


class _HeadTrainer(ClassifierTrainer):
    """Tokens in, classes out; every crop of every field once an epoch, in random order (`coda.training.passes`)."""

    def __init__(
        self,
        head: Head,
        training: Callable[[int], TokenSet],
        first: TokenSet,
        validation: TokenSet,
        params: Params,
        length: Length,
        seed: int,
    ) -> None:
        own = params.head
        plateau = Plateau(own.plateau_factor, own.plateau_patience)
        super().__init__({"head": head}, params.compute, own.budget, length, plateau=plateau)
        self.params = params
        self.head, self.training, self.validation, self.seed = head, training, validation, seed
        self.learner = together(head)
        self.count = first.tokens.shape[0] * first.tokens.shape[1]
        self._epoch, self._tokens = 0, first

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        tokens, codes, start, share = [], [], 0, world().share(self.budget.batch_size)
        for epoch, drawn in passes(iteration, self.budget.batch_size, self.count, seed=self.seed, use="head order"):
            if epoch != self._epoch:
                self._epoch, self._tokens = epoch, self.training(epoch)
            # what this process takes of the batch's part in this epoch
            samples = drawn[max(share.start - start, 0) : max(share.stop - start, 0)]
            start += len(drawn)
            number = self._tokens.tokens.shape[1]
            tokens.append(self._tokens.at(samples // number, samples % number))
            codes.append(torch.from_numpy(self._tokens.codes)[samples % number])
        return torch.cat(tokens).to(self.runtime.device), torch.cat(codes).to(self.runtime.device)

    def logits(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.learner(inputs)
        return found

    def validate(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        crops, fields = self.validation.tokens.shape[:2]
        parts = torch.split(torch.arange(fields), max(1, BATCH // crops))
        found = [field_probabilities(self.head, self.validation.of_fields(part), self.params) for part in parts]
        return np.concatenate(found), self.validation.codes
