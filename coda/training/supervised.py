"""Supervised DeiT-S: extractor and a linear layer learn end to end from labels (paper section 4, the baseline)."""

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coda.config.params import Params
from coda.networks.classifier import LinearHead, new_linear_head
from coda.networks.extractor import Extractor, new_extractor, require_channels
from coda.plates.fieldset import FieldSet
from coda.training.classifier_trainer import ClassifierTrainer, Plateau, require_fields
from coda.training.crops import Cropper
from coda.training.distributed import together, world
from coda.training.engine import Running, fields_digest, fingerprint, run, tensors_digest
from coda.training.flops import supervised_step
from coda.training.images import image_source
from coda.training.labels import LabelList
from coda.training.passes import passes
from coda.training.randomness import derived_seed, generator
from coda.training.schedules import Length, length_of
from coda.training.tokens import predict_fields


@dataclass(frozen=True)
class SupervisedResult:
    """A trained supervised system and how it came about.

    Attributes:
        extractor: The weights of the best validation, frozen, in evaluation mode on the CPU.
        head: Its linear classifier, likewise.
        accuracy: Field accuracy of those weights on the held-out batches.
        log: One entry a validation: iteration, learning_rate, train_loss, validation_loss, validation_accuracy.
        seconds: Wall time, since the start or the resume.
    """

    extractor: Extractor
    head: LinearHead
    accuracy: float
    log: list[dict[str, float]]
    seconds: float


def train_supervised(
    training: FieldSet,
    validation: FieldSet,
    labels: LabelList,
    params: Params,
    *,
    seed: int,
    **running: Unpack[Running],
) -> SupervisedResult:
    """Train extractor and linear layer by cross-entropy on random crops of labelled fields.

    Crops are those that the head learns from, warm-up and plateau are the head's, there is no drop path, and the
    extractor starts from the same first weights as in every other system. A run that was stopped resumes from its
    newest checkpoint and is, on a CPU, bit-identical to one that was not.

    Args:
        training: Fields of the training batches; those without a label are not used.
        validation: Fields of the held-out batches; their accuracy chooses the weights.
        labels: Mechanisms by compound.
        params: `extractor`, `crops`, `supervised` and `compute`.
        seed: Of first weights, order and crops.
        **running: As every training takes them, see `coda.training.engine.Running`.

    Raises:
        ConfigError: The first weights cannot be had, no field has a label, images do not fit the network or the
            crops, the checkpoint is another experiment's, or the loss is no longer a number.
        TransientError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    codes, held = labels.codes(training.table), labels.codes(validation.table)
    require_fields(int((codes >= 0).sum()), int((held >= 0).sum()))
    learn, check = training.take(codes >= 0), validation.take(held >= 0)
    length = length_of(params.supervised, len(learn))
    extractor = new_extractor(params, seed=seed, drop_path=0.0)
    require_channels(extractor, learn.channels, "fields")
    head = new_linear_head(params, extractor, labels.classes, seed=derived_seed(seed, "supervised", 0))
    trainer = _SupervisedTrainer(
        extractor, head, (learn, codes[codes >= 0]), (check, held[held >= 0]), params, length, seed
    )
    sections = params.model_dump(mode="json", include={"crops", "supervised"})
    options = [sections, extractor.pool, seed]
    data = [fields_digest(learn), fields_digest(check), labels.digest]
    identity = fingerprint("supervised", data, tensors_digest(trainer.state_dict()), options)
    result = run(
        trainer, length=length, budget=params.supervised, identity=identity, **running,
        flops_per_sample=supervised_step(extractor, len(labels.classes), params.crops.global_size),
        rate="supervised.learning_rate",
    )  # fmt: skip
    trainer.take_best()
    return SupervisedResult(extractor, head, trainer.accuracy, result.log, result.seconds)


Labelled = tuple[FieldSet, NDArray[np.int64]]
"""Fields with the class of each."""


class _SupervisedTrainer(ClassifierTrainer):
    """Random crops in, classes out; epochs follow each other without a gap."""

    def __init__(
        self,
        extractor: Extractor,
        head: LinearHead,
        training: Labelled,
        validation: Labelled,
        params: Params,
        length: Length,
        seed: int,
    ) -> None:
        own = params.supervised
        plateau = Plateau(own.plateau_factor, own.plateau_patience)
        super().__init__({"extractor": extractor, "head": head}, params.compute, own, length, plateau=plateau)
        self.params = params
        self.extractor, self.head, self.validation, self.seed = extractor, head, validation, seed
        self.codes = torch.from_numpy(training[1])
        images = image_source(training[0], self.runtime.device, params.compute.images)
        self.cropper = Cropper(images, params.crops)
        self.learner = together(nn.Sequential(extractor, head))

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        parts = passes(iteration, self.budget.batch_size, len(self.codes), seed=self.seed, use="supervised order")
        rows = torch.cat([samples for _, samples in parts])
        source = generator(self.seed, "supervised crops", iteration)
        own = torch.arange(len(rows))[world().share(len(rows))]
        crops = self.cropper.random_crops(rows, self.params.crops.global_size, source, jitter=True, keep=own)
        return crops, self.codes[rows[own]].to(self.runtime.device)

    def logits(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.learner(inputs)
        return found

    def validate(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        fields, codes = self.validation
        return predict_fields(self.extractor, self.head, fields, self.params), codes
