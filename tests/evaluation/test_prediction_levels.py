"""From fields to wells to compounds, and all numbers of one candidate."""

import numpy as np
import pandas as pd
import pytest

from coda.evaluation.gate.definitions import BY_NAME
from coda.evaluation.gate.measures import measure_candidate
from coda.evaluation.predictions.prediction_levels import (
    classes_of,
    compound_table,
    field_table,
    probabilities_of,
    well_features,
    well_table,
)


def index_rows(*, plates: int = 2, compounds: int = 4, sites: int = 2, batches: int = 1) -> pd.DataFrame:
    rows = []
    for batch in range(batches):
        for plate in range(plates):
            for well in range(compounds + 1):
                for site in range(sites):
                    name = "DMSO" if well == compounds else f"c{well}"
                    rows.append({
                        "image_id": f"lab/b{batch}/p{plate}/A{well:02d}/{site}", "Metadata_Source": "lab",
                        "Metadata_Batch": f"b{batch}", "Metadata_Plate": f"b{batch}p{plate}",
                        "Metadata_Well": f"A{well:02d}", "Metadata_Site": site, "Metadata_Treatment": name,
                        "Metadata_Compound": name, "Metadata_pert_type": "negcon" if name == "DMSO" else "trt",
                        "Metadata_Dose_uM": 5.0, "store": "x.zip",
                    })  # fmt: skip
    return pd.DataFrame(rows)


def predictions(rows: pd.DataFrame, seed: int = 0, *, sharp: float = 0.3) -> pd.DataFrame:
    p = np.random.default_rng(seed).dirichlet(np.full(3, sharp), len(rows))
    return field_table(rows, p, ("actin", "tubulin", "proteasome"))


def test_levels_are_means_of_probabilities() -> None:
    fields = predictions(index_rows(sites=3))
    wells = well_table(fields)
    assert len(wells) == 10
    assert set(wells["n_fields"]) == {3}
    one = fields[(fields["Metadata_Plate"] == "b0p1") & (fields["Metadata_Well"] == "A02")]
    same = wells[(wells["Metadata_Plate"] == "b0p1") & (wells["Metadata_Well"] == "A02")]
    assert probabilities_of(same)[0] == pytest.approx(probabilities_of(one).mean(axis=0), abs=1e-6)
    compounds = compound_table(wells)
    assert compounds["Metadata_Compound"].tolist() == ["c0", "c1", "c2", "c3"]
    assert set(compounds["n_wells"]) == {2}
    assert probabilities_of(compounds).sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert "store" not in fields
    best = probabilities_of(wells).argmax(axis=1)
    assert wells["predicted"].tolist() == [classes_of(wells)[k] for k in best]


def test_levels_do_not_depend_on_row_order() -> None:
    fields = predictions(index_rows(sites=3))
    mixed = fields.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(well_table(mixed), well_table(fields), check_exact=True)
    pd.testing.assert_frame_equal(
        compound_table(well_table(mixed)), compound_table(well_table(fields)), check_exact=True
    )


def test_well_features_are_means_over_fields() -> None:
    rows = index_rows()
    x = np.random.default_rng(0).normal(size=(len(rows), 4))
    wells, means = well_features(rows, x)
    for k, (plate, well) in enumerate(zip(wells["Metadata_Plate"], wells["Metadata_Well"], strict=True)):
        inside = ((rows["Metadata_Plate"] == plate) & (rows["Metadata_Well"] == well)).to_numpy()
        assert means[k] == pytest.approx(x[inside].mean(axis=0))


def test_a_candidate_is_measured_without_its_controls_and_says_what_it_was_compared_by() -> None:
    rows = index_rows()
    table, x = predictions(rows), np.random.default_rng(1).normal(size=(len(rows), 6))
    found = measure_candidate("coda", table, x, complexity=3, samples=50, seed=0)
    # this batch has no positive control and one control well a plate, and nothing was given to compare with
    missing = {"control_map", "control_accuracy", "control_distance", "cka_to_baseline"}
    assert set(found.measures) == set(BY_NAME) - missing
    assert found.compared_by == "plate"
    assert set(found.by_treatment["agreement"]) == {"c0", "c1", "c2", "c3"}
    changed, noisy = table.copy(), x.copy()
    controls = (table["Metadata_pert_type"] == "negcon").to_numpy()
    changed.loc[controls, ["p_actin", "p_tubulin", "p_proteasome"]] = [1.0, 0.0, 0.0]
    noisy[controls] = 100.0
    again = measure_candidate("coda", changed, noisy, complexity=3, samples=50, seed=0)
    # only this one is meant to look at the controls
    assert again.measures.pop("batch_predictability") != found.measures.pop("batch_predictability")
    assert again == found
    several = index_rows(batches=2)
    other = measure_candidate(
        "coda", predictions(several), np.ones((len(several), 2)), complexity=3, samples=50, seed=0
    )
    assert other.compared_by == "batch"


def test_unusable_numbers_are_reported_not_computed_with() -> None:
    rows = index_rows()
    x = np.zeros((len(rows), 6))
    x[0, 0] = np.nan
    found = measure_candidate("coda", predictions(rows), x, complexity=3, samples=50, seed=0)
    assert not found.finite
    assert not found.measures


def test_shuffled_treatments_score_about_nothing() -> None:
    rows = index_rows(compounds=12, sites=4)
    classes = rows["Metadata_Well"].str[1:].astype(int).to_numpy() % 3
    p = np.full((len(rows), 3), 0.05)
    p[np.arange(len(rows)), classes] = 0.9
    good = measure_candidate("a", field_table(rows, p, ("x", "y", "z")), p, complexity=0, samples=50, seed=0)
    treated = rows["Metadata_pert_type"] == "trt"
    mixed = rows.copy()
    mixed.loc[treated, "Metadata_Treatment"] = (
        rows.loc[treated, "Metadata_Treatment"].sample(frac=1, random_state=0).to_numpy()
    )
    bad = measure_candidate("a", field_table(mixed, p, ("x", "y", "z")), p, complexity=0, samples=50, seed=0)
    assert good.measures["agreement"].value > 0.4
    assert abs(bad.measures["agreement"].value) < 0.1
