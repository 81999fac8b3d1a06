from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_inputs import MADE, digest
from scipy.stats import median_abs_deviation, percentileofscore

from coda.monitoring.summaries import (
    MIN_BATCHES,
    BatchSummary,
    acquisition_z,
    drift_percentiles,
    not_released_in_a_row,
    percentile,
    robust_z,
)

NUMBERS = st.lists(st.floats(-1e4, 1e4), min_size=MIN_BATCHES, max_size=20)


def summary(number, *, outcome="release", verdict="accepted", instrument="Phenix", focus=-2.0, drift=0.1):
    return BatchSummary(
        source="lab_b",
        batch=f"b{number}",
        manifest_digest=digest(str(number)),
        instrument=instrument,
        at=MADE + timedelta(days=number, hours=3),
        created_at=MADE + timedelta(days=number),
        verdict=verdict,
        outcome=outcome,
        acquisition={"DNA/focus": focus},
        drift_before={"mmd_controls": drift},
    )


@given(NUMBERS, st.floats(-1e4, 1e4))
def test_robust_z_is_the_usual_one_where_the_history_varies(earlier, value):
    spread = median_abs_deviation(earlier, scale="normal")
    found = robust_z(value, earlier)
    if spread > 0.02 * abs(np.median(earlier)) and spread > 1e-6:
        assert found == pytest.approx((value - np.median(earlier)) / spread, rel=1e-3, abs=1e-6)
    assert np.isfinite(found)


def test_a_constant_history_does_not_make_every_change_infinite():
    assert abs(robust_z(1.001, [1.0] * 6)) < 1


@given(NUMBERS, st.floats(-1e4, 1e4))
def test_percentile_is_the_share_of_smaller_values(earlier, value):
    assert percentile(value, earlier) == pytest.approx(percentileofscore(earlier, value, kind="strict") / 100)


def test_too_short_a_history_says_nothing():
    earlier = [summary(k) for k in range(MIN_BATCHES - 1)]
    assert robust_z(3.0, [1.0] * (MIN_BATCHES - 1)) is None
    assert percentile(3.0, []) is None
    assert acquisition_z(summary(9), earlier) == {}
    assert drift_percentiles(summary(9), earlier) == {}


def test_only_accepted_batches_of_the_same_microscope_are_compared_with():
    accepted = [summary(k, focus=-2.0 - 0.1 * k, drift=0.1 * k) for k in range(5)]
    others = [summary(10 + k, focus=99.0, drift=99.0, verdict="refused") for k in range(5)]
    others += [summary(20 + k, focus=-50.0, instrument="Yokogawa") for k in range(5)]
    alone = acquisition_z(summary(30, focus=-3.0), accepted)
    assert acquisition_z(summary(30, focus=-3.0), [*accepted, *others]) == alone
    assert alone["DNA/focus"] < -3
    # features do not depend on the microscope's name: all accepted batches of the source count
    assert drift_percentiles(summary(30, drift=0.25), [*accepted, *others[:5]])["mmd_controls"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("outcomes", "newest", "expected"),
    [
        ([], "release", 0),
        ([], "keep_incumbent", 1),
        (["release", "keep_incumbent"], "refuse", 2),
        (["keep_incumbent", "release"], "hold", 1),
        (["keep_incumbent", "", "keep_incumbent"], "keep_incumbent", 3),
        (["keep_incumbent", "keep_incumbent"], "", 2),
    ],
)
def test_batches_in_a_row_without_a_release(outcomes, newest, expected):
    history = [summary(k, outcome=outcome) for k, outcome in enumerate(outcomes)]
    assert not_released_in_a_row(summary(50, outcome=newest), history) == expected


def test_a_summary_survives_its_document():
    once = summary(3)
    assert BatchSummary.parse(once.to_json(), "x") == once
    assert once.key == f"reports/lab_b/b3/{digest('3')}/summary.json"
