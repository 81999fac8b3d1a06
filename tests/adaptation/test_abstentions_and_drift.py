"""Reasons not to rely on a prediction, and numbers about how far a batch lies from the source."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coda.adaptation.abstain import (
    add_missing_compounds,
    add_missing_wells,
    least_top,
    mark_uncertain,
    mark_without_cells,
    withhold,
)
from coda.adaptation.drift import drift_of
from coda.contracts.quality import QualityReport, QuarantinedField
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, well_table
from coda.networks.alignment import fit_statistics


def predicted(fields, top=0.9):
    p = np.full((len(fields), 3), (1 - top) / 2)
    p[:, 0] = top
    return field_table(fields.table, p, ("actin", "proteasome", "tubulin"))


def plan_of(fields):
    columns = [name for name in fields.table.columns if name.startswith("Metadata_") and name != "Metadata_Site"]
    return fields.table[columns].drop_duplicates(["Metadata_Plate", "Metadata_Well"]).reset_index(drop=True)


def report(**changes):
    shared = {
        "source": "lab", "batch": "b0", "manifest_digest": "0" * 64, "suite_version": "x", "verdict": "accepted",
        "sentence": "", "fields_expected": 1, "fields_accepted": 1,
    }  # fmt: skip
    return QualityReport(**{**shared, **changes})


def test_low_probabilities_carry_a_reason_with_the_value_and_the_limit(make_plates):
    table = predicted(make_plates(), top=0.4)
    marked = mark_uncertain(table, min_top_over_chance=1.5)
    assert marked["abstain_reason"].str.contains("0.40").all()
    assert marked["abstain_reason"].str.contains("0.50").all()
    assert (marked["predicted"] == "actin").all()
    assert (mark_uncertain(table, min_top_over_chance=1.1)["abstain_reason"] == "").all()
    sure = mark_uncertain(predicted(make_plates(), top=1.0), min_top_over_chance=50.0)
    assert (sure["abstain_reason"] == "").all()


@pytest.mark.parametrize(("classes", "needed"), [(2, 2 / 3), (3, 1 / 2), (4, 1 / 2), (8, 1 / 4), (54, 2 / 54)])
def test_twice_chance_is_a_limit_that_a_right_answer_can_reach(classes, needed):
    """Before, a prediction between two mechanisms needed a probability of 1: every well was marked."""
    assert least_top(2.0, classes) == pytest.approx(needed)


@given(over_chance=st.floats(0.1, 100), classes=st.integers(2, 200))
def test_limits_are_probabilities_and_fall_with_the_number_of_classes(over_chance, classes):
    here, more = least_top(over_chance, classes), least_top(over_chance, classes + 1)
    assert 0 < more <= here < 1
    assert here <= max(0.5, over_chance / (over_chance + classes - 1))
    if over_chance * 2 <= classes and over_chance >= 1:
        assert here == over_chance / classes, "what it was before"


def test_an_answer_about_empty_pictures_carries_a_reason_at_every_level(make_plates):
    fields = make_plates(plates=2)
    empty = fields.table["Metadata_Well"].isin(["A01", "A02"]) & (fields.table["Metadata_Plate"] == "b0p0")
    one_field = (fields.table["Metadata_Well"] == "A03") & (fields.table["Metadata_Site"] == 1)
    lost = (
        fields.table["Metadata_Compound"]
        == fields.table.loc[fields.table["Metadata_pert_type"] == "trt"].iloc[0]["Metadata_Compound"]
    )
    counts = fields.table.assign(QC_cells_DNA=np.where(empty | one_field | lost, 0.0, 12.0))
    table = mark_uncertain(predicted(fields), min_top_over_chance=1.0)
    field = mark_without_cells(table, counts)
    assert ((field["abstain_reason"] != "") == (counts["QC_cells_DNA"] == 0)).all()
    assert (field["predicted"] == "actin").all()
    well = mark_without_cells(mark_uncertain(well_table(field), min_top_over_chance=1.0), counts)
    told = set(
        well.loc[well["abstain_reason"] != "", ["Metadata_Plate", "Metadata_Well"]].itertuples(index=False, name=None)
    )
    seen = counts.groupby(["Metadata_Plate", "Metadata_Well"])["QC_cells_DNA"].max()
    assert told == set(seen[seen == 0].index) != set()
    compound = mark_without_cells(mark_uncertain(compound_table(well), min_top_over_chance=1.0), counts)
    assert compound.loc[compound["abstain_reason"] != "", "Metadata_Compound"].tolist() == sorted(
        counts.loc[lost, "Metadata_Compound"].unique()
    )
    assert mark_without_cells(table, fields.table) is table


def test_wells_without_prediction_are_listed_with_their_reason(make_plates):
    fields = make_plates(plates=3)
    table = fields.table
    lost = (table["Metadata_Plate"] == "b0p1").to_numpy()
    lost = lost | ((table["Metadata_Plate"] == "b0p0") & table["Metadata_Well"].isin(["A01", "A02"])).to_numpy()
    some = predicted(fields)[~lost].reset_index(drop=True)
    wells = mark_uncertain(well_table(some), min_top_over_chance=1.0)
    quarantined = QuarantinedField(plate="b0p0", well="A01", reason="The file is cut short.")
    told = report(plates_refused=("b0p1",), quarantined=(quarantined,))
    full = add_missing_wells(wells, plan_of(fields), [told])
    assert len(full) == 18
    reasons = full.set_index(["Metadata_Plate", "Metadata_Well"])["abstain_reason"]
    assert "b0p1 was refused" in reasons["b0p1", "A03"]
    assert "The file is cut short." in reasons["b0p0", "A01"]
    assert "delivered" in reasons["b0p0", "A02"]
    assert reasons["b0p2", "A01"] == ""
    empty = full[full["abstain_reason"] != ""]
    assert empty["p_actin"].isna().all()
    assert (empty["predicted"] == "").all()
    assert (empty["n_fields"] == 0).all()
    assert full["n_fields"].dtype == wells["n_fields"].dtype


def test_a_compound_none_of_whose_wells_was_predicted_is_listed(make_plates):
    fields = make_plates()
    some = predicted(fields)
    some = some[some["Metadata_Compound"] != "compound_2"].reset_index(drop=True)
    wells = mark_uncertain(well_table(some), min_top_over_chance=1.0)
    compounds = mark_uncertain(compound_table(wells), min_top_over_chance=1.0)
    full = add_missing_compounds(compounds, add_missing_wells(wells, plan_of(fields), []))
    assert full["Metadata_Compound"].tolist() == [f"compound_{k}" for k in range(4)]
    missing = full[full["Metadata_Compound"] == "compound_2"].iloc[0]
    assert missing["n_wells"] == 0
    assert "None of its wells" in missing["abstain_reason"]


def test_withheld_rows_lose_their_answers_and_the_others_lose_nothing(make_plates):
    table = mark_uncertain(predicted(make_plates(batches=2)), min_top_over_chance=1.0)
    rows = table["Metadata_Batch"] == "b1"
    held = withhold(table, rows, "Refused.")
    pd.testing.assert_frame_equal(held[~rows], table[~rows])
    assert held[rows].filter(like="p_").isna().all().all()
    assert held.loc[rows, "top_probability"].isna().all()
    assert (held.loc[rows, ["predicted", "abstain_reason"]] == ["", "Refused."]).all().all()
    assert (held.dtypes == table.dtypes).all()
    again = withhold(held, rows, "Another reason.")
    pd.testing.assert_frame_equal(again, held)


def test_nothing_missing_changes_nothing(make_plates):
    fields = make_plates()
    wells = mark_uncertain(well_table(predicted(fields)), min_top_over_chance=1.0)
    pd.testing.assert_frame_equal(add_missing_wells(wells, plan_of(fields), []), wells)


def tokens(seed, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(4000, 3, generator=torch.Generator().manual_seed(seed))


def test_distance_to_the_source_grows_with_the_shift_and_is_about_nothing_without(make_plates):
    fields, source = make_plates(), fit_statistics(tokens(0))
    x = np.random.default_rng(0).normal(size=(len(fields), 3))
    found = [
        drift_of(fields.table, x, {"lab/b0": fit_statistics(tokens(1, shift))}, source)["to_source_mean"]
        for shift in (0.0, 0.5, 1.0)
    ]
    assert found[0] < 0.01
    # a shift of every channel by one deviation is the source's own total variance
    assert found[1:] == pytest.approx([0.25, 1.0], rel=0.1)


def test_controls_are_compared_between_plates_without_the_compounds(make_plates):
    fields = make_plates(controls=8)
    source, rng = fit_statistics(tokens(0)), np.random.default_rng(0)
    groups = {"lab/b0": source}
    x = rng.normal(size=(len(fields), 3))
    controls = (fields.table["Metadata_pert_type"] == "negcon").to_numpy()
    second = (fields.table["Metadata_Plate"] == "b0p1").to_numpy()
    same = drift_of(fields.table, x, groups, source)["controls_between_groups"]
    moved = x + 3.0 * (controls & second)[:, None]
    other = x + 3.0 * (~controls & second)[:, None]
    assert drift_of(fields.table, moved, groups, source)["controls_between_groups"] > 0.3 > abs(same)
    assert drift_of(fields.table, other, groups, source)["controls_between_groups"] == pytest.approx(same)
    alone = make_plates(plates=1)
    assert drift_of(alone.table, x[: len(alone)], groups, source)["controls_between_groups"] is None
