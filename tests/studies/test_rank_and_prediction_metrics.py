"""Replicates, rank and predictions, of the studies: every metric against an independent way of computing it."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from copairs.replicating import CorrelationTestResult, corr_between_replicates
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, linregress

from studies.metrics.alpha_req import alpha_req
from studies.metrics.atc import confidence_threshold, predicted_accuracy
from studies.metrics.confidence_difference import accuracy_by_confidence
from studies.metrics.lidar import RIDGE, lidar
from studies.metrics.replicating import percent_replicating
from studies.metrics.retention import source_retention


def profiles(seed: int, *, signal: float = 1.0) -> tuple[np.ndarray, list[str], list[str]]:
    """Four wells of each of eight treatments in two batches."""
    rng = np.random.default_rng(seed)
    treatment, group = np.tile(np.arange(8), 4), np.repeat([0, 1], 16)
    x = rng.standard_normal((32, 10)) + signal * rng.standard_normal((8, 10))[treatment]
    return x, [f"t{k}" for k in treatment], [f"b{k}" for k in group]


@pytest.mark.parametrize("seed", range(4))
def test_percent_replicating_uses_copairs_medians_and_its_percentile_rule(seed):
    x, treatments, groups = profiles(seed)
    meta = pd.DataFrame({"treatment": treatments, "group": groups})
    correlations, _ = corr_between_replicates(x, meta, ["treatment"], ["group"], progress_bar=False)
    # drawn independently; in sets of four, as each treatment has four pairs (copairs counts rows instead, which is two)
    rng = np.random.default_rng(99)
    free = [
        np.corrcoef(x[i], x[j])[0, 1]
        for i, j in itertools.combinations(range(len(x)), 2)
        if treatments[i] != treatments[j] and groups[i] != groups[j]
    ]
    null = pd.Series(np.median(rng.choice(free, (4000, 4)), axis=1))
    assert (correlations["count"] == 4).all()
    result = CorrelationTestResult(correlations, null)
    score = percent_replicating(x, treatments, groups, seed=0)
    limit = result.percent_score_right()[1]
    clear = {name: value > limit for name, value in correlations["median"].items() if abs(value - limit) > 0.05}
    assert len(clear) >= 5
    assert {name: bool(score.by_treatment[name]) for name in clear} == clear
    assert score.value == pytest.approx(np.mean(list(score.by_treatment.values())))


def test_percent_replicating_is_five_per_cent_by_chance_and_all_with_a_clear_signal():
    chance = [percent_replicating(*profiles(seed, signal=0.0), seed=seed).value for seed in range(60)]
    assert 0.01 < np.mean(chance) < 0.10
    assert percent_replicating(*profiles(0, signal=9.0), seed=0).value == 1


@pytest.mark.parametrize("seed", range(3))
def test_alpha_req_equals_scipys_regression_on_eigenvalues(seed):
    x = np.random.default_rng(seed).standard_normal((40, 9)) * np.arange(1, 10) ** -1.5
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    slope = linregress(np.log(np.arange(1, 10)), np.log(values)).slope
    assert alpha_req(x).value == pytest.approx(-slope)


def test_alpha_req_finds_the_exponent_of_a_power_law():
    rows, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 12)))
    centred, _ = np.linalg.qr(rows - rows.mean(axis=0))
    assert alpha_req(centred * np.arange(1, 13) ** -0.75).value == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(3))
def test_lidar_equals_generalised_eigenvalues(seed):
    x, treatments, _ = profiles(seed)
    names = sorted(set(treatments))
    parts = [x[[treatment == name for treatment in treatments]] for name in names]
    within = np.mean([np.cov(part.T, bias=True) for part in parts], axis=0)
    between = np.cov(np.array([part.mean(axis=0) for part in parts]).T, bias=True)
    ridge = RIDGE * np.trace(within) / len(within)
    values = scipy.linalg.eigh(between, within + ridge * np.eye(len(within)), eigvals_only=True)
    kept = np.clip(values, 0, None)
    score = lidar(x, treatments)
    assert score.value == pytest.approx(np.exp(entropy(kept / kept.sum())), rel=1e-6)
    assert score.n == 8


@given(seed=st.integers(0, 500), scale=st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_lidar_does_not_depend_on_scale_or_rotation_and_counts_treatments(seed, scale):
    x, treatments, _ = profiles(seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((10, 10)))
    value = lidar(x, treatments).value
    assert lidar(scale * x @ turn, treatments).value == pytest.approx(value, rel=1e-6)
    assert 1 <= value <= 7


def test_lidar_ignores_directions_of_noise_that_rank_would_count():
    rng = np.random.default_rng(0)
    treatments = [f"t{k % 6}" for k in range(600)]
    signal = np.array([k % 6 for k in range(600)])[:, None] * 5.0
    x = np.hstack([signal + rng.standard_normal((600, 1)), rng.standard_normal((600, 19))])
    assert lidar(x, treatments).value < 1.2


@given(seed=st.integers(0, 1000), right=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_atc_gives_back_the_sources_own_accuracy_and_a_shares_of_a_target(seed, right):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), 50)
    truth = np.where(rng.random(50) < right, p.argmax(axis=1), (p.argmax(axis=1) + 1) % 4)
    threshold = confidence_threshold(p, truth)
    assert predicted_accuracy(p, threshold).value == pytest.approx((p.argmax(axis=1) == truth).mean())
    target = rng.dirichlet(np.full(4, 0.3), 30)
    assert predicted_accuracy(target, threshold).value == sum(row.max() >= threshold for row in target) / 30


@given(seed=st.integers(0, 1000), right=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_doc_gives_back_the_sources_own_accuracy_and_follows_confidence(seed, right):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), 50)
    truth = np.where(rng.random(50) < right, p.argmax(axis=1), (p.argmax(axis=1) + 1) % 4)
    own = (p.argmax(axis=1) == truth).mean()
    assert accuracy_by_confidence(p, p, truth).value == pytest.approx(own)
    duller = 0.5 * p + 0.125
    lost = p.max(axis=1).mean() - duller.max(axis=1).mean()
    assert accuracy_by_confidence(duller, p, truth).value == pytest.approx(max(own - lost, 0))
    some = rng.random(50) < 0.5
    unlabelled = np.where(some, truth, -1)
    if some.any():
        expected = accuracy_by_confidence(duller, p[some], truth[some]).value
        assert accuracy_by_confidence(duller, p, unlabelled).value == pytest.approx(expected)
    assert accuracy_by_confidence(p, p, np.full(50, -1)).n == 0


def test_atc_passes_over_fields_without_a_label():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]])
    assert confidence_threshold(p, np.array([0, 1, -1, 0])) == confidence_threshold(p[[0, 1, 3]], np.array([0, 1, 0]))
    assert np.isnan(confidence_threshold(p, np.full(4, -1)))
    assert predicted_accuracy(p, float("nan")).n == 0
    assert predicted_accuracy(p, confidence_threshold(p, 1 - p.argmax(axis=1))).value == 0


def test_retention_is_the_ratio_of_accuracies_on_labelled_fields():
    truth = np.array([0, 1, 1, -1, 0])
    before, after = np.eye(2)[[0, 1, 1, 0, 1]], np.eye(2)[[0, 0, 1, 0, 1]]
    score = source_retention(after, before, truth)
    assert score.value == pytest.approx((2 / 4) / (3 / 4))
    assert score.n == 4
    assert source_retention(after, before, np.full(5, -1)).n == 0
    assert source_retention(after, np.eye(2)[[1, 0, 0, 0, 1]], truth).n == 0, "nothing to keep"
    assert source_retention(np.full((5, 2), np.nan), before, truth).n == 0


TOO_LITTLE = {
    "nothing": np.zeros((0, 4)), "one row": np.ones((1, 4)), "no numbers": np.full((8, 4), np.nan),
    "all alike": np.full((8, 4), 0.25),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LITTLE)
def test_too_little_to_go_by_gives_no_number(case):
    x = TOO_LITTLE[case]
    treatments = [f"t{k % 4}" for k in range(len(x))]
    scores = [alpha_req(x), lidar(x, treatments)]
    if case != "all alike":
        scores += [percent_replicating(x, treatments, [f"b{k // 4}" for k in range(len(x))], seed=0)]
    if case in ("nothing", "no numbers"):
        scores += [
            predicted_accuracy(x, 0.5),
            accuracy_by_confidence(x, np.eye(4), np.arange(4)),
        ]
    assert all(np.isnan(score.value) and score.n == 0 for score in scores)


def test_one_treatment_or_one_batch_gives_no_number():
    x, treatments, groups = profiles(0)
    one = ["t"] * len(x)
    assert lidar(x, one).n == 0
    assert lidar(x, [f"t{k}" for k in range(len(x))]).n == 0, "no treatment has two rows"
    assert percent_replicating(x, treatments, ["b"] * len(x), seed=0).n == 0
    assert percent_replicating(x, one, groups, seed=0).n == 0, "no null without another treatment"
