"""Mixing of batches, controls against controls: every metric against an independent way of computing it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import chisquare, median_abs_deviation
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import cosine_distances, polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from studies.metrics.bras import bras
from studies.metrics.control_separation import control_distances, robust_ssmd, robust_z_prime
from studies.metrics.ilisi import ilisi
from studies.metrics.kbet import kbet_acceptance
from studies.metrics.kid import control_kid, kid
from studies.metrics.pc_regression import pc_regression


def wells(seed: int, *, rows: int = 48, width: int = 6, groups: int = 3, shift: float = 0.5):
    """Features with a batch effect, treatments and groups."""
    rng = np.random.default_rng(seed)
    group, treatment = rng.integers(0, groups, rows), rng.integers(0, 5, rows)
    x = rng.standard_normal((rows, width)) + shift * rng.standard_normal((groups, width))[group]
    return x, [f"t{k}" for k in treatment], [f"b{k}" for k in group]


def others(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows of nearest others, by scikit-learn."""
    distances, rows = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(x).kneighbors(x)
    assert (rows[:, 0] == np.arange(len(x))).all()
    return distances[:, 1:], rows[:, 1:]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [None, 7])
def test_kbet_equals_scipys_chi_squared_test_of_every_neighbourhood(seed, size):
    x, _, groups = wells(seed)
    names, shares = np.unique(groups, return_counts=True)
    k = size or 10
    accepted = []
    for rows in others(x, k)[1]:
        observed = [sum(groups[row] == name for row in rows) for name in names]
        accepted.append(chisquare(observed, shares / len(x) * k).pvalue >= 0.05)
    score = kbet_acceptance(x, groups, neighbours=size)
    assert score.value == pytest.approx(np.mean(accepted))
    assert score.n == len(x)


def test_mixing_is_full_for_one_population_and_none_for_distant_batches():
    rng = np.random.default_rng(0)
    x, groups = rng.standard_normal((120, 4)), ["a", "b"] * 60
    apart = x + 50 * (np.array(groups) == "a")[:, None]
    assert kbet_acceptance(x, groups).value > 0.8
    assert kbet_acceptance(apart, groups).value == 0
    assert ilisi(x, groups).value > 0.8
    assert ilisi(apart, groups).value == pytest.approx(0, abs=1e-9)
    assert pc_regression(x, groups).value < 0.05
    assert pc_regression(apart, groups).value > 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("perplexity", [30.0, 5.0])
