"""Terms beside DINO's loss, against closed forms, scipy and autograd; the frozen head stays as it is."""

import hashlib

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coda.networks.alignment import fit_statistics, standardise
from coda.networks.head import new_head
from coda.training.methods.dino.state import new_state
from coda.training.regularizers import L2SP, MarginalKL, MomentMatching
from coda.training.trainable import new_trainable


def tokens(seed: int, *, batch: int = 6, width: int = 16) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn((batch, 5, width), generator=source) * 2 + torch.randn(width, generator=source)


def digest(module: nn.Module) -> str:
    return hashlib.sha256(safetensors.torch.save(module.state_dict())).hexdigest()


@pytest.mark.parametrize("trainable", ["all", "first_blocks", "norms"])
def test_the_weight_anchors_gradient_is_strength_times_the_distance(tiny, trainable):
    params = tiny(f"adaptation.trainable={trainable}")
    state = new_state(params, seed=0)
    part = new_trainable(state.student, params.adaptation, seed=1)
    released = {name: weight.clone() for name, weight in state.teacher.state_dict().items()}
    anchor = L2SP(state.student, part, released, strength=0.3)
    assert float(anchor(tokens(0)).detach()) == 0
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source))
    value = anchor(tokens(0))
    value.backward()
    total = 0.0
    for name, parameter in state.student.named_parameters():
        distance = (parameter.detach() - released[name]).double()
        total += float(distance.square().sum())
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad.double(), 0.3 * distance, atol=1e-6)
        else:
            assert parameter.grad is None
    assert float(value.detach()) == pytest.approx(0.15 * total, rel=1e-5)


def test_the_weight_anchor_reaches_low_rank_changes(tiny):
    params = tiny("adaptation.trainable=low_rank", "adaptation.low_rank_rank=2", "adaptation.low_rank_scale=3.0")
    state = new_state(params, seed=0)
    part = new_trainable(state.student, params.adaptation, seed=1)
    anchor = L2SP(state.student, part, state.teacher.state_dict(), strength=2.0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.2)
    own = {name: tensor.clone().requires_grad_() for name, tensor in part.state_dict().items()}
    expected = torch.zeros(())
    for name in part.weights():
        expected = expected + (3.0 * own[f"b.{name}"] @ own[f"a.{name}"]).square().sum()
    expected.backward()
    value = anchor(tokens(0))
    value.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    order = [name for name in own if name.startswith("a.")] + [name for name in own if name.startswith("b.")]
    for name, parameter in zip(order, part.parameters(), strict=True):
        assert torch.allclose(parameter.grad, own[name].grad, rtol=1e-3, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.floats(0.1, 5.0))
def test_the_feature_anchor_against_its_formula(seed, strength):
    source = fit_statistics(tokens(seed + 1))
    own = tokens(seed)
    flat = own.double().numpy().reshape(-1, 16)
    mean, sd = source.mean.double().numpy(), source.sd.double().numpy()
    expected = np.mean(((flat.mean(0) - mean) / sd) ** 2 + (np.log(flat.std(0)) - np.log(sd)) ** 2)
    value = MomentMatching(source, strength=strength)(own)
    assert float(value) == pytest.approx(strength * expected, rel=1e-3)


def test_the_feature_anchor_is_nothing_on_the_sources_own_tokens_and_a_step_down_its_gradient_brings_tokens_nearer():
    source = fit_statistics(tokens(1))
    anchor = MomentMatching(source, strength=1.0)
    assert float(anchor(tokens(1))) == pytest.approx(0, abs=1e-6)
    own = tokens(0).requires_grad_()
    before = anchor(own)
    before.backward()
    after = anchor(own.detach() - 2.0 * own.grad)
    assert float(after) < float(before.detach())


def test_a_dead_channel_has_a_finite_distance():
    own = tokens(0)
    own[..., 3] = 1.0
    own.requires_grad_()
    value = MomentMatching(fit_statistics(tokens(1)), strength=1.0)(own)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(own.grad).all()


@pytest.fixture(scope="module")
def frozen(tiny):
    params = tiny()
    extractor = new_state(params, seed=0).student
    return new_head(params, extractor, ("a", "b", "c"), "none", seed=4)


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("prior", [(1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2)])
def test_diversity_against_scipy(frozen, standardised, prior):
    own = tokens(5)
    term = MarginalKL(frozen, torch.tensor(prior), standardise=standardised, strength=0.7)
    read = standardise(own, fit_statistics(own)) if standardised else own
    assert fit_statistics(own).separate
    with torch.no_grad():
        mean = frozen(read).softmax(dim=-1).mean(dim=0).double().numpy()
    assert float(term(own)) == pytest.approx(0.7 * scipy.stats.entropy(mean, prior), abs=1e-5)


def test_diversity_reaches_the_tokens_and_never_the_head(frozen):
    before = digest(frozen)
    own = tokens(5).requires_grad_()
    term = MarginalKL(frozen, torch.full((3,), 1 / 3), standardise=False, strength=1.0)
    value = term(own)
    value.backward()
    assert own.grad.abs().sum() > 0
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in frozen.parameters())
    with torch.no_grad():
        assert float(term(own - 50 * own.grad)) < float(value.detach())
    assert digest(frozen) == before
