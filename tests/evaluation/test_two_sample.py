"""The classifier two-sample test: against scikit-learn, by its properties, and its false alarms on steady histories."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from coda.evaluation.metrics import two_sample
from coda.evaluation.metrics.two_sample import FOLDS, compare, p_value, shrunk_covariance

PLATES, WELLS, SITES, WIDTH = 2, 12, 2, 8


def history(rng, earlier, *, batch=0.5, plate=0.3, well=0.3, bad_plate=0.0, shift=0.0):
    """Batches with offsets of their own, and of their plates and wells; the last one is shifted, or one plate of it."""
    features, batches, wells = [], [], []
    for b in range(earlier + 1):
        of_batch = rng.normal(0, batch, WIDTH)
        for p in range(PLATES):
            of_plate = of_batch + rng.normal(0, plate, WIDTH)
            for w in range(WELLS):
                x = of_plate + rng.normal(0, well, WIDTH) + rng.normal(size=(SITES, WIDTH))
                if b == earlier:
                    x[:, 0] += shift + bad_plate * (p == 0)
                features.append(x)
                batches += [f"b{b}"] * SITES
                wells += [f"b{b}/p{p}/{w}"] * SITES
    return np.concatenate(features), np.array(batches), np.array(wells), f"b{earlier}"


def test_covariance_and_odds_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    ours, theirs, asked = rng.normal(0.3, 1, (40, 12)), rng.normal(0, 1.4, (150, 12)), rng.normal(size=(25, 12))
    np.testing.assert_allclose(shrunk_covariance(theirs), ledoit_wolf(theirs)[0], rtol=1e-10)
    model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=LedoitWolf(), priors=[0.5, 0.5])
    model.fit(np.concatenate([theirs, ours]), [0] * 150 + [1] * 40)
    np.testing.assert_allclose(two_sample._odds(ours, theirs, asked), model.decision_function(asked), rtol=1e-8)


def test_what_does_not_vary_has_a_covariance_all_the_same():
    np.testing.assert_array_equal(shrunk_covariance(np.full((5, 3), 7.0)), np.eye(3))


@pytest.mark.parametrize(("earlier", "spread"), [(3, 0.3), (4, 1.0), (8, 0.3)])
def test_false_alarms_of_a_steady_history_are_as_rare_as_the_p_value_says(earlier, spread):
    """Batches differ, plates differ, wells differ: 5 % of 240 batches are 12, and 23 or more one time in a thousand."""
    rng = np.random.default_rng(earlier)
    found = np.array([compare(*history(rng, earlier, batch=spread)).p_value for _ in range(240)])
    assert (found < 0.05).sum() < 23
    assert (found < 0.01).sum() < 10
    assert 0.35 < np.median(found) < 0.65


def test_a_shift_beyond_what_batches_differ_by_is_found():
    rng = np.random.default_rng(1)
    found = [compare(*history(rng, 8, batch=0.2, shift=4.0)).p_value for _ in range(20)]
    assert np.mean(np.array(found) < 0.01) > 0.9


def test_equal_batches_are_told_by_guessing_alone():
    rng = np.random.default_rng(2)
    told = [compare(*history(rng, 2, batch=0, plate=0, well=0)).told for _ in range(30)]
    assert abs(np.mean([one.accuracy for one in told]) - 0.5) < 0.03
    assert abs(np.mean([one.separation for one in told])) < 0.15


def test_wells_are_never_in_both_halves():
    """Fields of one well that are all but the same would be told by heart if one of them had been learned."""
    rng = np.random.default_rng(3)
    features, batches, wells, name = history(rng, 2, batch=0, plate=0, well=3.0)
    told = compare(features, batches, wells, name).told
    assert told.accuracy < 0.65
    by_field = compare(features, batches, np.array([f"{b}{k}" for k, b in enumerate(wells)]), name).told
    assert by_field.accuracy > told.accuracy, "the folds do what they are for"


def test_the_plate_that_differs_has_the_highest_score():
    rng = np.random.default_rng(4)
    features, batches, wells, name = history(rng, 4, batch=0.1, plate=0.1, bad_plate=4.0)
    score = compare(features, batches, wells, name).told.score
    bad, good = (score[np.char.startswith(wells, f"{name}/p{p}/")].mean() for p in (0, 1))
    assert bad > 0.75
    assert good < bad - 0.15


def test_scales_and_the_order_of_fields_do_not_matter():
    rng = np.random.default_rng(5)
    features, batches, wells, name = history(rng, 3)
    first = compare(features, batches, wells, name)
    order = rng.permutation(len(wells))
    scaled = features[order] * np.logspace(-4, 4, WIDTH) + 5
    second = compare(scaled, batches[order], wells[order], name)
    np.testing.assert_allclose(second.told.score, first.told.score[order], atol=1e-6)
    assert second.p_value == pytest.approx(first.p_value, rel=1e-5)


def test_few_wells_or_numbers_that_do_not_vary_say_nothing():
    rng = np.random.default_rng(6)
    features, batches, wells, name = history(rng, 3)
    few = (batches != name) | np.isin(wells, np.unique(wells[batches == name])[: 2 * FOLDS - 1])
    assert compare(features[few], batches[few], wells[few], name) is None
    assert compare(np.ones_like(features), batches, wells, name) is None


def test_fewer_than_three_earlier_batches_give_no_p_value():
    rng = np.random.default_rng(7)
    two = compare(*history(rng, 2))
    assert np.isnan(two.p_value)
    assert two.earlier == ()
    assert np.isnan(p_value(3.0, [1.0, 2.0]))


def test_what_is_learned_from_is_bounded_and_all_are_asked(monkeypatch):
    monkeypatch.setattr(two_sample, "MOST_LEARNED", 30)
    rng = np.random.default_rng(8)
    features, batches, wells, name = history(rng, 3)
    fold, learned = two_sample._places(batches, wells)
    assert all(30 <= learned[batches == b].sum() < 30 + SITES for b in np.unique(batches))
    assert all(len(set(fold[wells == well])) == 1 for well in np.unique(wells))
    assert np.isfinite(compare(features, batches, wells, name).told.score).all()
