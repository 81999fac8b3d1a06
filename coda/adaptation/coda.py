"""CODA and ODA: the source release's self-supervision continues on unlabelled plates (paper section 3).

Which self-supervision that is says the release's state (`coda.training.methods`); all start here. As in the paper, no
classifier head is within reach of the training; options that look through a frozen head read it and never change it
(docs/adaptation.md). No mechanism of action of a field is within reach of anything here: a table with any column that
the field index does not have is refused (`coda.training.blindness`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from coda.adaptation.base import FrozenHead
from coda.adaptation.hooks import new_hooks
from coda.adaptation.pairing_policy import PairingPolicy
from coda.config.params import Params
from coda.config.recorded import Today, contradictions, model_facts
from coda.contracts.recipe import HeadAlignment
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.stored import Fields
from coda.training.blindness import require_blind
from coda.training.engine import Running
from coda.training.methods.base import MethodState, SslResult, SslTask
from coda.training.methods.registry import method_of
from coda.training.subset import chosen_fields


@dataclass(frozen=True)
class Adapted(SslResult):
    """What an adaptation leaves.

    Attributes:
        stopping: The criterion, every evaluation of the teacher (iteration, marginal_entropy, agreement) and the
            iteration whose weights serve; None without early stopping.
    """

    stopping: dict[str, Any] | None = None


def adapt_extractor(
    state: MethodState,
    fields: Fields,
    params: Params,
    pairing: PairingPolicy,
    *,
    seed: int,
    heads: Mapping[HeadAlignment, FrozenHead] | None = None,
    **running: Unpack[Running],
) -> Adapted:
    """Continue the source release's self-supervision on a batch and its archived neighbours.

    Always starts from the source release, never from an extractor that was adapted before: errors of continual
    adaptation add up (decision 0006). The whole state is handed over; schedules start anew, and so does the optimizer
    unless it is carried too.

    Args:
        state: State of the source release; changed in place, its `extractor` is the adapted one.
        fields: Fields of the batch and of archived batches, with the extractor's stains. Its table holds what the
            field index does, and no column more.
        params: Parameters; `adaptation` says how long, what learns, and what is added (docs/adaptation.md). What the
            state has fixed (its method, the shape of its heads, what of the tokens they see) must be what they say.
        pairing: What the pairing policy chose.
        seed: Seed of the run.
        heads: Frozen heads of the source release by the alignment they were trained with; only options that look
            through them, or need the source's token statistics or the names of labelled compounds, read them.
        **running: As every training takes them, see `coda.training.engine.Running`.

    Raises:
        ConfigError: The table holds other columns, parameters contradict what the state was made with, an option needs
            a head or a prior that the release lacks, or training cannot run with these fields; see `SslMethod.train`.
        TransientError: It was asked to stop; started again, it resumes.
    """
    require_blind(fields.table)
    adaptation = params.adaptation
    lists = [frozen.compounds for frozen in (heads or {}).values() if frozen.compounds is not None]
    anchors = chosen_fields(fields.table, adaptation.fields, lists[0] if lists else None, key="adaptation.fields")
    method = method_of(state.method)
    _refuse_contradictions(state, params)
    method.prepare_to_adapt(state, params)
    hooks, described = new_hooks(state, fields, params, heads or {}, seed=seed)
    task = SslTask(
        fields, "adapt", params.pairs.model_copy(update={"by": pairing.by}), seed,
        anchors=anchors, hooks=hooks, described=described, **running,
    )  # fmt: skip
    result = method.train(state, params, task)
    stopping = hooks.early_stopping
    return Adapted(**vars(result), stopping=stopping.get_extra_state() if stopping is not None else None)


def _refuse_contradictions(state: MethodState, params: Params) -> None:
    """Refuse parameters that contradict what the state was pretrained with: they would be ignored."""
    asked, today = params.ssl.method, Today.of(params)
    problems = contradictions(model_facts(state.extractor.config, "the state that is adapted"), today)
    if asked != state.method:
        remedy = f"Set ssl.method={state.method}, or pretrain anew."
        problems.append(Problem("ssl.method", asked, f"{state.method}, as the release was pretrained", remedy))
    raise_if_any(ConfigError, "The parameters contradict the source release that adaptation continues from.", problems)
    for network in (state.learner, state.extractor):
        # states from before 0017 do not say what their DINO head sees: the parameters are all that is known
        network.config.setdefault("pool", params.extractor.pool)
