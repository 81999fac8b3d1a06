"""Which branches are left out is a function of seed and iteration, whoever computes which part of the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.networks.drop_path import DropPath, path_factors
from coda.networks.torchvision_shim import ensure_torchvision


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(
    processes=st.integers(1, 4),
    each=st.integers(1, 3),
    crops=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    rates=st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=1, max_size=4),
)
def test_parts_of_a_batch_put_together_are_the_whole(processes, each, crops, rates):
    batch = processes * each
    whole = path_factors(rates, crops, batch, slice(0, batch), source())
    parts = [path_factors(rates, crops, batch, slice(n * each, (n + 1) * each), source()) for n in range(processes)]
    for number, factors in enumerate(whole):
        own = [part[number].unflatten(1, (crops[number], each)) for part in parts]
        assert torch.equal(torch.cat(own, dim=2).flatten(1), factors)


def test_the_rate_is_kept_and_so_is_the_mean():
    (factors,) = path_factors([0.1, 0.75, 1.0], [2], 20_000, slice(0, 20_000), source())
    np.testing.assert_allclose((factors == 0).float().mean(dim=1), [0.1, 0.75, 1.0], atol=0.01)
    np.testing.assert_allclose(factors.mean(dim=1), [1.0, 1.0, 0.0], atol=0.02)
    assert not torch.equal(factors[0], path_factors([0.1], [2], 20_000, slice(0, 20_000), source(1))[0][0])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_layer_is_timms_with_the_same_draws(kind):
    ensure_torchvision()
    from timm.layers.drop import drop_path as timm_drop_path

    branch, layer = torch.randn(64, 5, 8, generator=source()).to(kind), DropPath(0.5)
    torch.manual_seed(3)
    expected = timm_drop_path(branch, 0.5, training=True)
    layer.factor = (expected[:, 0, 0] != 0).float() / 0.5
    assert torch.equal(layer(branch), expected)
    layer.factor = None
    with pytest.raises(ValueError, match="must be given its factors"):
        layer(branch)
    assert layer.eval()(branch) is branch
