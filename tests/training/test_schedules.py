"""Schedules against their closed forms, written out with numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.training import schedules


@pytest.fixture
def length():
    return schedules.Length(iterations=100, iterations_per_epoch=5.0)


@pytest.fixture
def budget(tiny):
    changes = ("warmup_epochs=2", "learning_rate=1.0", "learning_rate_end=0.1", "weight_decay_start=0.2")
    return tiny(*(f"pretrain.{change}" for change in changes), "pretrain.weight_decay_end=0.6").pretrain


def test_learning_rate_warms_up_linearly_and_then_follows_half_a_cosine(length, budget):
    rates = [schedules.learning_rate(i, length, budget) for i in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == 1.0  # the released code overshoots by one step
    for i in range(10, 101):
        assert rates[i] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * (i - 10) / 90)))
    assert rates[100] == pytest.approx(0.1)


def test_weight_decay_and_momentum_are_half_cosines(length, budget, tiny):
    teacher = tiny("pretrain.ema_start=0.9").pretrain
    for i in (0, 17, 50, 100):
        share = (1 + math.cos(math.pi * i / 100)) / 2
        assert schedules.weight_decay(i, length, budget) == pytest.approx(0.6 - 0.4 * share)
        assert schedules.teacher_momentum(i, length, teacher) == pytest.approx(1 - 0.1 * share)


def test_teacher_temperature_is_linear_then_constant(length, tiny):
    budget = tiny(
        "pretrain.teacher_temperature=0.07", "pretrain.teacher_temperature_start=0.04",
        "pretrain.teacher_temperature_warmup_epochs=4",
    ).pretrain  # fmt: skip
    found = [schedules.teacher_temperature(i, length, budget) for i in (0, 10, 20, 99)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_last_layer_is_frozen_for_its_epochs(length, tiny):
    budget = tiny("pretrain.freeze_last_layer_epochs=1").pretrain
    assert [schedules.last_layer_is_frozen(i, length, budget) for i in (0, 4, 5)] == [True, True, False]


def test_epochs_are_converted_by_fields_and_batch(tiny):
    budget = tiny("pretrain.epochs=3", "pretrain.iterations=null", "pretrain.batch_size=8").pretrain
    length = schedules.length_of(budget, 100)
    assert length.iterations == round(3 * 100 / 8)
    assert length.of_epochs(2) == 25


@given(st.integers(1, 500), st.floats(0.1, 20))
def test_rates_stay_within_their_ends_for_any_length(iterations, per_epoch):
    length = schedules.Length(iterations, per_epoch)
    budget = schedules.OptimizerConfig(
        epochs=None, iterations=iterations, batch_size=4, learning_rate=1e-3, learning_rate_end=1e-5, warmup_epochs=3.0,
        weight_decay_start=0.0, weight_decay_end=0.1, clip_norm=1.0, checkpoint_every=10,
    )  # fmt: skip
    for i in range(iterations):
        assert 0 < schedules.learning_rate(i, length, budget) <= 1e-3
