"""CODA and ODA: the self-supervision of the source release goes on, on unlabelled plates (paper section 3).

What learns is the extractor, or a part of it, and the DINO head, unless it is frozen. As in the paper, no classifier
head is within reach of the training; options that look through a frozen head read it and never change it
(docs/adaptation.md). No mechanism of action of a field is within reach of anything here; `adapt_extractor` proves that
of what it was given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coda.adaptation.base import FrozenHead, HeadAlignment
from coda.adaptation.hooks import new_hooks
from coda.adaptation.ladder import Rung
from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.state import AdaptationState
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.dino import DinoResult, train_dino
from coda.training.progress import Report


@dataclass(frozen=True)
class Adapted(DinoResult):
    """What an adaptation leaves.

    Attributes:
        stopping: The criterion, every look at the teacher (iteration, marginal_entropy, agreement) and the iteration
            whose weights serve; None where nobody looked.
    """

    stopping: dict[str, Any] | None = None


def adapt_extractor(
    state: AdaptationState,
    fields: FieldSet,
    params: Params,
    rung: Rung,
    *,
    seed: int,
    heads: Mapping[HeadAlignment, FrozenHead] | None = None,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Adapted:
    """Continue the source release's self-supervision on a batch and its archived neighbours.

    Always starts from the source release, never from an extractor that was adapted before: errors of continual
    adaptation add up (decision 0006). Student, teacher, both DINO heads and the centre are handed over; schedules start
    anew, and so does the optimizer unless it is carried too.

    Args:
        state: State of the source release; changed in place, its teacher is the adapted extractor.
        fields: Fields of the batch and of archived batches, with the extractor's stains. Its table must not hold a
            mechanism of action.
        params: Parameters; `adaptation` says how long, what learns, and what is added (docs/adaptation.md). The shape
            of the DINO head is the state's own.
        rung: What the ladder chose.
        seed: Seed of the run.
        heads: Frozen heads of the source release by the alignment they were trained with; only options that look
            through them, or need the source's token statistics, read them.
        checkpoints: Where to keep checkpoints; a run that was stopped goes on from the newest.
        report: Called as training goes.
        should_stop: Asked before every iteration.

    Raises:
        ConfigError: The table holds labels, an option needs a head or a prior that the release lacks, or training
            cannot run with these fields; see `train_dino`.
        TransientError: It was asked to stop; started again, it goes on.
    """
    _refuse_labels(fields)
    adaptation, prototypes = params.adaptation, state.student_head.config["prototypes"]
    params = params.model_copy(update={"dino": params.dino.model_copy(update={"prototypes": prototypes})})
    _require_moments(state, params)
    hooks, described = new_hooks(state, fields, params, heads or {}, seed=seed)
    result = train_dino(
        fields,
        params,
        adaptation.budget,
        state=state,
        seed=seed,
        pairs=params.pairs.model_copy(update={"by": rung.by}),
        dino_head=adaptation.dino_head,
        carry_centre=adaptation.carry_centre,
        hooks=hooks,
        described=described,
        checkpoints=checkpoints,
        report=report,
        should_stop=should_stop,
    )
    return Adapted(**vars(result), stopping=hooks.watch.records() if hooks.watch is not None else None)


def _require_moments(state: AdaptationState, params: Params) -> None:
    if not params.adaptation.carry_optimizer:
        state.moments = {}
    elif not state.moments:
        remedy = "Pretrain with adaptation.carry_optimizer=true, or set it to false."
        problem = Problem("adaptation.carry_optimizer", "a state without moments", "the optimizer's moments", remedy)
        raise ConfigError("The source release's state holds no optimizer to go on with.", [problem])


def _refuse_labels(fields: FieldSet) -> None:
    named = [name for name in fields.table.columns if name.lower().removeprefix("metadata_") in ("moa", "mechanism")]
    if named:
        problem = Problem(
            "field index", f"the column {named[0]!r}", "no mechanism of action", "Deliver plate maps without labels."
        )
        raise ConfigError("Adaptation must not see mechanisms of action.", [problem])
