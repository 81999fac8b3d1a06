"""Granularity of adaptation: one extractor for a plate, for a batch, or for the whole source (paper figure 4).

A plate or a batch is adapted to by itself and predicts either itself ("all plates", "all batches" of the figure: every
field is predicted by the extractor of its own subset) or the whole source ("single plate", "single batch": one subset
stands for the source). Cross-batch pairs do not exist within one batch: plates are paired there, or single images used.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.adaptation.pairing_policy import PairingPolicy, choose_pairing
from coda.config.params import DinoOptimizerConfig, Params
from coda.training.pairs import PairSampler
from coda.training.split import group_names

Granularity = Literal["plate", "batch", "source"]


@dataclass(frozen=True)
class Subset:
    """Fields that one extractor is adapted to, and fields that it predicts.

    Attributes:
        name: ``source``, ``source/batch`` or ``source/batch/plate``.
        adapt: Rows to adapt on, ascending.
        predict: Rows to predict with the adapted extractor, ascending: the same rows, or all of the source.
    """

    name: str
    adapt: NDArray[np.intp]
    predict: NDArray[np.intp]


def subsets(table: pd.DataFrame, by: Granularity, apply: Literal["own", "all"] = "own") -> list[Subset]:
    """Split the fields of target sources into the subsets that one extractor each is adapted to.

    Args:
        table: Rows of the field index.
        by: What a subset is.
        apply: 'own': each extractor predicts its own subset, together every field once. 'all': each extractor predicts
            all fields of its source, so that every subset gives one answer for every field.

    Returns:
        One for each plate, batch or source, sorted by name; a whole source predicts itself either way.
    """
    sources = table["Metadata_Source"].to_numpy(str)
    names = sources if by == "source" else group_names(table, by)
    found = []
    for name in np.unique(names):
        adapt: NDArray[np.intp] = np.flatnonzero(names == name)
        whole: NDArray[np.intp] = np.flatnonzero(sources == sources[adapt[0]])
        found.append(Subset(str(name), adapt, adapt if apply == "own" else whole))
    return found


def with_equal_iterations(
    params: Params, whole: pd.DataFrame, part: pd.DataFrame, pairing: PairingPolicy | None = None
) -> Params:
    """Return parameters with which a part of a source is adapted to for as many iterations as the whole of it.

    A number of epochs means fewer iterations on fewer fields; the paper compares granularities at an equal number of
    iterations. Everything else that is given in epochs (warm-ups, the frozen last layer) is scaled likewise, so that
    the schedules are the same iteration by iteration.

    Args:
        params: Parameters of the adaptation to the whole source.
        whole: Rows of the field index of the source.
        part: Rows of the subset.
        pairing: Pairs to train with; what the pairing policy chooses for each of the two tables when not given.

    Returns:
        The parameters, with ``adaptation.budget.iterations`` set and epochs as epochs of the part.
    """
    every, some = (_fields_per_epoch(table, params, pairing) for table in (whole, part))
    budget, scale = params.adaptation.budget, every / some
    iterations = budget.iterations
    if iterations is None:
        iterations = max(1, round((budget.epochs or 0) * every / budget.batch_size))
    epochs = ("warmup_epochs", "teacher_temperature_warmup_epochs", "freeze_last_layer_epochs")
    changed = {"iterations": iterations, "epochs": None} | {name: getattr(budget, name) * scale for name in epochs}
    longer = DinoOptimizerConfig.model_validate({**budget.model_dump(), **changed})
    return params.model_copy(update={"adaptation": params.adaptation.model_copy(update={"budget": longer})})


def _fields_per_epoch(table: pd.DataFrame, params: Params, pairing: PairingPolicy | None) -> int:
    chosen = pairing or choose_pairing(table, min_pairable_share=params.adaptation.min_pairable_share)
    return PairSampler(table, params.pairs.model_copy(update={"by": chosen.by})).fields_per_epoch
