"""Which weights learn: only the named ones change, to the bit, and low-rank changes are what the formula says."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import Params
from coda.errors import ConfigError
from coda.networks.extractor import Extractor
from coda.plates.fieldset import FieldSet
from coda.training.hooks import Hooks
from coda.training.low_rank import LowRank
from coda.training.methods.dino.state import DinoState, new_state
from coda.training.methods.dino.training import train_dino
from coda.training.trainable import new_trainable, trainable_names

DEEP = "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 3, num_heads: 2}"
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def block(number: int) -> set[str]:
    return {f"vit.blocks.{number}.{layer}.{kind}" for layer in BLOCK for kind in ("weight", "bias")}


STEM = {"vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias"}
FINAL = {"vit.norm.weight", "vit.norm.bias"}
NORMS = {
    f"vit.blocks.{n}.{norm}.{kind}" for n in range(3) for norm in ("norm1", "norm2") for kind in ("weight", "bias")
}
MATRICES = {f"vit.blocks.{n}.{layer}.weight" for n in range(3) for layer in BLOCK if "norm" not in layer}
EXPECTED = {
    ("all", 1): STEM | block(0) | block(1) | block(2) | FINAL,
    ("first_blocks", 1): STEM | block(0),
    ("first_blocks", 2): STEM | block(0) | block(1),
    ("last_blocks", 1): block(2) | FINAL,
    ("last_blocks", 3): block(0) | block(1) | block(2) | FINAL,
    ("norms", 1): NORMS | FINAL,
    ("low_rank", 1): MATRICES,
}


@pytest.fixture(scope="module")
def deep(tiny: Callable[..., Params]) -> Callable[..., Params]:
    def build(*changes: str) -> Params:
        return tiny(DEEP, "pretrain.iterations=3", "pretrain.learning_rate=0.01", "pretrain.ema_start=0.5", *changes)

    return build


def adapted(fields: FieldSet, params: Params, state: DinoState, dino_head: str = "trained") -> DinoState:
    part = new_trainable(state.student, params.adaptation, seed=3)
    train_dino(fields, params, params.pretrain, state=state, seed=1, hooks=Hooks(part), dino_head=dino_head)
    return state


@pytest.mark.parametrize(("trainable", "blocks"), list(EXPECTED))
def test_only_what_learns_changes_in_student_and_teacher(fields, deep, trainable, blocks):
    params = deep(f"adaptation.trainable={trainable}", f"adaptation.trainable_blocks={blocks}")
    before = new_state(params, seed=0)
    after = adapted(fields, params, deepcopy(before))
    expected = EXPECTED[trainable, blocks]
    for network in ("student", "teacher"):
        start, end = getattr(before, network).state_dict(), getattr(after, network).state_dict()
        assert {name for name in start if not torch.equal(start[name], end[name])} == expected, network
    assert all(parameter.requires_grad for parameter in after.student.parameters())


def test_every_weight_learns_as_without_a_part(fields, deep):
    params = deep()
    with_subset = adapted(fields, params, new_state(params, seed=0))
    plain = new_state(params, seed=0)
    train_dino(fields, params, params.pretrain, state=plain, seed=1)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, with_subset.state_dict()[name]), name


@pytest.mark.parametrize(
    ("dino_head", "changed"),
    [("trained", {"mlp", "last_layer"}), ("prototypes_frozen", {"mlp"}), ("frozen", set())],
)
def test_what_learns_of_the_dino_heads(fields, deep, dino_head, changed):
    params = deep()
    before = new_state(params, seed=0)
    after = adapted(fields, params, deepcopy(before), dino_head)
    for network in ("student_head", "teacher_head"):
        start, end = getattr(before, network).state_dict(), getattr(after, network).state_dict()
        assert {name.split(".")[0] for name in start if not torch.equal(start[name], end[name])} == changed


def test_too_many_blocks_or_too_high_a_rank_are_refused(deep):
    student = new_state(deep(), seed=0).student
    with pytest.raises(ConfigError, match="fewer blocks"):
        trainable_names(student, "first_blocks", 4)
    with pytest.raises(ConfigError, match="smaller than the rank"):
        LowRank(student, rank=17, scale=1.0, seed=0)


def chosen(names: set[str], student: Extractor) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in student.named_parameters() if name in names}


@settings(max_examples=15, deadline=None)
@given(rank=st.integers(1, 16), scale=st.floats(0.1, 4.0), seed=st.integers(0, 5))
def test_the_student_becomes_the_start_plus_a_product_of_the_rank(deep, rank, scale, seed):
    student = new_state(deep(), seed=0).student
    start, others = chosen(MATRICES, student), chosen(EXPECTED["all", 1] - MATRICES, student)
    part = LowRank(student, rank=rank, scale=scale, seed=seed)
    for name, weight in part.weights().items():
        assert torch.equal(weight, start[name]), "B is 0 at the start"
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    kept = part.state_dict()
    part.merge_()
    for name, weight in chosen(MATRICES, student).items():
        b, a = (kept[f"{side}.{name}"].double().numpy() for side in "ba")
        change = weight.double().numpy() - start[name].double().numpy()
        assert change == pytest.approx(scale * np.einsum("ir,rj->ij", b, a), abs=1e-4)
        assert np.linalg.matrix_rank(change, tol=1e-3 * np.linalg.norm(change)) <= rank
    assert all(torch.equal(value, others[name]) for name, value in chosen(set(others), student).items())


def test_gradients_reach_a_and_b_alone_and_what_they_change_is_what_the_student_computes(fields, deep):
    params = deep("adaptation.trainable=low_rank", "adaptation.low_rank_rank=2")
    state = new_state(params, seed=0)
    part = new_trainable(state.student, params.adaptation, seed=3)
    assert not any(parameter.requires_grad for parameter in state.student.parameters())
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1)
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    computed = torch.func.functional_call(state.student, dict(part.weights()), (images,))
    computed.square().sum().backward()
    assert all(parameter.grad is not None for parameter in part.parameters())
    assert all(parameter.grad is None for parameter in state.student.parameters())
    part.merge_()
    assert torch.allclose(state.student(images), computed, atol=1e-6)


def test_low_rank_goes_on_from_its_tensors(deep):
    params = deep("adaptation.trainable=low_rank")
    first, second = (new_state(params, seed=0).student for _ in range(2))
    part = new_trainable(first, params.adaptation, seed=3)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1)
    part.merge_()
    other = new_trainable(second, params.adaptation, seed=4)
    other.load_state_dict({name: tensor.clone() for name, tensor in part.state_dict().items()})
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
