"""Drift rules against theory, published tables and simulation; none of the oracles shares code with the rules."""

import numpy as np
import pytest
from scipy.stats import kstest, norm, ttest_ind

from coda.monitoring.rules import (
    MEANINGS,
    REJECTING,
    chart,
    cusum,
    cusum_limit,
    range_limit,
    range_rule,
    run_length,
    single_limit,
    stands_apart,
    westgard,
)


def test_q_statistics_of_a_steady_source_are_standard_normal_and_independent_from_the_start():
    rng = np.random.default_rng(1)
    rows = np.array([chart(rng.normal(40, 7, 30)).q[4:] for _ in range(600)])
    assert kstest(rows[:, 0], "norm").pvalue > 0.01, "the fifth batch already"
    # what is more than 3 deviations away counts as 3 in history, so the tails are a little heavier than normal
    assert kstest(rows.ravel(), "norm").statistic < 0.01
    assert abs(np.corrcoef(rows[:, 3], rows[:, 4])[0, 1]) < 0.1


def test_a_q_statistic_is_the_t_test_of_one_value_against_history():
    """scipy's two-sample t-test with one value on one side is the textbook's form of the same question."""
    history, value = np.array([3.0, 5.0, 4.0, 6.0, 5.5]), 8.0
    told = chart([*history, value]).q[-1]
    p = ttest_ind([value], history).pvalue
    assert told == pytest.approx(norm.isf(p / 2), abs=1e-9)


def test_far_values_have_finite_statistics():
    q = chart([1.0, 1.1, 0.9, 1.0, 1.05, 1e9, -1e9]).q
    assert np.isfinite(q[-2:]).all()
    assert q[-2] > 3 > -3 > q[-1]
    assert chart([5.0] * 8).out(7) is False, "numbers that never change are no drift"


@pytest.mark.parametrize(("limit", "shift", "length"), [
    (4, 0, 168), (4, 0.5, 26.6), (4, 1, 8.38), (4, 2, 3.34), (4, 4, 1.71), (5, 0, 465), (5, 0.5, 38.0), (5, 1, 10.4),
    (5, 3, 2.57),
])  # fmt: skip
def test_the_cusum_has_the_run_lengths_of_montgomery(limit, shift, length):
    """Introduction to Statistical Quality Control, 6th edition, table 9.3, k 0.5."""
    assert run_length(limit, shift=shift) == pytest.approx(length, rel=0.003)


def test_run_lengths_are_those_of_a_simulation():
    rng = np.random.default_rng(2)
    limit = cusum_limit(100.0)
    for shift in (0.0, 1.0):
        lengths = []
        for _ in range(1500):
            sums = cusum(rng.normal(shift, 1, 1200), limit)
            lengths.append(int(np.argmax(np.abs(sums) > limit)) + 1)
        error = np.std(lengths) / np.sqrt(len(lengths))
        assert abs(np.mean(lengths) - run_length(limit, shift=shift)) < 4 * error


def test_a_cusum_is_the_two_sums_of_the_textbook_and_its_alarm_ends_when_the_cause_does():
    q = np.array([0.5, np.nan, 2.0, 3.0, -1.0, -4.0, -4.0])
    upper, lower = [0.0, 0.0, 1.5, 4.0, 2.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.5, 4.0, 7.5]
    expected = [up if up >= down else -down for up, down in zip(upper, lower, strict=True)]
    assert cusum(q, 100.0).tolist() == pytest.approx(expected)
    told = cusum(np.concatenate([np.full(40, 3.0), np.zeros(8)]), 5.0)
    assert told[39] == 7.0, "40 batches of drift would take 200 to run off"
    assert (told > 5).tolist() == [False, False, *[True] * 41, *[False] * 5]


def test_one_far_value_is_no_slow_drift_however_far():
    """A share that was the same in every batch, and another in one: the 1-3s rule is there for that."""
    told = chart([0.25] * 8 + [0.2] + [0.25] * 3, charts=50)
    assert "1-3s" in told.broken[8]
    assert not any("CUSUM" in rules for rules in told.broken)


def by_hand(z):
    """Westgard's rules as the words have them, for one place at a time."""
    found = []
    for k in range(len(z)):
        rules = set()
        if abs(z[k]) > 2:
            rules.add("1-2s")
        if abs(z[k]) > 3:
            rules.add("1-3s")
        for name, count, away in (("2-2s", 2, 2), ("4-1s", 4, 1), ("10-x", 10, 0)):
            newest = z[max(0, k - count + 1) : k + 1]
            if len(newest) == count and (all(v > away for v in newest) or all(v < -away for v in newest)):
                rules.add(name)
        found.append(rules)
    return found


