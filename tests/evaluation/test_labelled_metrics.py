"""Metrics that need labels, against slow ones: calibration, mechanisms of neighbours; retrieval and its null."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.evaluation.metrics.calibration_error import expected_calibration_error
from coda.evaluation.metrics.mechanism_neighbour import mechanism_neighbour_accuracy
from coda.evaluation.metrics.metric_result import Grouping, unit_rows
from coda.evaluation.metrics.retrieval import average_precisions
from coda.evaluation.metrics.retrieval_null import _mean_precisions, retrieval_p_values, retrieved_share


@given(seed=st.integers(0, 50), rows=st.integers(1, 60), classes=st.integers(2, 5), bins=st.integers(1, 20))
def test_calibration_error_is_the_sum_over_bins(seed, rows, classes, bins):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows)
    truth = rng.integers(-1, classes, rows)
    known = truth >= 0
    total = 0.0
    for number in range(bins):
        top = p.max(axis=1)
        low, high = number / bins, (number + 1) / bins
        inside = known & (top * bins >= number) & ((top * bins < number + 1) | ((number == bins - 1) & (top >= low)))
        assert high > low
        if inside.any():
            right = (p.argmax(axis=1) == truth)[inside].mean()
            total += inside.sum() / known.sum() * abs(right - top[inside].mean())
    found = expected_calibration_error(p, truth, bins)
    assert found.n == known.sum()
    if known.any():
        assert found.value == pytest.approx(total)


def test_calibrated_answers_have_little_error_and_sure_wrong_ones_have_all():
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, 200_000)
    truth = (rng.random(200_000) > top).astype(np.intp)
    assert expected_calibration_error(np.stack([top, 1 - top], axis=1), truth).value < 0.01
    assert expected_calibration_error(np.array([[1.0, 0.0]] * 5), np.ones(5, np.intp)).value == 1


@given(seed=st.integers(0, 100), profiles=st.integers(1, 12), with_batches=st.booleans())
def test_neighbours_are_of_other_compounds_and_batches(seed, profiles, with_batches):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(profiles, 3))
    compounds = rng.integers(0, 4, profiles)
    moa = compounds // 2
    batches = rng.integers(0, 2, profiles)
    hits = []
    for i in range(profiles):
        others = [
            j for j in range(profiles)
            if compounds[j] != compounds[i] and (not with_batches or batches[j] != batches[i])
        ]  # fmt: skip
        if not any(moa[j] == moa[i] for j in others):
            continue
        cosine = [rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]) for j in others]
        hits.append(moa[others[int(np.argmax(cosine))]] == moa[i])
    found = mechanism_neighbour_accuracy(rows, moa, compounds, batches if with_batches else None)
    assert found.n == len(hits)
    if hits:
        assert found.value == pytest.approx(np.mean(hits))


def test_neither_replicates_nor_the_look_of_a_batch_can_help():
    rng = np.random.default_rng(2)
    compounds = np.repeat(np.arange(20), 6)
    batches = np.tile(np.arange(6) // 2, 20)
    # a compound's wells are alike, and so are a batch's; nothing says the mechanism
    rows = (
        rng.normal(size=(20, 16))[compounds] * 3 + rng.normal(size=(3, 16))[batches] + rng.normal(size=(120, 16)) * 0.1
    )
    moa = compounds % 2
    assert mechanism_neighbour_accuracy(rows, moa, np.arange(120)).value > 0.95  # replicates counted as others
    assert mechanism_neighbour_accuracy(rows, moa, compounds).value == pytest.approx(0.5, abs=0.2)
    assert mechanism_neighbour_accuracy(rows, moa, compounds, batches).value == pytest.approx(0.5, abs=0.2)
    found = rows + np.where(moa, 8.0, -8.0)[:, None]
    assert mechanism_neighbour_accuracy(found, moa, compounds, batches).value == 1


@given(seed=st.integers(0, 20))
def test_what_is_permuted_is_replicate_map_before_its_normalisation(seed):
    rng = np.random.default_rng(seed)
    design = Grouping.of(list(rng.choice(list("abcd"), 24)), list(rng.choice(list("xyz"), 24)))
    features = rng.normal(size=(24, 4))
    precision, _, _ = average_precisions(features, design)
    rows = unit_rows(features)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
    found = _mean_precisions(design.treatment, order, design.group[:, None] == design.group[order], len(design.names))
    expected = [np.nanmean(own) if np.isfinite(own := precision[design.treatment == k]).any() else np.nan
                for k in range(len(design.names))]  # fmt: skip
    np.testing.assert_allclose(found, expected)


def test_p_values_are_those_of_all_permutations():
    """Three treatments in two groups: 36 arrangements, each as likely as another."""
    design = Grouping.of(["a", "b", "c"] * 2, ["x"] * 3 + ["y"] * 3)
    features = np.random.default_rng(3).normal(size=(6, 3))
    exact = []
    for first in permutations(range(3)):
        for second in permutations(range(3)):
            moved = Grouping(design.names, np.array([*first, *second]), design.group, 2)
            precision, _, _ = average_precisions(features, moved)
            exact.append([precision[moved.treatment == k].mean() for k in range(3)])
    observed = [average_precisions(features, design)[0][design.treatment == k].mean() for k in range(3)]
    share = (np.array(exact) >= np.array(observed) - 1e-12).mean(axis=0)
    found = retrieval_p_values(features, design, draws=4000, seed=0)
    np.testing.assert_allclose(list(found.values()), share, atol=0.03)


def test_noise_is_retrieved_as_often_as_the_rate_allows_and_signal_is_found():
    design = Grouping.of([f"t{k:02d}" for k in range(20)] * 4, [f"g{k // 20}" for k in range(80)])
    rng = np.random.default_rng(1)
    values = np.concatenate(
        [list(retrieval_p_values(rng.normal(size=(80, 8)), design, draws=200, seed=run).values()) for run in range(25)]
    )
    assert len(values) == 500
    assert (values < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    found = retrieved_share(rng.normal(size=(80, 8)), design, draws=400)
    assert found.value <= 0.15
    signal = np.tile(rng.normal(size=(20, 8)), (4, 1)) + rng.normal(size=(80, 8)) * 0.3
    sure = retrieved_share(signal, design, draws=2000)
    assert sure.value == 1
    assert max(sure.by_treatment.values()) < 0.05
