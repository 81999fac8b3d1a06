"""The paper's numbers against what its own text derives from them."""

import numpy as np
import pytest

from coda.benchmark.paper import COLUMNS, printed, table_2, table_3

TRAINED = ("source_3", "source_5", "source_8", "source_11")


def off_diagonal(system):
    return [table_2()[(s, t, system)].mean for s in TRAINED for t in COLUMNS if s != t]


@pytest.mark.parametrize(("system", "mean", "sd"), [("ODA", 174.8, 32.5), ("CODA", 232.6, 63.6)])
def test_ratios_to_supervised_are_those_of_the_text(system, mean, sd):
    ratios = 100 * np.array(off_diagonal(system)) / np.array(off_diagonal("Supervised"))
    assert ratios.mean() == pytest.approx(mean, abs=0.05)
    assert ratios.std(ddof=1) == pytest.approx(sd, abs=0.25)  # the table is rounded to one decimal


@pytest.mark.parametrize(
    ("system", "mean"),
    [
        ("Supervised", 11.1),
        ("Dual-model-DINO", 8.5),
        ("Dual-model-CB", 9.5),
        ("TTT", 6.9),
        ("ODA", 18.7),
        ("CODA", 24.5),
    ],
)
def test_means_over_all_targets(system, mean):
    assert np.mean(off_diagonal(system)) == pytest.approx(mean, abs=0.051)


def test_coda_is_below_oda_in_one_job_only():
    worse = [(s, t) for s in TRAINED for t in COLUMNS if s != t
             and table_2()[(s, t, "CODA")].mean < table_2()[(s, t, "ODA")].mean]  # fmt: skip
    assert worse == [("source_8", "source_5")]


def test_examples_of_the_text_and_both_spellings():
    assert printed("source_3", "source_8", "CODA").mean == 33.9
    assert printed("S8", "S8", "Supervised").mean == 31.0
    assert str(printed("S3", "S10", "ODA-MAE")) == "11.1 ± 0.4"
    assert printed("S3", "S3", "CODA") is None
    assert printed("lab_a", "lab_b", "CODA") is None


def test_table_3_repeats_table_2_where_they_overlap():
    shared = set(table_3()) & set(table_2())
    assert len(shared) == 4
    assert all(table_3()[key] == table_2()[key] for key in shared)
    assert len(table_2()) == 4 * (6 * 3 + 5 * 3)
