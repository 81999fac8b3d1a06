"""CODA and ODA: the self-supervision of the source release goes on, on unlabelled plates (paper section 3).

What learns is the extractor (and the DINO head, unless it is frozen). No classifier head and no mechanism of action
is within reach of anything here; `adapt_extractor` proves the latter of what it was given.
"""

from collections.abc import Callable

from coda.adaptation.ladder import Rung
from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.state import AdaptationState
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.dino import DinoResult, train_dino
from coda.training.progress import Report


def adapt_extractor(
    state: AdaptationState,
    fields: FieldSet,
    params: Params,
    rung: Rung,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DinoResult:
    """Continue the source release's self-supervision on a batch and its archived neighbours.

    Always starts from the source release, never from an extractor that was adapted before: errors of continual
    adaptation add up (decision 0006). Student, teacher, both DINO heads and the centre are handed over; optimizer and
    schedules start anew.

    Args:
        state: State of the source release; changed in place, its teacher is the adapted extractor.
        fields: Fields of the batch and of archived batches, with the extractor's stains. Its table must not hold a
            mechanism of action.
        params: Parameters; `adaptation` says how long and what is frozen.
        rung: What the ladder chose.
        seed: Seed of the run.
        checkpoints: Where to keep checkpoints; a run that was stopped goes on from the newest.
        report: Called as training goes.
        should_stop: Asked before every iteration.

    Raises:
        ConfigError: The table holds labels, or training cannot run with these fields; see `train_dino`.
        TransientError: It was asked to stop; started again, it goes on.
    """
    _refuse_labels(fields)
    adaptation = params.adaptation
    return train_dino(
        fields,
        params,
        adaptation.budget,
        state=state,
        seed=seed,
        pairs=params.pairs.model_copy(update={"by": rung.by}),
        dino_head=adaptation.dino_head,
        carry_centre=adaptation.carry_centre,
        checkpoints=checkpoints,
        report=report,
        should_stop=should_stop,
    )


def _refuse_labels(fields: FieldSet) -> None:
    named = [name for name in fields.table.columns if name.lower().removeprefix("metadata_") in ("moa", "mechanism")]
    if named:
        problem = Problem(
            "field index", f"the column {named[0]!r}", "no mechanism of action", "Deliver plate maps without labels."
        )
        raise ConfigError("Adaptation must not see mechanisms of action.", [problem])
