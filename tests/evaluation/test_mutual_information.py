"""Mutual information of fields and classes, against scikit-learn's and against divergences."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from coda.evaluation.metrics.mutual_information import mutual_information


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_equals_scikit_learns_of_the_joint_table(seed):
    p = np.random.default_rng(seed).dirichlet(np.full(5, 0.4), 40)
    expected = mutual_info_score(None, None, contingency=p * 1e6) / np.log(5)
    assert mutual_information(p).value == pytest.approx(expected, abs=1e-5)


def test_mutual_information_of_a_treatment_is_its_fields_mean_divergence_from_the_mean_prediction():
    p = np.random.default_rng(0).dirichlet(np.full(5, 0.4), 40)
    p[3] = np.eye(5)[2]
    treatments = [f"t{k % 7}" for k in range(40)]
    divergence = [entropy(row, p.mean(axis=0)) / np.log(5) for row in p]
    expected = {name: np.mean([d for d, t in zip(divergence, treatments, strict=True) if t == name])
                for name in set(treatments)}  # fmt: skip
    score = mutual_information(p, treatments)
    assert score.by_treatment == pytest.approx(expected)
    assert score.value == pytest.approx(np.mean(list(expected.values())))
    assert score.n == 7


def test_mutual_information_is_one_for_sure_and_even_answers_and_none_for_one_answer():
    assert mutual_information(np.eye(4)[[0, 1, 2, 3] * 3]).value == pytest.approx(1)
    assert mutual_information(np.tile([0.97, 0.01, 0.02], (9, 1))).value == pytest.approx(0, abs=1e-12)
    assert mutual_information(np.eye(4)[[0, 1] * 3], at_most=2).value == pytest.approx(1)


@pytest.mark.parametrize("p", [np.zeros((0, 4)), np.full((8, 4), np.nan)], ids=["nothing", "no numbers"])
def test_too_little_to_go_by_gives_no_number(p):
    score = mutual_information(p)
    assert np.isnan(score.value)
    assert score.n == 0


def test_one_class_gives_no_number():
    assert np.isnan(mutual_information(np.ones((4, 1))).value)
