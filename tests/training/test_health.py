"""Collapse is seen; a sound state is not called one."""

import math

import numpy as np
import pytest
import torch
import yaml

from coda.evaluation.metrics.field_spread import feature_spread as in_the_gate
from coda.networks.spread import LIMIT
from coda.training.health import measure_health, spread_alarms, spread_of


def test_uniform_teacher_raises_the_alarm():
    q = torch.full((2, 8, 64), 1 / 64)
    health = measure_health(math.log(64), q, torch.randn(16, 32))
    assert health.loss_share == 1
    assert abs(health.teacher_entropy - 1) < 1e-5
    assert any("uniform" in alarm for alarm in health.alarms())


def test_one_prototype_for_all_raises_the_alarm():
    q = torch.zeros(2, 8, 64)
    q[..., 3] = 1
    assert any("one prototype" in alarm for alarm in measure_health(0.1, q, torch.randn(16, 32)).alarms())


def test_equal_features_raise_the_alarm():
    q = torch.eye(16).view(2, 8, 16)
    features = torch.ones(16, 32) + 1e-4 * torch.randn(16, 32)
    assert any("same for all" in alarm for alarm in measure_health(1.0, q, features).alarms())


def test_sharp_and_spread_is_healthy():
    q = torch.eye(16).view(2, 8, 16)
    health = measure_health(1.0, q, torch.randn(4096, 32, generator=torch.Generator().manual_seed(0)))
    assert health.alarms() == ()
    assert abs(health.feature_spread - 1) < 0.05
    assert abs(health.mean_entropy - 1) < 1e-5


@pytest.mark.parametrize("common", [0.0, 5.0, 10.0])
def test_training_and_gate_have_one_spread(common):
    """Against the formula: directions around the mean, and less where images differ by under 5 % of their length."""
    features = torch.randn(64, 48, generator=torch.Generator().manual_seed(1)) + common
    for scale in (1.0, 0.1, 1e-2, 1e-3):
        x = (common + scale * (features - common)).double().numpy()
        around = x - x.mean(0)
        unit = around / np.linalg.norm(around, axis=1, keepdims=True)
        share = np.linalg.norm(around, axis=1).mean() / np.linalg.norm(x, axis=1).mean()
        expected = unit.std(0).mean() * np.sqrt(48) * min(1.0, share / 0.05)
        assert spread_of(torch.from_numpy(x)) == pytest.approx(expected, abs=1e-4)
        assert in_the_gate(x).value == pytest.approx(expected, abs=1e-9)


def test_rounding_noise_of_a_collapsed_network_is_no_spread_and_a_large_common_part_is_no_collapse():
    g = torch.Generator().manual_seed(2)
    constant = torch.randn(1, 96, generator=g).expand(256, 96)
    noise = 1 + torch.rand(256, 96, generator=g) * 2**-8
    collapsed = (constant * noise).bfloat16().float()
    assert len(collapsed.unique(dim=0)) > 1
    assert in_the_gate(collapsed.numpy()).value < LIMIT
    assert spread_alarms(spread_of(collapsed), "teacher")
    # images that share nine tenths of what is seen of them are told apart all the same
    healthy = constant + 0.3 * torch.randn(256, 96, generator=g)
    assert in_the_gate(healthy.numpy()).value > 0.9
    assert not spread_alarms(spread_of(healthy), "teacher")


def test_the_policies_of_the_gate_have_the_limit_of_training(root):
    for path in sorted((root / "coda" / "config" / "policies").glob("*.yaml")):
        assert yaml.safe_load(path.read_text())["health"]["min_feature_spread"] == LIMIT, path.name
