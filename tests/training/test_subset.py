"""The paper's subset: which fields learn, and that a label chooses images and reaches no weight by its value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coda.adaptation.base import FrozenHead
from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import PairingPolicy
from coda.benchmark.adapting import for_a_source
from coda.config import load_params
from coda.errors import ConfigError
from coda.networks.alignment import fit_statistics
from coda.networks.head import new_head
from coda.training.labels import LabelList
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.pairs import PairSampler
from coda.training.subset import chosen_fields

COMPOUNDS = ("compound_1", "compound_3")


@pytest.fixture(scope="module")
def mixed(fields):
    """Every fourth field a control that is named like a labelled compound."""
    kinds = np.where(np.arange(len(fields)) % 4 == 0, "negcon", "trt")
    return replace(fields, table=fields.table.assign(Metadata_pert_type=kinds))


def test_labelled_fields_are_those_that_the_head_learns_from(mixed):
    labels = LabelList({name: f"moa of {name}" for name in COMPOUNDS})
    mask = chosen_fields(mixed.table, "labelled", COMPOUNDS, key="pretrain.fields")
    assert mask.tolist() == (labels.codes(mixed.table) >= 0).tolist()
    assert 0 < mask.sum() < len(mixed)
    assert chosen_fields(mixed.table, "all", COMPOUNDS, key="pretrain.fields") is None


def test_anchors_and_partners_are_labelled_fields_alone(mixed, tiny):
    mask = chosen_fields(mixed.table, "labelled", COMPOUNDS, key="pretrain.fields")
    sampler = PairSampler(mixed.table, tiny("pairs.control_share=0.5").pairs, mask)
    seen = np.concatenate([sampler.batch(0, number, 8) for number in range(12)], axis=1)
    assert set(seen[0]) == set(np.flatnonzero(mask))
    compounds = mixed.table["Metadata_Compound"].to_numpy()
    assert set(compounds[seen[1]]) <= set(COMPOUNDS)


@pytest.mark.parametrize("compounds", [None, (), ("aspirin",)])
def test_without_labelled_fields_it_is_said_and_the_remedy_names_the_key(mixed, compounds):
    with pytest.raises(ConfigError) as error:
        chosen_fields(mixed.table, "labelled", compounds, key="adaptation.fields")
    assert "adaptation.fields=all" in error.value.problems[0].remedy


def heads_of(params, mechanisms):
    state = new_state(params, seed=0)
    head = new_head(params, state.teacher, ("a", "b"), "none", seed=0)
    compounds = frozenset(mechanisms)
    return {"none": FrozenHead(head, fit_statistics(torch.randn(8, 5, 16)), "0" * 64, (0.5, 0.5), compounds)}


def adapted(fields, params, heads):
    state = new_state(params, seed=0)
    adapt_extractor(state, fields, params, PairingPolicy("coda", "batch", 1.0, ""), seed=0, heads=heads)
    return state.state_dict()


def test_adaptation_learns_from_the_releases_compounds_and_their_mechanisms_change_nothing(mixed, tiny):
    params = tiny("adaptation.fields=labelled", "adaptation.budget.iterations=3", "adaptation.budget.batch_size=6")
    one = adapted(mixed, params, heads_of(params, dict.fromkeys(COMPOUNDS, "a")))
    other = adapted(mixed, params, heads_of(params, dict(zip(COMPOUNDS, "ba", strict=True))))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    # pixels of other compounds reach nothing
    unseen = ~mixed.table["Metadata_Compound"].isin(COMPOUNDS).to_numpy()
    images = mixed.images.copy()
    images[unseen] = 255 - images[unseen]
    inverted = adapted(replace(mixed, pool=images), params, heads_of(params, dict.fromkeys(COMPOUNDS, "a")))
    assert all(torch.equal(tensor, inverted[name]) for name, tensor in one.items())
    every = adapted(mixed, params.model_copy(update={"adaptation": tiny("adaptation.budget.iterations=3",
                    "adaptation.budget.batch_size=6").adaptation}), {})  # fmt: skip
    assert not all(torch.equal(tensor, every[name]) for name, tensor in one.items())


def test_pretraining_on_the_subset_sees_no_pixel_of_the_others(mixed, tiny):
    params = tiny("pretrain.iterations=3", "pretrain.fields=labelled")
    mask = chosen_fields(mixed.table, params.pretrain.fields, COMPOUNDS, key="pretrain.fields")
    images = mixed.images.copy()
    images[~mixed.table["Metadata_Compound"].isin(COMPOUNDS).to_numpy()] = 0
    states = []
    for pixels in (mixed.images, images):
        state = new_state(params, seed=0)
        train_dino(replace(mixed, pool=pixels), params, params.pretrain, state=state, seed=0, anchors=mask)
        states.append(state.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_paper_is_one_overlay(root):
    params = load_params(root / "params.yaml", [root / "params" / "paper.yaml"])
    # section 4: the network, its start, the budget, the crops
    assert (params.extractor.arch, params.extractor.weights, params.extractor.pool) == (
        "deit_small_patch16_224", "imagenet", "cls",
    )  # fmt: skip
    assert len(params.extractor.channels) == 3
    assert (params.crops.global_size, params.crops.locals_per_image, params.crops.eval_grid) == (224, 3, 1)
    assert params.ingest.scaling_factor == 0.5
    for budget in (params.pretrain, for_a_source(params).adaptation.budget):
        assert (budget.epochs, budget.iterations, budget.batch_size) == (300.0, None, 128)
        assert (budget.learning_rate, budget.warmup_epochs, budget.ema_start) == (1e-4, 10.0, 0.996)
    assert params.adaptation.budget.batch_size == 64, "plates and batches (section 5.1)"
    assert (params.pairs.by, params.pairs.control_share) == ("batch", 0.0)
    assert (params.split.by, params.split.validation_batches) == ("plate", 1)
    assert params.pretrain.fields == params.adaptation.fields == "labelled"
    # the head: 50 epochs that nothing ends, divided by 10 at saturation, on raw tokens
    assert (params.head.budget.epochs, params.head.budget.warmup_epochs, params.head.plateau_factor) == (50.0, 3.0, 0.1)
    assert params.head.budget.learning_rate_end == params.supervised.learning_rate_end == 0.0
    assert params.head.alignments == ("none",)
    # adaptation: all weights, a new optimizer, nothing beside the target, the last iteration serves
    adaptation = params.adaptation
    assert (adaptation.trainable, adaptation.dino_head, adaptation.carry_optimizer) == ("all", "trained", False)
    assert (adaptation.archive_batches, adaptation.stopping.criterion) == (0, "none")
    assert adaptation.anchor.weights == adaptation.anchor.features == adaptation.diversity.strength == 0.0
    assert not adaptation.carry_centre
    assert adaptation.candidates == ("unadapted", "coda")
    assert params.compute.precision == "float32"


def test_a_whole_source_has_a_batch_size_of_its_own_only_where_one_is_given(root):
    usual = load_params(root / "params.yaml")
    assert for_a_source(usual) == usual
    assert for_a_source(usual).adaptation.budget.batch_size == 64
