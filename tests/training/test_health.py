"""Collapse is seen; a sound state is not called one."""

import math

import torch

from coda.training.health import measure_health


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
