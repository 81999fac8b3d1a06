"""The bootstrap over treatments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from coda.evaluation.metrics.bootstrap import interval, measured, paired_gain

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


def test_interval_is_close_to_scipys() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.3, 40)
    low, high = interval(values, samples=4000, seed=1)
    other = scipy_bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2))
    assert (low, high) == pytest.approx(tuple(other.confidence_interval), abs=0.01)


def test_pairing_removes_what_both_share() -> None:
    hard = {f"t{k}": float(v) for k, v in enumerate(np.random.default_rng(0).normal(0, 5, 20))}
    better = {name: value + 0.1 for name, value in hard.items()}
    gain = paired_gain(better, hard, samples=200, seed=0)
    assert gain is not None
    assert (gain.low, gain.value, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert gain.n == 20


def test_only_common_treatments_count_and_none_is_no_measure() -> None:
    gain = paired_gain({"a": 1.0, "b": 9.0}, {"a": 0.5, "c": 9.0}, samples=50, seed=0)
    assert gain is not None
    assert (gain.value, gain.n) == (0.5, 1)
    assert paired_gain({"a": 1.0}, {"b": 1.0}, samples=50, seed=0) is None
    assert measured({}, samples=50, seed=0) is None


@given(VALUES, st.data())
@settings(max_examples=40, deadline=None)
def test_interval_never_falls_when_a_value_rises(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values) - 1))
    raised = np.array(values)
    raised[k] += data.draw(st.floats(0, 2))
    before = interval(np.array(values), samples=100, seed=3)
    after = interval(raised, samples=100, seed=3)
    assert after[0] >= before[0] - 1e-12
    assert after[1] >= before[1] - 1e-12


def test_order_of_treatments_does_not_matter() -> None:
    values = {f"t{k}": k / 10 for k in range(9)}
    reverse = dict(reversed(values.items()))
    assert measured(values, samples=100, seed=0) == measured(reverse, samples=100, seed=0)
