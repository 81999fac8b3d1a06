"""The models of a calibration: a source release, adaptations of it good and doubtful, and deliberately broken ones."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coda.adaptation.base import Base, FrozenHead
from coda.adaptation.hooks import new_hooks
from coda.adaptation.pairing_policy import PairingPolicy, choose_pairing
from coda.benchmark.source_models import frozen_heads
from coda.config.params import Params
from coda.contracts.recipe import HeadAlignment
from coda.networks.artifact import folder_digest
from coda.networks.extractor import Extractor, load_extractor, untrained_extractor
from coda.plates.fieldset import FieldSet
from coda.training.hooks import Hooks
from coda.training.methods.base import SslTask
from coda.training.methods.registry import load_state, method_of
from coda.training.pairs import PairSampler
from coda.training.randomness import derived_seed
from coda.training.schedules import length_of

LOOKS = 3
"""Checkpoints of a CODA run that become models of their own: after a third, two thirds and all of its iterations."""

TOO_FAST = 10.0
"""Factor on the learning rate of an over-trained model, whose DINO head is not frozen either."""

AS_THEY_ARE = "as they are"
SHUFFLED_MAP = "shuffled plate map"
WRONG_STAINS = "wrong stain order"
WRONG_HEAD = "wrong head"
UNTRAINED = "untrained"
OTHER_LABORATORY = "other laboratory"
BROKEN = (
    "over-trained", "collapsed", "shuffled pairs", WRONG_STAINS, SHUFFLED_MAP, WRONG_HEAD, UNTRAINED, OTHER_LABORATORY,
)  # fmt: skip
"""Deliberately broken ways of adapting."""


@dataclass(frozen=True)
class Strangers:
    """What belongs to another source than the release: material for mistakes.

    Attributes:
        heads: Heads that were trained on another extractor, by alignment.
        fields: Plates of a laboratory that is neither the source's nor the target's; None where there are none.
    """

    heads: Mapping[HeadAlignment, FrozenHead]
    fields: FieldSet | None


@dataclass(frozen=True)
class Model:
    """One extractor of a calibration.

    Attributes:
        name: 'unadapted', 'coda@16', 'coda', 'oda', or a name of `BROKEN`; distinct within a view.
        extractor: What serves.
        fields: The fields as it is served them.
        view: What is wrong with those fields: `AS_THEY_ARE`, `WRONG_STAINS` or `SHUFFLED_MAP`.
        adapted: Whether it was adapted at all.
        broken: Whether it is deliberately broken.
        alarms: Alarms of its training.
        heads: Heads that it is served with; those of the source release where None.
    """

    name: str
    extractor: Extractor
    fields: FieldSet
    view: str = AS_THEY_ARE
    adapted: bool = True
    broken: bool = False
    alarms: tuple[str, ...] = ()
    heads: Mapping[HeadAlignment, FrozenHead] | None = None


@dataclass
class Snapshots:
    """Keeps copies of the teacher as it learns; early stopping that never ends the run (`coda.training.hooks`)."""

    every: int
    kept: dict[int, Extractor] = field(default_factory=dict)

    def evaluate(self, iteration: int, teacher: Extractor) -> dict[str, float]:
        """Keep a copy of the teacher."""
        self.kept[iteration] = deepcopy(teacher)
        return {}

    def should_stop(self) -> bool:
        """Never."""
        return False

    def best(self) -> None:
        """Leave the last weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: calibrations keep no checkpoints."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def get_extra_state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def set_extra_state(self, records: Mapping[str, Any]) -> None:
        """Do nothing."""


def load_base(folder: Path) -> Base:
    """Return the source release of a training job (`coda.benchmark.source_models.Training`, model 'cb')."""
    return Base(
        load_extractor(folder / "extractor"),
        folder_digest(folder / "extractor"),
        load_state(folder / "state"),
        frozen_heads(folder),
    )