def test_ilisi_equals_a_root_search_for_every_well(seed, perplexity):
    x, _, groups = wells(seed)
    effective = min(perplexity, (len(x) - 1) / 3)
    distances, rows = others(x, round(3 * effective))
    index = []
    for near, own in zip(distances, rows, strict=True):

        def weights(log_beta: float, near=near) -> np.ndarray:
            raw = np.exp(-np.exp(log_beta) * (near - near.min()))
            return raw / raw.sum()

        def excess(log_beta: float, weights=weights) -> float:
            w = weights(log_beta)
            return float(-(w[w > 0] * np.log(w[w > 0])).sum() - np.log(effective))

        w = weights(brentq(excess, -20, 12))
        shares = [w[[groups[row] == name for row in own]].sum() for name in sorted(set(groups))]
        index.append(1 / np.sum(np.square(shares)))
    score = ilisi(x, groups, perplexity=perplexity)
    assert score.value == pytest.approx((np.median(index) - 1) / 2, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_bras_equals_a_loop_over_wells(seed):
    x, treatments, groups = wells(seed)
    expected = {}
    for name in sorted(set(treatments)):
        rows = [i for i, treatment in enumerate(treatments) if treatment == name]
        distances = cosine_distances(x[rows])
        values = []
        for a, i in enumerate(rows):
            own = [distances[a, b] for b, j in enumerate(rows) if j != i and groups[j] == groups[i]]
            other = [distances[a, b] for b, j in enumerate(rows) if groups[j] != groups[i]]
            inside, outside = (np.mean(part) if part else 0.0 for part in (own, other))
            values.append(1 - abs(outside - inside) / max(inside, outside) if own else 1.0)
        if len(rows) > len({groups[i] for i in rows}):
            expected[name] = np.mean(values)
    score = bras(x, treatments, groups)
    assert score.by_treatment == pytest.approx(expected)
    assert score.value == pytest.approx(np.mean(list(expected.values())))


def test_bras_passes_over_treatments_in_one_batch_and_those_with_one_well_a_batch():
    x = np.random.default_rng(0).standard_normal((7, 3))
    treatments, groups = ["a", "a", "a", "b", "b", "c", "c"], ["p", "p", "q", "p", "q", "p", "p"]
    assert set(bras(x, treatments, groups).by_treatment) == {"a"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("components", [None, 3])
def test_pc_regression_equals_a_regression_of_every_component(seed, components):
    x, _, groups = wells(seed)
    scores = PCA(components).fit_transform(x)
    design = pd.get_dummies(pd.Series(groups)).to_numpy(float)
    r2 = [LinearRegression().fit(design, scores[:, [k]]).score(design, scores[:, [k]]) for k in range(scores.shape[1])]
    variance = scores.var(axis=0)
    expected = (variance * np.array(r2)).sum() / variance.sum()
    assert pc_regression(x, groups, components=components).value == pytest.approx(expected)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_alignment_by_batch_leaves_nothing_to_explain(seed):
    x, _, groups = wells(seed)
    frame = pd.DataFrame(x).groupby(groups)
    assert pc_regression((x - frame.transform("mean")).to_numpy(), groups).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_kid_equals_sums_of_scikit_learns_kernel(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((9, 5)) + 0.5, 3 * rng.standard_normal((7, 5)) + 2
    scale = np.sqrt(y.var(axis=0).mean())
    a, b = (x - y.mean(axis=0)) / scale, (y - y.mean(axis=0)) / scale
    kernel = {"degree": 3, "gamma": 1 / 5, "coef0": 1}
    xx, yy, xy = (polynomial_kernel(p, q, **kernel) for p, q in ((a, a), (b, b), (a, b)))
    expected = xx[~np.eye(9, dtype=bool)].mean() + yy[~np.eye(7, dtype=bool)].mean() - 2 * xy.mean()
    assert kid(x, y).value == pytest.approx(expected)
    assert kid(10 * x + 1, 10 * y + 1).value == pytest.approx(expected), "scale and origin do not matter"


def test_kid_is_about_zero_within_one_population_and_large_between_two():
    rng = np.random.default_rng(0)
    values = [kid(rng.standard_normal((12, 8)), rng.standard_normal((12, 8))).value for _ in range(200)]
    # centre and scale are estimated from the reference, which leaves a little bias
    assert abs(np.mean(values)) < 0.5 * np.std(values)
    assert kid(rng.standard_normal((12, 8)) + 3, rng.standard_normal((12, 8))).value > 10 * np.std(values)


def plate_rows(plates: int = 2, *, negative: int = 5, positive: int = 3) -> pd.DataFrame:
    wells = [("negcon", k) for k in range(negative)] + [("poscon", k) for k in range(positive)] + [("trt", 0)]
    return pd.DataFrame(
        [
            {
                "Metadata_Source": "s", "Metadata_Batch": "b", "Metadata_Plate": f"p{plate}", "Metadata_Site": site,
                "Metadata_Well": f"{kind}{k}", "Metadata_pert_type": kind, "Metadata_Treatment": kind,
            }
            for plate in range(plates) for kind, k in wells for site in range(2)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_control_separation_equals_scipys_robust_statistics(seed):
    rng, rows = np.random.default_rng(seed), plate_rows()
    x = rng.standard_normal((len(rows), 4)) + 3 * (rows["Metadata_pert_type"] == "poscon").to_numpy()[:, None]
    z_primes, ssmds = [], []
    for _, plate in rows.assign(row=range(len(rows))).groupby("Metadata_Plate"):
        means = {
            kind: np.array([x[well["row"]].mean(axis=0) for _, well in part.groupby("Metadata_Well")])
            for kind, part in plate.groupby("Metadata_pert_type")
        }
        neg, pos = means["negcon"], means["poscon"]
        near = [np.linalg.norm(neg[i] - np.delete(neg, i, axis=0).mean(axis=0)) for i in range(len(neg))]
        far = np.linalg.norm(pos - neg.mean(axis=0), axis=1)
        s_n, s_p = (median_abs_deviation(values, scale="normal") for values in (near, far))
        difference = np.median(far) - np.median(near)
        z_primes.append(1 - 3 * (s_n + s_p) / abs(difference))
        ssmds.append(difference / np.hypot(s_n, s_p))
    assert robust_z_prime(rows, x).value == pytest.approx(np.median(z_primes), rel=1e-3)
    assert robust_ssmd(rows, x).value == pytest.approx(np.median(ssmds), rel=1e-3)
    assert robust_ssmd(rows, x).n == 2


def test_separation_grows_as_positive_controls_move_away():
    rng, rows = np.random.default_rng(1), plate_rows()
    x = rng.standard_normal((len(rows), 4))
    positive = (rows["Metadata_pert_type"] == "poscon").to_numpy()[:, None]
    found = [(robust_z_prime(rows, x + far * positive), robust_ssmd(rows, x + far * positive)) for far in (2, 10, 100)]
    for one, two in itertools.pairwise(found):
        assert one[0].value < two[0].value <= 1
        assert one[1].value < two[1].value


def test_a_control_does_not_pull_the_centroid_it_is_measured_from():
    negative = np.array([[0.0], [0.0], [9.0]])
    near, _ = control_distances(negative, np.ones((2, 1)))
    assert near.tolist() == [4.5, 4.5, 9.0]


TOO_LITTLE = {
    "nothing": np.zeros((0, 4)), "one row": np.ones((1, 4)), "two rows": np.eye(2, 4),
    "no numbers": np.full((48, 4), np.nan), "one is infinite": np.r_[np.full((1, 4), np.inf), np.ones((47, 4))],
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LITTLE)
def test_too_little_to_go_by_gives_no_number(case):
    x = TOO_LITTLE[case]
    groups, treatments = [f"b{k % 2}" for k in range(len(x))], [f"t{k}" for k in range(len(x))]
    scores = [kbet_acceptance(x, groups), ilisi(x, groups), bras(x, treatments, groups), kid(x[:1], x)]
    scores += [] if case == "two rows" else [pc_regression(x, groups)]
    assert all(np.isnan(score.value) and score.n == 0 for score in scores)


def test_one_batch_has_nothing_to_mix():
    x, treatments, _ = wells(0)
    one = ["b"] * len(x)
    for score in (kbet_acceptance(x, one), ilisi(x, one), bras(x, treatments, one), pc_regression(x, one)):
        assert np.isnan(score.value)
        assert score.n == 0
    for score in (pc_regression(np.ones((9, 3)), ["a", "b", "b"] * 3), kid(x, np.ones((9, x.shape[1])))):
        assert np.isnan(score.value)


def test_plates_without_controls_are_passed_over():
    rng = np.random.default_rng(0)
    few = plate_rows(negative=2)
    assert robust_z_prime(few, rng.standard_normal((len(few), 3))).n == 0
    one_positive = plate_rows(positive=1)
    assert robust_ssmd(one_positive, rng.standard_normal((len(one_positive), 3))).n == 0
    rows = plate_rows()
    assert robust_ssmd(rows, np.full((len(rows), 3), np.nan)).n == 0
    assert robust_z_prime(rows, np.ones((len(rows), 3))).n == 0, "no spread and no difference"
    assert robust_z_prime(rows.iloc[:0], np.ones((0, 3))).n == 0


def test_only_controls_are_compared_between_laboratories():
    rng, rows = np.random.default_rng(0), plate_rows()
    x, y = rng.standard_normal((2, len(rows), 3))
    changed = np.where((rows["Metadata_pert_type"] == "negcon").to_numpy()[:, None], x, 100.0)
    assert control_kid(rows, changed, rows, y).value == control_kid(rows, x, rows, y).value
    assert control_kid(rows, x, rows, y).n == 10
    treated = rows[rows["Metadata_pert_type"] == "trt"].reset_index(drop=True)
    assert control_kid(treated, x[: len(treated)], rows, y).n == 0
