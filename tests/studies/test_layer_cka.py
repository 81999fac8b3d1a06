"""Linear CKA by layer against its definition and its invariances."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.figures.layer_cka import LayerCka, gram, unbiased_hsic


def features(seed, count=12, width=7):
    return np.random.default_rng(seed).normal(size=(count, width))


def cka(first, second, size=None):
    found = LayerCka(len(first), len(second))
    for start in range(0, len(first[0]), size or len(first[0])):
        rows = slice(start, start + (size or len(first[0])))
        found.add([layer[rows] for layer in first], [layer[rows] for layer in second])
    return found.values()


def test_hsic_is_the_u_statistic_over_all_quadruples():
    """Song and others (2012), equation 4: the mean over ordered quadruples of different samples."""
    x, y = features(1, 7, 3), features(2, 7, 5)
    k, m = x @ x.T, y @ y.T
    terms = [k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q] for i, j, q, r in permutations(range(7), 4)]
    assert unbiased_hsic(gram(x), gram(y)) == pytest.approx(np.mean(terms), rel=1e-10)


def test_hsic_is_unbiased_where_the_usual_estimator_is_not():
    rng = np.random.default_rng(0)
    centre = np.eye(6) - 1 / 6
    unbiased, biased = [], []
    for _ in range(3000):
        x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
        unbiased.append(unbiased_hsic(gram(x), gram(y)))
        biased.append(np.trace(centre @ gram(x) @ centre @ gram(y)) / 25)
    error = np.std(unbiased) / np.sqrt(3000)
    assert abs(np.mean(unbiased)) < 4 * error
    assert np.mean(biased) > 4 * error


def test_a_layer_is_like_itself_and_like_its_turned_scaled_and_shifted_self():
    x = features(3)
    turn = np.linalg.qr(features(4, 7, 7))[0]
    assert cka([x], [x])[0, 0] == pytest.approx(1)
    assert cka([x], [3.7 * x @ turn + features(5, 1, 7)])[0, 0] == pytest.approx(1)
    assert cka([x], [x * np.arange(1, 8)])[0, 0] < 0.999


@given(st.integers(0, 10_000), st.sampled_from([4, 5, 6]))
def test_the_sum_over_minibatches_is_what_it_says_and_has_no_order(seed, size):
    first, second = [features(seed), features(seed + 1, width=3)], [features(seed + 2, width=4)]
    batches = [slice(start, start + size) for start in range(0, 12 - size + 1, size)]
    kept = [np.concatenate([layer[rows] for rows in batches]) for layer in (*first, *second)]
    found = cka(kept[:2], kept[2:], size)
    for row in range(2):
        terms = [
            [unbiased_hsic(gram(a[rows]), gram(b[rows])) for rows in batches]
            for a, b in ((first[row], second[0]), (first[row], first[row]), (second[0], second[0]))
        ]
        cross, own, other = (sum(values) for values in terms)
        expected = cross / np.sqrt(own * other) if own > 0 and other > 0 else np.nan
        np.testing.assert_allclose(found[row, 0], expected, rtol=1e-9)
    backwards = LayerCka(2, 1)
    for rows in reversed(batches):
        backwards.add([layer[rows] for layer in first], [layer[rows] for layer in second])
    np.testing.assert_allclose(backwards.values(), found, rtol=1e-9)
    assert backwards.fields == len(batches) * size


def test_minibatches_agree_with_all_fields_at_once_for_many_fields():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(2000, 5))
    y = x @ rng.normal(size=(5, 4)) + rng.normal(size=(2000, 4))
    assert cka([x], [y], 50)[0, 0] == pytest.approx(cka([x], [y])[0, 0], abs=0.02)


def test_tokens_are_flattened_and_few_fields_or_constant_layers_are_no_numbers():
    x = np.random.default_rng(0).normal(size=(8, 3, 4))
    assert cka([x], [x.reshape(8, 12)])[0, 0] == pytest.approx(1)
    rounding = np.random.default_rng(1).normal(size=(8, 3)) * 1e-8
    for constant in (np.ones((8, 3)), np.full((8, 3), 0.1, dtype=np.float32), np.ones((8, 3)) + rounding):
        assert np.isnan(cka([constant], [x])[0, 0])
    with pytest.raises(ValueError, match="at least 4"):
        unbiased_hsic(np.eye(3), np.eye(3))