def models(
    base: Base, fields: FieldSet, params: Params, strangers: Strangers, *, seed: int, checkpoints: bool = True
) -> Iterator[Model]:
    """Make every model of one target, one after another.

    Args:
        base: The source release; its state is copied, never changed.
        fields: Unlabelled fields of the target.
        params: Parameters; `adaptation` is what is calibrated for.
        strangers: Heads and plates of other sources.
        seed: Of every training and permutation.
        checkpoints: Whether checkpoints of the adaptation with pairs are models of their own.
    """
    yield Model("unadapted", base.extractor, fields, adapted=False)
    yield _collapsed(base, fields)
    pairing = choose_pairing(fields.table, min_pairable_share=params.adaptation.min_pairable_share)
    iterations = _iterations(fields, params, pairing)
    snapshots = Snapshots(max(1, iterations // LOOKS) if checkpoints else iterations)
    trained = _adapt(base, fields, params, pairing, seed, snapshots)
    for iteration, extractor in sorted(snapshots.kept.items()):
        if iteration < iterations:
            yield Model(f"{pairing.method}@{iteration}", extractor, fields, alarms=trained.alarms)
    yield Model(pairing.method, trained.extractor, fields, alarms=trained.alarms)
    yield Model(WRONG_HEAD, trained.extractor, fields, broken=True, alarms=trained.alarms, heads=strangers.heads)
    yield Model(UNTRAINED, untrained_extractor(base.extractor.config, seed=seed), fields, broken=True)
    if strangers.fields is not None:
        elsewhere = choose_pairing(strangers.fields.table, min_pairable_share=params.adaptation.min_pairable_share)
        found = _adapt(base, strangers.fields, params, elsewhere, seed)
        yield Model(OTHER_LABORATORY, found.extractor, fields, broken=True, alarms=found.alarms)
    if pairing.method == "coda":
        single = PairingPolicy("oda", "none", pairing.pairable_share, "for comparison")
        yield _model("oda", base, fields, params, single, seed)
    yield _model("over-trained", base, fields, _overdone(params), pairing, seed)
    shuffled = FieldSet(fields.images, shuffled_map(fields.table, seed=seed), fields.channels)
    paired = _adapt(base, shuffled, params, pairing, seed)
    # two mistakes, one training: the map is wrong for adaptation only, or for whoever judges as well
    yield Model("shuffled pairs", paired.extractor, fields, broken=True, alarms=paired.alarms)
    yield Model("unadapted", base.extractor, shuffled, SHUFFLED_MAP, adapted=False)
    yield Model(SHUFFLED_MAP, paired.extractor, shuffled, SHUFFLED_MAP, broken=True, alarms=paired.alarms)
    permuted = FieldSet(np.roll(fields.images, 1, axis=1), fields.table, fields.channels)
    yield Model("unadapted", base.extractor, permuted, WRONG_STAINS, adapted=False)
    yield _model(WRONG_STAINS, base, permuted, params, pairing, seed, view=WRONG_STAINS)


def shuffled_map(table: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the field index with the treatments of each plate permuted among its compound wells.

    Fields of one well stay together; controls stay where they are.
    """
    names = ["Metadata_Treatment", "Metadata_Compound", "Metadata_Dose_uM"]
    kept = [name for name in names if name in table]
    result = table.copy()
    rng = np.random.default_rng(derived_seed(seed, "shuffled map", 0))
    plates = table["Metadata_Source"] + "/" + table["Metadata_Batch"] + "/" + table["Metadata_Plate"]
    for plate in sorted(set(plates)):
        rows = ((plates == plate) & (table["Metadata_pert_type"] == "trt")).to_numpy()
        wells = table.loc[rows].drop_duplicates("Metadata_Well").set_index("Metadata_Well")[kept]
        moved = wells.iloc[rng.permutation(len(wells))].set_axis(wells.index)
        result.loc[rows, kept] = moved.loc[table.loc[rows, "Metadata_Well"]].to_numpy()
    return result


@dataclass(frozen=True)
class _Trained:
    extractor: Extractor
    alarms: tuple[str, ...]


def _adapt(
    base: Base, fields: FieldSet, params: Params, pairing: PairingPolicy, seed: int, snapshots: Snapshots | None = None
) -> _Trained:
    state = deepcopy(base.state)
    hooks, _ = new_hooks(state, fields, params, base.heads, seed=seed)
    task = SslTask(
        fields, "adapt", params.pairs.model_copy(update={"by": pairing.by}), seed,
        hooks=Hooks(hooks.trainable, hooks.regularizers, snapshots or hooks.early_stopping),
    )  # fmt: skip
    result = method_of(state.method).train(state, params, task)
    return _Trained(state.extractor, tuple(f"While training: {alarm}." for alarm in result.alarms))


def _model(
    name: str,
    base: Base,
    fields: FieldSet,
    params: Params,
    pairing: PairingPolicy,
    seed: int,
    *,
    view: str = AS_THEY_ARE,
) -> Model:
    trained = _adapt(base, fields, params, pairing, seed)
    return Model(name, trained.extractor, fields, view, broken=name in BROKEN, alarms=trained.alarms)


def _iterations(fields: FieldSet, params: Params, pairing: PairingPolicy) -> int:
    sampler = PairSampler(fields.table, params.pairs.model_copy(update={"by": pairing.by}))
    return length_of(params.adaptation.budget, sampler.fields_per_epoch).iterations


def _overdone(params: Params) -> Params:
    adaptation = params.adaptation
    budget = adaptation.budget.model_copy(update={"learning_rate": TOO_FAST * adaptation.budget.learning_rate})
    changed = adaptation.model_copy(update={"budget": budget, "dino_head": "trained"})
    return params.model_copy(update={"adaptation": changed})


def _collapsed(base: Base, fields: FieldSet) -> Model:
    """Return an extractor to which all fields look alike: what a collapse of the training leaves at its end."""
    extractor = deepcopy(base.extractor)
    with torch.no_grad():
        extractor.vit.norm.weight.zero_()
    return Model("collapsed", extractor, fields, broken=True)
