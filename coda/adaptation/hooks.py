"""What the options of adaptation hang into a step: what learns, regularizers, early stopping (docs/adaptation.md)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coda.adaptation.base import FrozenHead
from coda.adaptation.early_stopping import LabelFreeEarlyStopping
from coda.adaptation.serving import Way
from coda.config.params import Params
from coda.contracts.recipe import HeadAlignment
from coda.errors import ConfigError, Problem, raise_if_any
from coda.networks.extractor import set_attention
from coda.networks.runtime import resolve_runtime
from coda.plates.stored import Fields
from coda.training.hooks import Hooks, Regularizer, TrainableSubset
from coda.training.methods.base import MethodState
from coda.training.regularizers import L2SP, MarginalKL, MomentMatching
from coda.training.trainable import new_trainable

Heads = Mapping[HeadAlignment, FrozenHead]

OPTIONS = {
    "trainable", "trainable_blocks", "low_rank_rank", "low_rank_scale", "anchor", "diversity", "stopping",
}  # fmt: skip
"""Parameters of adaptation that belong to an experiment's name, beside those that a method's training names itself."""


def new_hooks(
    state: MethodState, fields: Fields, params: Params, heads: Heads, *, seed: int
) -> tuple[Hooks, dict[str, Any]]:
    """Build what the options ask for, before the first iteration.

    Args:
        state: State of the source release; moved to the device of ``params.compute``.
        fields: Fields that are adapted to.
        params: `adaptation` and compute; for early stopping crops and `alignment` too.
        heads: Frozen heads of the release; read where an option needs one.
        seed: Seed of low-rank matrices.

    Returns:
        The hooks, and their description as JSON for the name of the experiment that checkpoints belong to.

    Raises:
        ConfigError: An option needs a head or a prior that the release lacks, or does not fit the extractor.
    """
    _require(params, heads)
    state.to(resolve_runtime(params.compute).device)
    trainable = new_trainable(state.learner, params.adaptation, seed=seed)
    regularizers = _regularizers(state, params, heads, trainable)
    hooks = Hooks(trainable, regularizers, _early_stopping(state, fields, params, heads))
    options = params.adaptation.model_dump(mode="json", include=OPTIONS)
    if params.adaptation.stopping.every:
        # early stopping serves fields as a candidate would
        options["alignment"] = params.alignment.model_dump(mode="json")
    used = {name: heads[name].digest for name in sorted(_needed(params, heads))}
    return hooks, {"options": options, "heads": used}


def class_prior(frozen: FrozenHead, prior: str) -> Tensor:
    """Return the expected share of each class of a head, float32, sum 1.

    Args:
        frozen: The head, with its release's shares.
        prior: 'uniform', or 'compounds' for the release's shares.
    """
    classes = len(frozen.head.classes)
    shares = frozen.prior if prior == "compounds" and frozen.prior else (1.0,) * classes
    expected = torch.tensor(shares, dtype=torch.float32)
    return expected / expected.sum()


def _regularizers(state: MethodState, params: Params, heads: Heads, trainable: TrainableSubset) -> list[Regularizer]:
    adaptation, runtime = params.adaptation, resolve_runtime(params.compute)
    terms: list[Regularizer] = []
    if adaptation.anchor.weights:
        released = state.extractor.state_dict()
        terms.append(L2SP(state.learner, trainable, released, strength=adaptation.anchor.weights))
    if adaptation.anchor.features:
        # the raw tokens' moments are the same beside every head of a release
        terms.append(MomentMatching(next(iter(heads.values())).source, strength=adaptation.anchor.features))
    diversity = adaptation.diversity
    if diversity.strength:
        frozen = heads[diversity.head]
        set_attention(frozen.head, runtime.attention)
        terms.append(
            MarginalKL(
                frozen.head, class_prior(frozen, diversity.prior),
                standardise=diversity.head == "standardise", strength=diversity.strength,
                separate=frozen.source.separate, runtime=runtime,
            )
        )  # fmt: skip
    return terms


def _early_stopping(state: MethodState, fields: Fields, params: Params, heads: Heads) -> LabelFreeEarlyStopping | None:
    stopping = params.adaptation.stopping
    if not stopping.every:
        return None
    frozen = heads[_evaluated_through(stopping.alignment)]
    way = Way("watch", stopping.alignment, frozen.head, frozen.source)
    return LabelFreeEarlyStopping(state.extractor, way, fields, params)


def _evaluated_through(alignment: str) -> HeadAlignment:
    return "standardise" if alignment == "standardise" else "none"


def _needed(params: Params, heads: Heads) -> set[HeadAlignment]:
    adaptation, needed = params.adaptation, set[HeadAlignment]()
    if adaptation.diversity.strength:
        needed.add(adaptation.diversity.head)
    if adaptation.stopping.every:
        needed.add(_evaluated_through(adaptation.stopping.alignment))
    if adaptation.anchor.features:
        needed.add(next(iter(heads), "none"))
    return needed


def _require(params: Params, heads: Heads) -> None:
    problems = [
        Problem(
            "adaptation",
            f"heads for {', '.join(heads) or 'nothing'} in the release",
            f"a head trained with alignment {name!r}",
            "Switch off the option (docs/adaptation.md), or train the source with that head.alignments.",
        )
        for name in sorted(_needed(params, heads))
        if name not in heads
    ]
    diversity = params.adaptation.diversity
    if diversity.strength and diversity.prior == "compounds" and diversity.head in heads:
        shares = heads[diversity.head].prior
        if shares is None or len(shares) != len(heads[diversity.head].head.classes):
            found, remedy = "a release without a list of labelled compounds", "Set adaptation.diversity.prior=uniform."
            problems.append(Problem("adaptation.diversity.prior", found, "the share of each mechanism", remedy))
    raise_if_any(ConfigError, "The source release lacks what an option of adaptation needs.", problems)
