"""Every metric against an independent way of computing it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from copairs.map.average_precision import average_precision
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from coda.evaluation.metrics.accuracy import accuracy, macro_f1
from coda.evaluation.metrics.agreement import agreement
from coda.evaluation.metrics.confidence import mean_confidence
from coda.evaluation.metrics.field_spread import feature_spread
from coda.evaluation.metrics.frechet import frechet_distance
from coda.evaluation.metrics.marginal_entropy import marginal_entropy
from coda.evaluation.metrics.metric_result import Grouping
from coda.evaluation.metrics.mmd import mmd
from coda.evaluation.metrics.neighbour import neighbour_accuracy
from coda.evaluation.metrics.nuclear_norm import nuclear_norm
from coda.evaluation.metrics.rankme import rankme
from coda.evaluation.metrics.retrieval import average_precisions, expected_precision, replicate_map
from coda.evaluation.metrics.top_class import top_class_share


def plates(seed: int, *, treatments: int = 5, groups: int = 3, rows: int = 60) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    return [f"t{k}" for k in rng.integers(0, treatments, rows)], [f"b{k}" for k in rng.integers(0, groups, rows)]


def random_probabilities(seed: int, rows: int = 60, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), rows)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_equals_a_loop_over_all_pairs(seed: int) -> None:
    treatments, groups = plates(seed)
    p = random_probabilities(seed)
    expected = {}
    for name in sorted(set(treatments)):
        same, other = [], []
        for i, j in itertools.permutations(range(len(p)), 2):
            if treatments[i] != name or groups[i] == groups[j]:
                continue
            (same if treatments[j] == name else other).append(float(p[i] @ p[j]))
        expected[name] = np.mean(same) - np.mean(other)
    score = agreement(p, Grouping.of(treatments, groups))
    assert score.by_treatment == pytest.approx(expected)
    assert score.value == pytest.approx(np.mean(list(expected.values())))


def test_agreement_is_zero_for_a_collapsed_model_and_one_for_a_perfect_one() -> None:
    treatments, groups = ["a", "b"] * 4, ["p", "p", "q", "q"] * 2
    design = Grouping.of(treatments, groups)
    collapsed = np.tile([0.9, 0.1], (8, 1))
    assert agreement(collapsed, design).value == pytest.approx(0.0)
    perfect = np.array([[1.0, 0.0] if name == "a" else [0.0, 1.0] for name in treatments])
    assert agreement(perfect, design).value == pytest.approx(1.0)


def test_agreement_of_a_model_that_reads_the_plate_is_not_positive() -> None:
    treatments, groups = ["a", "b", "c"] * 4, ["p"] * 6 + ["q"] * 6
    p = np.array([[0.9, 0.1] if group == "p" else [0.1, 0.9] for group in groups])
    assert agreement(p, Grouping.of(treatments, groups)).value <= 1e-12


def test_agreement_leaves_out_treatments_of_one_group_and_says_so_with_nan_when_none_is_left() -> None:
    p = random_probabilities(0, rows=4)
    assert set(agreement(p, Grouping.of(["a", "a", "b", "c"], ["p", "q", "p", "q"])).by_treatment) == {"a"}
    alone = agreement(p, Grouping.of(["a", "a", "b", "b"], ["p"] * 4))
    assert alone.n == 0
    assert np.isnan(alone.value)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_copairs(seed: int) -> None:
    treatments, groups = plates(seed, rows=40)
    x = np.random.default_rng(seed).normal(size=(40, 6))
    meta = pd.DataFrame({"treatment": treatments, "group": groups})
    oracle = average_precision(
        meta, x, ["treatment"], ["group"], ["group"], ["treatment"], progress_bar=False, distance="cosine"
    )
    ours, positives, total = average_precisions(x, Grouping.of(treatments, groups))
    assert ours == pytest.approx(oracle["average_precision"].to_numpy(), abs=1e-6)
    assert positives.tolist() == oracle["n_pos_pairs"].tolist()
    assert total.tolist() == oracle["n_total_pairs"].tolist()


@pytest.mark.parametrize(("positives", "total"), [(1, 2), (1, 7), (3, 9), (5, 6)])
def test_expected_precision_is_the_mean_over_all_rankings(positives: int, total: int) -> None:
    values = [
        np.mean([(k + 1) / place for k, place in enumerate(places)])
        for places in itertools.combinations(range(1, total + 1), positives)
    ]
    ours = expected_precision(np.array([positives]), np.array([total]))
    assert ours[0] == pytest.approx(np.mean(values))


def test_replicate_map_is_one_when_replicates_come_first_and_about_zero_for_noise() -> None:
    rng = np.random.default_rng(0)
    treatments = [f"t{k % 10}" for k in range(80)]
    groups = [f"b{k // 20}" for k in range(80)]
    centres = np.eye(10)[[k % 10 for k in range(80)]]
    design = Grouping.of(treatments, groups)
    assert replicate_map(centres + 0.01 * rng.normal(size=(80, 10)), design).value == pytest.approx(1.0)
    noise = [replicate_map(rng.normal(size=(80, 10)), design).value for _ in range(10)]
    assert abs(np.mean(noise)) < 0.03


def test_retrieval_and_neighbours_ignore_row_order() -> None:
    treatments, groups = plates(3)
    x = np.random.default_rng(3).normal(size=(60, 8))
    order = np.random.default_rng(4).permutation(60)
    mixed = Grouping.of([treatments[k] for k in order], [groups[k] for k in order])
    for metric in (replicate_map, neighbour_accuracy):
        assert metric(x[order], mixed).by_treatment == pytest.approx(
            metric(x, Grouping.of(treatments, groups)).by_treatment
        )


@pytest.mark.parametrize("seed", range(3))
def test_neighbour_accuracy_equals_scikit_learn_group_by_group(seed: int) -> None:
    treatments, groups = plates(seed)
    x = np.random.default_rng(seed).normal(size=(60, 5))
    t, g = np.array(treatments), np.array(groups)
    hits: dict[str, list[bool]] = {}
    for k in range(60):
        rest = np.flatnonzero(g != g[k])
        if t[k] not in t[rest]:
            continue
        search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(x[rest])
        nearest = rest[search.kneighbors(x[k : k + 1], return_distance=False)[0, 0]]
        hits.setdefault(t[k], []).append(bool(t[nearest] == t[k]))
    expected = {name: np.mean(found) for name, found in hits.items()}
    assert neighbour_accuracy(x, Grouping.of(treatments, groups)).by_treatment == pytest.approx(expected)


def test_marginal_entropy_against_the_formula_and_its_ends() -> None:
    p = random_probabilities(1)
    mean = p.mean(axis=0)
    assert marginal_entropy(p).value == pytest.approx(-np.sum(mean * np.log(mean)) / np.log(4))
    assert marginal_entropy(np.eye(4)).value == pytest.approx(1.0)
    assert marginal_entropy(np.tile(np.eye(4)[0], (5, 1))).value == pytest.approx(0.0)
    two_of_four = np.eye(4)[[0, 1, 0, 1]]
    assert marginal_entropy(two_of_four).value == pytest.approx(0.5)
    assert marginal_entropy(two_of_four, at_most=2).value == pytest.approx(1.0)
    assert marginal_entropy(two_of_four, at_most=1).n == 0


def test_shares_and_confidence() -> None:
    p = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    assert top_class_share(p).value == pytest.approx(2 / 3)
    assert mean_confidence(p).value == pytest.approx(0.7)


def test_nuclear_norm_reaches_one_only_when_confident_and_spread() -> None:
    assert nuclear_norm(np.eye(4)[np.arange(12) % 4]).value == pytest.approx(1.0)
    one_class = nuclear_norm(np.eye(4)[np.zeros(12, dtype=int)]).value
    unsure = nuclear_norm(np.full((12, 4), 0.25)).value
    assert unsure < one_class < 1.0
    p = random_probabilities(2)
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(p.T @ p), 0)).sum()
    assert nuclear_norm(p).value == pytest.approx(trace / np.sqrt(60 * 4))


@given(st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_rankme_counts_equal_directions_and_ignores_scale_and_offset(rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(40, rank + 1)) - 0.0)
    columns = basis - basis.mean(axis=0)
    columns, _ = np.linalg.qr(columns[:, :rank])
    mixing, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    x = columns @ mixing[:rank]
    assert rankme(x).value == pytest.approx(rank, rel=1e-6)
    assert rankme(7.0 * x + 3.0).value == pytest.approx(rank, rel=1e-6)


def test_feature_spread_is_about_one_for_noise_and_zero_for_a_collapsed_extractor() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 32))
    assert feature_spread(noise).value == pytest.approx(1.0, abs=0.03)
    assert feature_spread(np.ones((50, 32))).value == 0.0
    assert feature_spread(np.ones((50, 32)) + 1e-9 * rng.normal(size=(50, 32))).value == 0.0
    line = rng.normal(size=(500, 1)) * rng.normal(size=(1, 32))
    assert feature_spread(line).value < 0.95


def test_mmd_equals_scikit_learn_kernels_and_sees_a_shift() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(25, 3))
    gamma = 1 / (2 * 1.7**2)
    inside_x, inside_y = rbf_kernel(x, gamma=gamma), rbf_kernel(y, gamma=gamma)
    unbiased = (inside_x.sum() - 20) / 380 + (inside_y.sum() - 25) / 600
    expected = unbiased - 2 * rbf_kernel(x, y, gamma=gamma).mean()
    assert mmd(x, y, bandwidth=1.7).value == pytest.approx(expected)
    assert mmd(x + 3, y).value > 0.3
    assert abs(mmd(x, y).value) < 0.1
    assert mmd(x[:1], y).n == 0


def test_frechet_distance_equals_the_matrix_square_root_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.cov(rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)), rowvar=False) for _ in range(2))
    m, n = rng.normal(size=4), rng.normal(size=4)
    expected = ((m - n) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(m, a, n, b) == pytest.approx(expected)
    assert frechet_distance(m, a, m, a) == pytest.approx(0.0, abs=1e-7)


def test_accuracy_and_f1_equal_scikit_learn_and_leave_out_unlabelled_rows() -> None:
    p = random_probabilities(5)
    truth = np.random.default_rng(5).integers(0, 4, 60)
    truth[:10] = -1
    known, predicted = truth >= 0, p.argmax(axis=1)
    assert accuracy(p, truth).value == pytest.approx(accuracy_score(truth[known], predicted[known]))
    assert macro_f1(p, truth).value == pytest.approx(f1_score(truth[known], predicted[known], average="macro"))
    assert accuracy(p, np.full(60, -1)).n == 0
