"""The sign-flip test: against its definition by loops, against exact cases, and its error where nothing is gained."""

import math
import statistics
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coda.evaluation.metrics.sign_flips import family_wise_p

VALUES = st.lists(st.floats(-1, 1), min_size=1, max_size=7)


def named(values: list[float]) -> dict[str, float]:
    return {f"t{k:02d}": float(value) for k, value in enumerate(values)}


def by_definition(gains: dict[str, dict[str, float]]) -> dict[str, float]:
    """Loops over all patterns of signs, all pairs and all treatments."""
    names = sorted({name for values in gains.values() for name in values})
    means = {pair: sum(values.values()) / len(values) for pair, values in gains.items()}
    beaten, patterns = dict.fromkeys(gains, 0), 0
    worst = {
        pair: means[pair]
        if means[pair] < -statistics.pstdev(values.values()) * (2 * math.log(math.log(max(3, len(values))))
                                                                / max(3, len(values))) ** 0.5
        else 0.0
        for pair, values in gains.items()
    }  # fmt: skip
    for signs in product((1, -1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        largest = max(
            worst[pair] + sum(sign[n] * (v - min(means[pair], 0)) for n, v in values.items()) / len(values)
            for pair, values in gains.items()
        )
        patterns += 1
        for pair, mean in means.items():
            beaten[pair] += largest >= mean - 1e-12
    return {pair: count / patterns for pair, count in beaten.items()}


@given(st.lists(VALUES, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_as_defined(columns: list[list[float]]) -> None:
    gains = {f"c{k}": named(values) for k, values in enumerate(columns)}
    assert family_wise_p(gains, seed=0) == pytest.approx(by_definition(gains))


def test_all_of_six_that_gain_are_one_pattern_in_64_however_many_candidates() -> None:
    rng = np.random.default_rng(0)
    gains = {f"c{k}": named(rng.uniform(0.1, 0.3, 6).tolist()) for k in range(6)}
    best = max(gains, key=lambda pair: sum(gains[pair].values()))
    assert family_wise_p(gains, seed=0)[best] == pytest.approx(1 / 64)


@given(VALUES, VALUES, st.integers(0, 6), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_higher_gain_never_raises_its_own_p(own: list[float], other: list[float], which: int, rise: float) -> None:
    assume(sum(own) > 0)
    raised = list(own)
    raised[which % len(own)] += rise
    before = family_wise_p({"own": named(own), "other": named(other)}, seed=0)["own"]
    after = family_wise_p({"own": named(raised), "other": named(other)}, seed=0)["own"]
    assert after <= before + 1e-12


@given(VALUES, VALUES, st.floats(0, 10))
@settings(max_examples=60, deadline=None)
def test_a_candidate_that_loses_more_never_hides_another_one(own: list[float], loser: list[float], far: float) -> None:
    """A broken candidate made every gain beside it look like chance, the more so the worse it was."""
    lost = [value - max(loser) for value in loser]
    worse = [value - far for value in lost]
    p = [family_wise_p({"own": named(own), "other": named(values)}, seed=0)["own"] for values in (lost, worse)]
    assert p[1] <= p[0] + 1e-9


def test_a_gain_of_six_is_found_beside_a_broken_candidate() -> None:
    gains = {"good": named([0.04, 0.05, 0.06, 0.05, 0.04, 0.06]), "broken": named([-0.3] * 6)}
    assert family_wise_p(gains, seed=0)["good"] == pytest.approx(1 / 64)


def test_nothing_to_compare_is_never_a_gain() -> None:
    assert family_wise_p({"a": {}}, seed=0) == {"a": 1.0}
    found = family_wise_p({"a": {}, "b": named([0.2] * 8)}, seed=0)
    assert found["a"] == 1.0
    assert found["b"] == pytest.approx(1 / 256)
    assert family_wise_p({"b": named([0.0] * 8)}, seed=0)["b"] == 1.0


def test_drawn_patterns_are_repeatable_and_near_the_exact_share() -> None:
    values = named(np.random.default_rng(1).normal(0.05, 0.2, 13).tolist())
    found = family_wise_p({"a": values}, seed=3)["a"]
    assert found == family_wise_p({"a": values}, seed=3)["a"]
    assert found == pytest.approx(by_definition({"a": values})["a"], abs=0.02)


@pytest.mark.parametrize("broken", [0, 3])
@pytest.mark.parametrize("treatments", [6, 12, 24])
def test_false_gains_over_all_candidates_are_as_rare_as_asked(treatments: int, broken: int) -> None:
    """Five candidates whose gains are correlated as those of one extractor are: none gains anything, some lose much."""
    rng, found = np.random.default_rng(100 + treatments), 0
    sets = 400
    for _ in range(sets):
        shared = rng.normal(0, 0.15, treatments)
        means = [-0.15 * (k < broken) for k in range(5)]
        gains = {f"c{k}": named((means[k] + shared + rng.normal(0, 0.1, treatments)).tolist()) for k in range(5)}
        found += min(family_wise_p(gains, seed=0).values()) <= 0.05
    # 5 % and three deviations of 400 sets
    assert found / sets <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
