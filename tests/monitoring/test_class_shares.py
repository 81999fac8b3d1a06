"""Class shares against history: scipy's own tests as oracles, and false alarms by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, f, f_oneway

from coda.monitoring.batch_numbers import MOST_COMPOUNDS, compound_answers
from coda.monitoring.class_shares import LOWEST_Q, compare_in_order

P = np.array([0.1, 0.3, 0.2, 0.25, 0.15])


def steady(rng, count, precision):
    """Batches of 300 wells: multinomial, or Dirichlet-multinomial of this precision."""
    shares = [P] * count if precision is None else rng.dirichlet(P * precision, count)
    return np.array([rng.multinomial(300, share) for share in shares])


def newest(counts):
    return compare_in_order(counts, [True] * len(counts))[-1]


def test_batches_as_alike_as_chance_have_them_are_compared_as_a_table_of_counts():
    """With many earlier batches that vary as multinomials do, this is Pearson's test of two rows."""
    rng = np.random.default_rng(0)
    history = rng.multinomial(300, P, 400)
    batch = np.array([45, 75, 66, 74, 40])
    exact = chi2_contingency(np.array([history.sum(axis=0), batch]), correction=False).pvalue
    assert newest([*history, batch]).p_value == pytest.approx(exact, rel=0.25)


def test_two_classes_and_equal_batches_are_the_analysis_of_variance():
    """With shares that vary between batches, it is the F test of one value against a group."""
    rng = np.random.default_rng(1)
    shares = rng.beta(12, 28, 30)
    batch = 0.45
    counts = np.round(np.stack([shares, 1 - shares], axis=1) * 1_000_000)
    told = newest([*counts, [batch * 1e6, (1 - batch) * 1e6]])
    assert told.p_value == pytest.approx(f_oneway([batch], shares).pvalue, rel=1e-3)
    assert told.distance == pytest.approx(abs(batch - shares.mean()), abs=1e-5)


def test_a_batch_at_its_limit_is_as_rare_as_one_in_five_hundred():
    rng = np.random.default_rng(2)
    history = rng.multinomial(300, P, 20)
    told = newest([*history, [60, 70, 60, 70, 40]])
    at_limit = told.centre + told.limit / told.distance * (told.share - told.centre)
    again = newest([*history, at_limit * 300])
    assert again.distance == pytest.approx(again.limit, rel=1e-6)
    assert again.p_value == pytest.approx(1 / 500, rel=1e-6)
    assert f.sf(f.isf(1 / 500, 4, 76), 4, 76) == pytest.approx(again.p_value)


@pytest.mark.parametrize("precision", [None, 80], ids=["chance alone", "between batches too"])
def test_false_alarms_of_a_steady_source_are_as_rare_as_stated(precision):
    """From the fifth batch on: one in 20 at 5 %, one in 100 at 1 %, and one of twenty batches has a moved class."""
    rng = np.random.default_rng(3)
    p_values, moved = [], []
    for _ in range(200):
        told = compare_in_order(steady(rng, 14, precision), [True] * 14)
        assert told[:4] == [None] * 4
        p_values += [item.p_value for item in told[4:]]
        moved += [item.moved.any() for item in told[4:]]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(p_values) < 0.01) == pytest.approx(0.0125, abs=0.008)
    assert np.mean(moved) == pytest.approx(0.05, abs=0.025)


def test_chance_alone_would_alarm_where_batches_differ():
    """Why the wells' chance is no yardstick: Pearson's test calls 4 in 10 batches of a steady source different."""
    counts = steady(np.random.default_rng(4), 60, 80)
    plain = [
        chi2_contingency(np.array([counts[:k].sum(axis=0), counts[k]]), correction=False).pvalue for k in range(4, 60)
    ]
    ours = [item.p_value for item in compare_in_order(counts, [True] * 60)[4:]]
    assert np.mean(np.array(plain) < 0.05) > 0.4
    assert np.mean(np.array(ours) < 0.05) < 0.15


def test_a_moved_class_is_named_and_moves_no_limit():
    rng = np.random.default_rng(5)
    away = np.array([0.1, 0.12, 0.2, 0.25, 0.33])
    counts = [*rng.multinomial(300, P, 20), *rng.multinomial(300, away, 1), *rng.multinomial(300, P, 5)]
    told = compare_in_order(counts, [True] * 26)
    assert told[20].q > 4
    assert told[20].moved.tolist() == [False, True, False, False, True]
    assert told[20].low[1] < away[1] - P[1] < told[20].high[1]
    refused = compare_in_order(counts, [k != 20 for k in range(26)])
    assert told[25].centre == pytest.approx(refused[25].centre, abs=0.01), "it counts as far as the limit, not more"


def test_the_same_answers_in_every_batch_are_no_drift_and_one_well_is_no_event():
    told = compare_in_order([[30, 60, 10]] * 8 + [[31, 59, 10]], [True] * 9)
    assert LOWEST_Q <= told[7].q < 0
    assert told[8].distance < told[8].limit
    assert compare_in_order([[30, 60]] * 5 + [[0, 0]], [True] * 6)[5] is None, "no answers"


@pytest.mark.parametrize("counts", [[[1.0], [2.0]], [[1, -1]], [[1, np.nan]], [1, 2]])
def test_what_is_no_table_of_counts_is_refused(counts):
    with pytest.raises(ValueError, match="counts of shape"):
        compare_in_order(counts, [True] * len(counts))


def test_of_many_compounds_those_that_come_again_are_kept_in_both_batches():
    def kept(first, last):
        names = [f"c{k}" for k in range(first, last)]
        kinds = ["poscon", *["trt"] * (len(names) - 1)]
        rows = {"Metadata_Compound": names, "Metadata_pert_type": kinds, "predicted": "actin", "top_probability": 0.5}
        table = pd.DataFrame(rows)
        table.loc[1, "predicted"] = ""
        return list(compound_answers(table))

    one, other = kept(0, 1000), kept(300, 1300)
    assert (one[0].measure, one[0].subject, one[0].text, one[0].value) == ("reference", "c0", "actin", 0.5)
    assert {item.measure for item in one[1:]} == {"compound"}
    assert len(one) == 1 + MOST_COMPOUNDS
    assert "c1" not in {item.subject for item in kept(0, 20)}, "it has no answer"
    both = {item.subject for item in one[1:]} & {item.subject for item in other[1:]}
    assert len(both) > 0.55 * MOST_COMPOUNDS, "seven of ten are in both; kept by chance it were 46 of 256"
