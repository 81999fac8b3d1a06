"""Granularities: what is adapted to, what is predicted, and an equal number of iterations for all of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.adaptation.pairing_policy import PairingPolicy
from coda.training import schedules
from coda.training.schedules import length_of
from studies.figures.granularity import subsets, with_equal_iterations

ODA = PairingPolicy("oda", "none", 0.0, "asked for")


@st.composite
def tables(draw) -> pd.DataFrame:
    places = draw(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30))
    return pd.DataFrame(
        [{"Metadata_Source": f"s{s}", "Metadata_Batch": f"b{b}", "Metadata_Plate": f"p{p}"} for s, b, p in places]
    )


@given(table=tables(), by=st.sampled_from(["plate", "batch", "source"]), apply=st.sampled_from(["own", "all"]))
def test_every_field_is_adapted_to_once_and_predicted_by_its_own_or_by_every_subset(table, by, apply):
    found = subsets(table, by, apply)
    assert sorted(np.concatenate([subset.adapt for subset in found]).tolist()) == list(range(len(table)))
    columns = ["Metadata_Source", "Metadata_Batch", "Metadata_Plate"][: {"source": 1, "batch": 2, "plate": 3}[by]]
    assert [subset.name for subset in found] == sorted({"/".join(row) for row in table[columns].to_numpy()})
    for subset in found:
        assert {"/".join(row) for row in table.iloc[subset.adapt][columns].to_numpy()} == {subset.name}
        source = table["Metadata_Source"].iloc[subset.adapt[0]]
        expected = np.flatnonzero(table["Metadata_Source"] == source) if apply == "all" else subset.adapt
        assert subset.predict.tolist() == expected.tolist()


def test_a_part_trains_as_long_as_the_whole_on_the_same_schedules(tiny, make_plates):
    table = make_plates(batches=2, plates=2, controls=0).table
    part = table[table["Metadata_Batch"] == "b0"].reset_index(drop=True)
    params = tiny(
        "adaptation.budget.iterations=null", "adaptation.budget.epochs=30.0", "adaptation.budget.warmup_epochs=3.0",
        "adaptation.budget.teacher_temperature_warmup_epochs=9.0", "adaptation.budget.freeze_last_layer_epochs=2.0",
        "adaptation.budget.teacher_temperature=0.07",
    )  # fmt: skip
    equal = with_equal_iterations(params, table, part, ODA)
    assert (len(table), len(part)) == (16, 8)
    whole, short = length_of(params.adaptation.budget, 16), length_of(params.adaptation.budget, 8)
    same = length_of(equal.adaptation.budget, 8)
    assert (whole.iterations, short.iterations, same.iterations) == (80, 40, 80)
    for iteration in range(80):
        for of in (
            schedules.learning_rate, schedules.weight_decay, schedules.teacher_temperature,
            schedules.last_layer_is_frozen, schedules.teacher_momentum,
        ):  # fmt: skip
            expected = of(iteration, whole, params.adaptation.budget)
            assert of(iteration, same, equal.adaptation.budget) == pytest.approx(expected)


def test_a_budget_in_iterations_stays_and_the_ladder_counts_each_tables_fields(tiny, make_plates):
    fields = make_plates(batches=2, plates=1, controls=2)
    part = fields.table[fields.table["Metadata_Batch"] == "b0"].reset_index(drop=True)
    params = tiny("adaptation.budget.warmup_epochs=0.5")
    equal = with_equal_iterations(params, fields.table, part)
    assert equal.adaptation.budget.iterations == params.adaptation.budget.iterations == 8
    assert equal.adaptation.budget.warmup_epochs == pytest.approx(1.0)
    assert with_equal_iterations(params, fields.table, fields.table) == params
