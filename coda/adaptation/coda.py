"""CODA and ODA: the self-supervision of the source release goes on, on unlabelled plates (paper section 3).

What learns is the extractor, or a part of it, and the DINO head, unless it is frozen. As in the paper, no classifier
head is within reach of the training; options that look through a frozen head read it and never change it
(docs/adaptation.md). No mechanism of action of a field is within reach of anything here: a table with any column that
the field index does not have is refused (`coda.training.blindness`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coda.adaptation.base import FrozenHead, HeadAlignment
from coda.adaptation.hooks import new_hooks
from coda.adaptation.ladder import Rung
from coda.config.params import Params
from coda.config.recorded import Today, contradictions, model_facts
from coda.errors import ConfigError, Problem, raise_if_any
from coda.networks.dino_head import SHAPE
from coda.networks.state import AdaptationState
from coda.plates.stored import Fields
from coda.training.blindness import require_blind
from coda.training.checkpoint import Checkpoints
from coda.training.dino import DinoResult, train_dino
from coda.training.progress import Report
from coda.training.subset import chosen_fields


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
    fields: Fields,
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
        fields: Fields of the batch and of archived batches, with the extractor's stains. Its table holds what the
            field index does, and no column more.
        params: Parameters; `adaptation` says how long, what learns, and what is added (docs/adaptation.md). What the
            state has fixed (shape of the DINO head, what of the tokens it sees) must be what they say.
        rung: What the ladder chose.
        seed: Seed of the run.
        heads: Frozen heads of the source release by the alignment they were trained with; only options that look
            through them, or need the source's token statistics or the names of labelled compounds, read them.
        checkpoints: Where to keep checkpoints; a run that was stopped goes on from the newest.
        report: Called as training goes.
        should_stop: Asked before every iteration.

    Raises:
        ConfigError: The table holds other columns, parameters contradict what the state was made with, an option needs
            a head or a prior that the release lacks, or training cannot run with these fields; see `train_dino`.
        TransientError: It was asked to stop; started again, it goes on.
    """
    require_blind(fields.table)
    adaptation = params.adaptation
    lists = [frozen.compounds for frozen in (heads or {}).values() if frozen.compounds is not None]
    anchors = chosen_fields(fields.table, adaptation.fields, lists[0] if lists else None, key="adaptation.fields")
    _go_on_with(state, params)
    _require_moments(state, params)
    hooks, described = new_hooks(state, fields, params, heads or {}, seed=seed)
    result = train_dino(
        fields,
        params,
        adaptation.budget,
        state=state,
        seed=seed,
        pairs=params.pairs.model_copy(update={"by": rung.by}),
        anchors=anchors,
        dino_head=adaptation.dino_head,
        carry_centre=adaptation.carry_centre,
        hooks=hooks,
        described=described,
        keep_moments=adaptation.carry_optimizer,
        checkpoints=checkpoints,
        report=report,
        should_stop=should_stop,
    )
    return Adapted(**vars(result), stopping=hooks.watch.records() if hooks.watch is not None else None)


def _go_on_with(state: AdaptationState, params: Params) -> None:
    """Refuse parameters that contradict what the state was pretrained with: they would be ignored."""
    fixed = {f"dino.{name}": (state.student_head.config[name], getattr(params.dino, name)) for name in SHAPE}
    problems = contradictions(model_facts(state.teacher.config, "the state that is adapted"), Today.of(params))
    problems += [
        Problem(name, repr(asked), f"{kept!r}, as the release was pretrained", f"Set {name}={kept}, or pretrain anew.")
        for name, (kept, asked) in fixed.items()
        if kept != asked
    ]
    raise_if_any(ConfigError, "The parameters contradict the source release that adaptation goes on from.", problems)
    for network in (state.student, state.teacher):
        # states from before 0017 do not say what their DINO head sees: the parameters are all that is known
        network.config.setdefault("pool", params.extractor.pool)


def _require_moments(state: AdaptationState, params: Params) -> None:
    if not params.adaptation.carry_optimizer:
        state.moments = {}
    elif not state.moments:
        remedy = "Pretrain with pretrain.keep_optimizer=true, or set adaptation.carry_optimizer=false."
        problem = Problem("adaptation.carry_optimizer", "a state without moments", "the optimizer's moments", remedy)
        raise ConfigError("The source release's state holds no optimizer to go on with.", [problem])
