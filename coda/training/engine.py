"""The DINO training of pretraining and adaptation alike (paper section 4)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from coda.config.params import Budget, Pairs, Params
from coda.contracts.base import digest_of_json
from coda.errors import Problem, TransientError
from coda.networks.extractor import require_channels
from coda.networks.state import AdaptationState
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.loop import DinoLoop
from coda.training.pairs import PairReport, PairSampler
from coda.training.progress import Clock, Report
from coda.training.schedules import Length, length_of


@dataclass(frozen=True)
class DinoResult:
    """What a run of `train_dino` leaves, beside the state it changed.

    Attributes:
        state: The state, on the device it was trained on.
        log: One entry a logged iteration: iteration, loss, learning_rate, momentum, gradient_norm and the numbers of
            `coda.training.health.Health`.
        alarms: Signs of collapse that were present at the end, in words.
        pairs: What the pair sampler found.
        samples_per_s: Fields (anchors) a second, since the start or the resume.
        seconds: Wall time since the start or the resume.
    """

    state: AdaptationState
    log: list[dict[str, float]]
    alarms: tuple[str, ...]
    pairs: PairReport
    samples_per_s: float
    seconds: float


def train_dino(
    fields: FieldSet,
    params: Params,
    budget: Budget,
    *,
    state: AdaptationState,
    seed: int,
    pairs: Pairs | None = None,
    anchors: NDArray[np.bool_] | None = None,
    freeze_dino_head: bool = False,
    carry_centre: bool = True,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DinoResult:
    """Train student and teacher on unlabelled fields; `state` is changed in place.

    All schedules and the optimizer start anew, as in the method, whether the state is fresh or handed over. A run
    that was stopped goes on from its newest checkpoint and ends, on a CPU, with the same bits as one that was not.

    Args:
        fields: Images with the extractor's stains, in its order.
        params: Crops, DINO head, pairs and compute are read from here.
        budget: Length and rates: ``params.pretrain`` or ``params.adaptation.budget``.
        state: What to start from.
        seed: Of anchors, partners, views and drop path.
        pairs: Pairing in place of ``params.pairs``; with by='none' it is plain DINO (ODA).
        anchors: Fields that may start a pair; all when not given. All fields may be partners.
        freeze_dino_head: Keep both DINO heads as they are; only the extractor learns.
        carry_centre: Start from the state's centre (else from 0, as the released code does).
        checkpoints: Where to keep checkpoints, every ``budget.checkpoint_every`` iterations.
        report: Called after every logged iteration.
        should_stop: Asked before every iteration; when it says yes, a checkpoint is written and the run ends.

    Raises:
        ConfigError: Images do not fit the network or the views, nothing can be paired, the checkpoint is another
            experiment's, or the loss is no longer a number.
        TransientError: The run was asked to stop; started again, it goes on from the checkpoint.
    """
    require_channels(state.student, fields.channels, "fields")
    sampler = PairSampler(fields.table, pairs or params.pairs, anchors)
    length = length_of(budget, sampler.fields_per_epoch)
    if not carry_centre:
        state.centre = torch.zeros_like(state.centre)
    options = {
        "seed": seed,
        "pairs": (pairs or params.pairs).model_dump(),
        "freeze_dino_head": freeze_dino_head,
        "anchors": anchors.tolist() if anchors is not None else None,
    }
    run = _Run(checkpoints, _fingerprint(fields, params, budget, state, options), length, [])
    loop = DinoLoop(
        fields, params, budget,
        state=state, sampler=sampler, length=length, seed=seed, freeze_dino_head=freeze_dino_head,
    )  # fmt: skip
    clock, alarms = run.train(loop, report, should_stop)
    loop.finish()
    rate = clock.progress(length.iterations, "").samples_per_s
    return DinoResult(state, run.log, alarms, sampler.report, rate, clock.seconds)


@dataclass
class _Run:
    """The way of a loop through its iterations, with checkpoints and reports."""

    checkpoints: Checkpoints | None
    identity: str
    length: Length
    log: list[dict[str, float]]

    def train(
        self, loop: DinoLoop, report: Report | None, should_stop: Callable[[], bool] | None
    ) -> tuple[Clock, tuple[str, ...]]:
        total, start = self.length.iterations, self._resume(loop)
        clock = Clock(start, total, loop.budget.batch_size)
        log_every = max(1, total // 100)
        alarms: tuple[str, ...] = ()
        for iteration in range(start, total):
            if should_stop is not None and should_stop():
                self._interrupt(loop, iteration)
            entry = loop.step(iteration, measure=iteration % log_every == 0 or iteration == total - 1)
            done = iteration + 1
            if entry is not None:
                self.log.append(entry.numbers)
                alarms = entry.alarms
                if report is not None:
                    report(clock.progress(done, f"loss {entry.numbers['loss']:.3f}"))
            if done % loop.budget.checkpoint_every == 0 and done < total:
                self._save(loop, done)
        return clock, alarms

    def _resume(self, loop: DinoLoop) -> int:
        found = self.checkpoints.latest(self.identity) if self.checkpoints is not None else None
        if found is None:
            return 0
        iteration, tensors, records = found
        loop.restore(tensors)
        self.log = records["log"]
        return iteration

    def _save(self, loop: DinoLoop, done: int) -> None:
        if self.checkpoints is not None and done:
            self.checkpoints.save(done, self.identity, loop.tensors(), {"log": self.log})

    def _interrupt(self, loop: DinoLoop, iteration: int) -> None:
        self._save(loop, iteration)
        found, remedy = f"a request to stop at iteration {iteration}", "Start the step again; it goes on from here."
        raise TransientError("The training was interrupted.", [Problem("training", found, "no interruption", remedy)])


def _fingerprint(
    fields: FieldSet, params: Params, budget: Budget, state: AdaptationState, options: dict[str, Any]
) -> str:
    """Name the experiment a checkpoint belongs to: data, parameters, start, options; not where it is computed."""
    pixels = hashlib.sha256(np.ascontiguousarray(fields.images[:, :, ::16, ::16]).tobytes())
    start = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in state.tensors().items()})
    sections = params.model_dump(mode="json", include={"crops", "dino"})
    data = [fields.table["image_id"].tolist(), pixels.hexdigest()]
    return digest_of_json([sections, budget.model_dump(), options, data, hashlib.sha256(start).hexdigest()])
