"""The study of the drift rules against exact probabilities, published tables, and detectors written a second time."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t
from typer.testing import CliRunner

from benchmarks.drift import detectors
from benchmarks.drift.detectors import FIRST
from benchmarks.drift.drift_runs import PATIENCE, first_alarm, q_of, rate, seen_in, threshold_for
from benchmarks.drift.odd_plates import run_plates
from benchmarks.drift.simulated_histories import CHANGES, Change, draw, draw_plates
from coda.cli.benchmark import app
from coda.monitoring.rules import ARL0, chart, cusum_limit, single_limit


def test_the_same_noise_is_drawn_for_every_change_and_changes_begin_where_they_are_said_to():
    steady = draw(3, 5, 20)
    for change in CHANGES:
        moved = draw(3, 5, 20, change, 12) - steady
        assert np.abs(moved[:, :12]).max() == 0
        assert moved[0, 12] == pytest.approx(change.step + change.slope)
        assert moved[0, 14] == pytest.approx(0 if change.lasts else change.step + 3 * change.slope)
    for noise in ("heavy tails", "skewed", "correlated"):
        values = draw(1, 4000, 30, noise=noise)
        assert abs(values.mean()) < 0.02
        assert values.std() == pytest.approx(1, abs=0.04)
    neighbours = draw(1, 4000, 30, noise="correlated")
    assert np.corrcoef(neighbours[:, 10], neighbours[:, 11])[0, 1] == pytest.approx(0.4, abs=0.05)


def test_plain_limits_have_the_false_alarms_of_student_s_t():
    """Mean and deviation of n values: the next one is t distributed with n - 1 degrees of freedom."""
    values = draw(7, 40_000, FIRST + 1)
    exact = 2 * t.sf(3 / np.sqrt(1 + 1 / FIRST), FIRST - 1)
    for kind in ("first", "newest", "all"):
        assert (detectors.plain(values, kind)[:, FIRST] > 3).mean() == pytest.approx(exact, rel=0.08)
    assert np.isneginf(detectors.plain(values, "all")[:, :FIRST]).all()


def test_a_cusum_has_the_run_lengths_of_montgomery():
    """Introduction to Statistical Quality Control, table 9.3: k 0.5, h 4."""
    for shift, length in ((0.5, 26.6), (1.0, 8.38), (2.0, 3.34)):
        z = np.random.default_rng(2).normal(shift, 1, (3000, 400))
        told = first_alarm(detectors.cusum(z, 0.5), 4.0) + 1
        assert told.mean() == pytest.approx(length, abs=4 * told.std() / np.sqrt(len(told)))


def test_the_ewma_has_the_run_lengths_of_its_markov_chain():
    limit = 2.0 * np.sqrt(0.2 / 1.8)
    for shift in (0.0, 1.0):
        q = np.random.default_rng(3).normal(shift, 1, (3000, 700))
        told = first_alarm(detectors.ewma(q), limit) + 1
        expected = detectors.ewma_run_length(limit, shift)
        assert told.mean() == pytest.approx(expected, abs=4 * told.std() / np.sqrt(len(told)))


def test_page_and_hinkley_s_test_is_that_of_its_pseudo_code():
    """Gama et al. 2014, section 3.2, one direction at a time, a value at a time."""
    values = draw(5, 6, 30, Change("step", step=2.0), 15)
    told = detectors.page_hinkley(values, 0.25)
    for row, scores in zip(values, told, strict=True):
        scale = np.std(row[:FIRST], ddof=1)
        mean = up = down = 0.0
        lowest, highest = np.inf, -np.inf
        for k, value in enumerate(row, start=1):
            mean += (value - mean) / k
            up += (value - mean) / scale - 0.25
            down += (value - mean) / scale + 0.25
            lowest, highest = min(lowest, up), max(highest, down)
            if k > FIRST:
                assert scores[k - 1] == pytest.approx(max(up - lowest, highest - down))


def test_adwin_cuts_where_its_inequality_says():
    """Equation 3.1 of Bifet and Gavalda, written as they print it, for every cut."""
    values = draw(6, 8, 40, Change("step", step=6.0), 20)
    told = detectors.adwin(values)
    cut = 0
    for delta in (9.0, 0.9, 0.3):
        for row, scores in zip(values, told, strict=True):
            scale = 10 * np.std(row[:FIRST], ddof=1)
            unit = np.clip((row - np.mean(row[:FIRST])) / scale + 0.5, 0, 1)
            for k in range(FIRST, 40):
                window, n = unit[: k + 1], k + 1
                found = False
                for n0 in range(1, n):
                    m = 1 / (1 / n0 + 1 / (n - n0))
                    level = np.log(2 / (delta / n))
                    bound = np.sqrt(2 / m * window.var() * level) + 2 / (3 * m) * level
                    found |= bool(abs(window[:n0].mean() - window[n0:].mean()) > bound)
                assert found == bool(scores[k] > np.log(2 / delta))
                cut += found
    assert cut > 0


def test_the_score_of_the_pages_says_drift_where_the_pages_do():
    values = draw(8, 60, 40, Change("slow", slope=0.3), 20)
    q = q_of(values)
    said = detectors.cusum_or_single(q) > np.log(ARL0 * 50)
    for row, mine in zip(values, said, strict=True):
        told = chart(row, charts=50)
        first = next(iter(np.flatnonzero(mine)), 40)
        pages = [k for k in range(40) if "CUSUM" in told.broken[k] or abs(told.q[k]) > single_limit(ARL0, 50)]
        assert first == next(iter(pages), 40)
    assert said.any()


def test_shares_have_the_intervals_of_wilson():
    for hits, of in ((0, 20), (3, 57), (20, 20)):
        ours, scipys = rate(hits, of), binomtest(hits, of).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high))
    assert np.isnan(rate(0, 0).value)


def test_a_threshold_gives_the_share_of_false_alarms_that_it_is_asked_for():
    scores = np.abs(draw(9, 20_000, 10))
    threshold = threshold_for(scores, 0.1)
    assert (scores.max(axis=1) > threshold).mean() <= 0.1
    assert threshold == pytest.approx(norm.isf((1 - 0.9 ** (1 / 10)) / 2), abs=0.03)


def test_delays_count_from_the_change_and_leave_out_histories_that_were_alarmed_before():
    scores = np.zeros((4, 5 + PATIENCE))
    scores[0, 2] = 9  # before the change
    scores[1, 5] = scores[2, 9] = 9
    told = seen_in(scores, 3.0, 5)
    assert (told.seen.of, told.seen.value) == (3, pytest.approx(2 / 3))
    assert told.delay == pytest.approx((1 + 5) / 2)
    assert told.waited == pytest.approx((1 + 5 + PATIENCE) / 3)


def test_one_bad_plate_is_in_one_plate():
    steady, bad = (draw_plates(2, 3, 6, 4, spread=0.5, off=off) for off in (0.0, 3.0))
    assert np.argwhere(bad - steady).tolist() == [[0, 5, 0], [1, 5, 0], [2, 5, 0]]


def test_rules_about_plates_see_a_failed_control_and_speak_seldom_of_steady_ones():
    told = {(row.rule, row.plates): row.rates for row in run_plates([1], 150)}
    apart = told["a plate stands apart", 12]
    assert apart["a control that fails: off by 5 SD"].value > 0.95
    assert apart["as always"].value < 0.1
    assert told["a plate stands apart", 2]["a control that fails: off by 5 SD"].value == 0


def test_the_command_prints_its_tables_and_writes_all_numbers(tmp_path):
    path = tmp_path / "drift.json"
    asked = ["drift", "--seeds", "2", "--steady", "20", "--changed", "3", "--json", str(path)]
    result = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "Page-Hinkley" in result.output
    told = json.loads(path.read_text())
    assert told["settings"]["choose_seeds"] == list(range(10, 30))
    assert told["settings"]["report_seeds"] == [100, 101]
    ours = next(row for row in told["matched"]["500"] if row["detector"] == "self-starting CUSUM alone")
    assert ours["threshold"] == pytest.approx(cusum_limit(500), rel=0.25)
    assert {row["change"] for row in ours["changes"]} == {change.name for change in CHANGES}