def test_westgard_rules_are_those_of_the_words():
    z = np.random.default_rng(3).normal(0.4, 1.4, 3000)
    assert [set(rules) for rules in westgard(z)] == by_hand(z)
    gap = np.array([2.5, np.nan, 2.6])
    assert westgard(gap)[1] == ()
    assert "2-2s" in westgard(gap)[2]
    assert range_rule([2.1, -2.2])
    assert not range_rule([2.1, 0, -2.2]), "with three plates the limit is where it is as rare"
    assert not range_rule([2.1, 2.2, -1.9])
    assert range_limit(2) == pytest.approx(2), "Westgard's own rule"
    assert set(MEANINGS) == {"1-2s", "CUSUM", *REJECTING}


def test_westgard_rules_have_the_false_alarm_rates_of_theory():
    """Independent standard normal values; runs on one side by their exact probability."""
    rng = np.random.default_rng(4)
    rules = westgard(rng.normal(size=200_000))
    two, one = norm.sf(2), norm.sf(1)
    exact = {"1-2s": 2 * two, "1-3s": 2 * norm.sf(3), "2-2s": 2 * two**2, "4-1s": 2 * one**4, "10-x": 2 * 0.5**10}
    for name, rate in exact.items():
        found = sum(name in item for item in rules) / len(rules)
        assert found == pytest.approx(rate, rel=0.12), name


def test_the_range_rule_is_as_rare_for_many_plates_as_for_two():
    rng = np.random.default_rng(8)
    found = {count: np.mean([range_rule(row) for row in rng.normal(size=(40_000, count))]) for count in (2, 30)}
    exact = 2 * norm.sf(2) ** 2
    assert found == pytest.approx({2: exact, 30: exact}, rel=0.45)


def first_alarm(values, counts=None, **how):
    told = chart(values, counts=counts, **how)
    return next((k for k in range(len(values)) if "CUSUM" in told.broken[k]), None)


def test_false_alarms_of_a_young_source_are_as_rare_as_stated():
    """40 batches of a steady source whose limits come from those very batches: one in 500 is a false alarm."""
    rng = np.random.default_rng(5)
    alarms = [first_alarm(rng.normal(10, 2, 44)) is not None for _ in range(1500)]
    assert np.mean(alarms) == pytest.approx(1 - np.exp(-40 / 500), abs=0.025)


def test_a_slow_drift_is_seen_by_the_cusum_and_not_by_single_limits():
    """A lamp that ages by a sixth of a deviation a batch."""
    rng = np.random.default_rng(6)
    slow, plain = 0, 0
    for _ in range(300):
        values = rng.normal(100, 3, 60) - 0.5 * np.clip(np.arange(60) - 30, 0, None)
        told = chart(values)
        slow += any("CUSUM" in told.broken[k] for k in range(30, 50))
        plain += any("1-3s" in told.broken[k] for k in range(30, 50))
    assert slow / 300 > 0.85
    assert plain < slow


def test_many_charts_together_raise_no_more_false_alarms_than_one():
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(150):
        alarms += any(first_alarm(rng.normal(size=44), charts=20) is not None for _ in range(20))
    assert alarms / 150 < 0.16
    assert norm.sf(single_limit(500, 20)) * 2 * 20 * 500 == pytest.approx(1)


def test_what_is_not_accepted_moves_no_limit():
    values = np.array([1.0, 1.2, 0.9, 1.1, 1.0, 9.0, 1.05, 1.0])
    counts = np.array([1, 1, 1, 1, 1, 0, 1, 1], dtype=bool)
    told = chart(values, counts=counts)
    without = chart(np.delete(values, 5))
    assert told.high[-1] == without.high[-1]
    assert told.broken[5][:2] == ("1-2s", "1-3s"), "it is judged all the same"


def test_limits_are_asked_for_with_numbers_that_can_be():
    with pytest.raises(ValueError, match="more than 10"):
        cusum_limit(5.0)


def test_plates_stand_apart_from_the_others_of_their_batch():
    """Against medians of numpy, batch by batch."""
    rng = np.random.default_rng(9)
    batches = rng.integers(0, 40, 400)
    values = rng.normal(batches, 0.1) + 4 * (rng.random(400) < 0.02)
    expected = np.zeros(400, dtype=bool)
    for number in range(40):
        mine = batches == number
        away = np.abs(values[mine] - np.median(values[mine]))
        spread = max(1.4826 * np.median(away), 0.01 * abs(np.median(values[mine])))
        expected[mine] = (away > 5 * spread) & (mine.sum() >= 4)
    assert expected.any()
    assert stands_apart(values, batches).tolist() == expected.tolist()
    assert stands_apart([], []).tolist() == []
    assert not stands_apart([1.0, 1.0, 9.0], [0, 0, 0]).any(), "of three plates none does"
