"""Figures of a plate against planted truths and naive formulas, through the tables and into the verdict."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coda.config import Params
from coda.contracts import QualityReport
from coda.plates.layout import FORMATS, well_name
from coda.quality.plate_effects import plate_effects, well_medians, well_table
from coda.quality.plate_figures import UNKNOWN, kept_figures, plate_figures
from coda.quality.replicates import replicate_spread
from coda.settings import Settings
from coda.steps.validate import validate

SHAPE = FORMATS[384]


def plate(seed: int, **planted: object) -> pd.DataFrame:
    """Return two sites of each of 384 wells: 24 negcon, 16 poscon, the rest 43 treatments in eight wells each."""
    rng = np.random.default_rng(seed)
    wells = [(row, column) for row in range(16) for column in range(24)]
    names = ["DMSO"] * 24 + ["POS"] * 16 + [f"T{k % 43}" for k in range(344)]
    rng.shuffle(names)
    effect = {f"T{k}": rng.normal(0, planted.get("treatment", 2.0)) for k in range(43)} | {
        "DMSO": 0.0, "POS": planted.get("poscon", -8.0),
    }  # fmt: skip
    rows = []
    for (row, column), name in zip(wells, names, strict=True):
        place = planted.get("slope", 0.0) * column / 23 + (planted.get("bad_row", 0.0) if row == 5 else 0.0)
        value = 100 + effect[name] + place + rng.normal()
        kind = {"DMSO": "negcon", "POS": "poscon"}.get(name, "trt")
        rows += [
            {"Metadata_Well": well_name(row, column), "Metadata_pert_type": kind, "Metadata_Treatment": name,
             "QC_p50_ER": value + site, "QC_mean_ER": value + site, "QC_cells_DNA": 50 + rng.normal()}
            for site in (-0.1, 0.1)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_planted_effects_of_place_are_found_in_their_direction_and_only_there() -> None:
    flat = plate_figures(plate(0, treatment=0.0), SHAPE)
    sloped = plate_figures(plate(0, treatment=0.0, slope=6.0), SHAPE)
    row = plate_figures(plate(0, treatment=0.0, bad_row=-8.0), SHAPE)
    assert max(flat["row_effect"], flat["column_effect"]) < 0.5
    # the median of fourteen wells takes a part of their noise with it, so that what is left is a little below 1
    assert sloped["column_effect"] == pytest.approx(np.std(np.linspace(0, 6, 24), ddof=1), rel=0.25)
    assert sloped["row_effect"] < 0.5
    assert row["row_effect"] == pytest.approx(8 / np.sqrt(16), rel=0.25)
    assert (sloped["column_statistic"], row["row_statistic"]) == ("p50_ER", "p50_ER")


@pytest.mark.parametrize("wells", [96, 384, 1536])
def test_chance_alone_is_no_effect_in_any_format(wells: int) -> None:
    rng = np.random.default_rng(wells)
    found = [plate_effects(pd.DataFrame(rng.normal(size=FORMATS[wells]))) for _ in range(40)]
    limit = {96: 0.9, 384: 0.4, 1536: 0.25}[wells]
    assert max(max(item.row, item.column) for item in found) < limit
    assert np.median([item.row for item in found]) < limit / 3


def test_positive_controls_and_empty_wells_are_no_effect_of_place() -> None:
    fields = plate(1, treatment=0.0)
    odd = fields["Metadata_Well"].str.endswith(("01", "02"))
    fields["Metadata_pert_type"] = np.where(odd, "poscon", "trt")
    fields.loc[odd, "QC_p50_ER"] -= 50
    assert plate_figures(fields, SHAPE)["column_effect"] < 0.5
    fields["Metadata_pert_type"] = np.where(odd, "empty", "trt")
    assert plate_figures(fields, SHAPE)["column_effect"] < 0.5
    fields["Metadata_pert_type"] = "trt"
    assert plate_figures(fields, SHAPE)["column_effect"] > 3


def test_the_best_separating_statistic_is_named_with_the_published_numbers() -> None:
    fields = plate(2)
    figures = plate_figures(fields, SHAPE)
    wells = fields.groupby("Metadata_Well")["QC_p50_ER"].median()
    kinds = fields.drop_duplicates("Metadata_Well").set_index("Metadata_Well")["Metadata_pert_type"]
    groups = [wells[kinds == kind].to_numpy() for kind in ("poscon", "negcon")]
    middles = [np.median(group) for group in groups]
    deviations = [1.4826 * np.median(np.abs(group - np.median(group))) for group in groups]
    gap = middles[0] - middles[1]
    assert figures["control_statistic"] in {"p50_ER", "mean_ER"}
    assert figures["ssmd"] == pytest.approx(gap / np.hypot(*deviations))
    assert figures["ssmd_size"] == -figures["ssmd"]
    assert figures["robust_z_prime"] == pytest.approx(1 - 3 * sum(deviations) / abs(gap))
    assert figures["ssmd_p50_ER"] == figures["ssmd"]
    assert abs(figures["ssmd_cells_DNA"]) < 1
    assert np.isnan(figures["ssmd_p50_Mito"])


def test_replicate_spread_is_the_ratio_of_naive_pairs_and_one_without_likeness() -> None:
    fields = plate(3)
    wells = well_medians(fields)
    treated = wells[wells["Metadata_pert_type"] == "trt"]
    within, between = [], []
    for (_, a), (_, b) in combinations(treated.iterrows(), 2):
        pair = within if a["Metadata_Treatment"] == b["Metadata_Treatment"] else between
        pair.append(abs(a["QC_p50_ER"] - b["QC_p50_ER"]))
    found = replicate_spread(wells, ["QC_p50_ER"])
    assert found.ratio == pytest.approx(np.median(within) / np.median(between))
    assert found.pairs == len(within) == 43 * 28
    assert found.ratio < 0.6
    shuffled = fields.assign(Metadata_Treatment="")
    names = dict(zip(treated["Metadata_Well"], np.random.default_rng(0).permutation(treated["Metadata_Treatment"]),
                     strict=True))  # fmt: skip
    shuffled["Metadata_Treatment"] = shuffled["Metadata_Well"].map(names).fillna("DMSO")
    assert replicate_spread(well_medians(shuffled), ["QC_p50_ER"]).ratio == pytest.approx(1, abs=0.1)


def test_untreated_wells_variation_is_the_robust_coefficient() -> None:
    fields = plate(4)
    wells = fields[fields["Metadata_pert_type"] == "negcon"].groupby("Metadata_Well")["QC_mean_ER"].median()
    figures = plate_figures(fields, SHAPE)
    expected = 1.4826 * np.median(np.abs(wells - wells.median())) / wells.median()
    assert figures["negcon_cv"] == pytest.approx(expected)
    assert figures["negcon_statistic"] == "mean_ER"
    assert figures["negcon_cells_cv"] == pytest.approx(1 / 50 / np.sqrt(2), rel=0.5)


def test_what_cannot_be_said_is_not_said() -> None:
    few = plate(5).iloc[:12]
    figures = plate_figures(few, SHAPE)
    assert set(figures) == set(UNKNOWN)
    for name in ("edge_effect", "row_effect", "column_effect", "ssmd", "robust_z_prime", "replicate_spread"):
        assert np.isnan(figures[name]), name
    assert plate_figures(few.iloc[:0], SHAPE).keys() == UNKNOWN.keys()
    kept = kept_figures({"plate": "p", "red_flag": "", "red_flag_reason": "", **figures})
    assert kept.ssmd is None
    assert kept.ssmd_stated == {}
    assert '"robust_z_prime":null' in kept.model_dump_json()


def judged(batch: object, tmp_path: Path, params: Params, settings: Settings) -> QualityReport:
    batch.write(tmp_path / "ds")
    return validate(tmp_path / "ds", params=params, settings=settings)[0]


def test_every_plate_quality_rule_warns_in_plain_words(
    make_batch: Callable, tmp_path: Path, demo_params: Params, settings: Settings
) -> None:
    quality = demo_params.quality.model_copy(update={"suite": "cell-painting-v3"})
    params = demo_params.model_copy(update={"quality": quality})
    batch = make_batch(plates=("p1", "p2"))
    index, rows = batch.index, batch.field_rows("p1")
    wells = index.loc[rows, "Metadata_Well"]
    line, number = wells.str[0].map(ord) - 65, wells.str[1:].astype(int) - 1
    # a 24-well plate has rows of six wells, so rows can be compared; the controls are A01 to A05
    for name in [name for name in index if name.startswith("QC_p50_")]:
        index.loc[rows, name] *= 1 + 0.5 * line
    index.loc[rows, "QC_mean_ER"] *= number.map(dict(enumerate([0.3, 1.0, 2.5, 0.6, 1.6, 1.0])))
    index.loc[rows, "QC_cells_DNA"] *= number.map(dict(enumerate([0.3, 1.0, 2.5, 0.5, 1.7, 1.0])))
    report = judged(batch, tmp_path, params, settings)
    found = {check.name: check for check in report.checks if not check.passed and check.where == "plate p1"}
    assert report.verdict == "accepted_with_warnings"
    assert {"rows_are_alike", "untreated_wells_are_equally_bright", "untreated_wells_have_as_many_cells"} <= set(found)
    assert "times the variation within a row in p50_" in found["rows_are_alike"].observed
    assert "in mean_ER" in found["untreated_wells_are_equally_bright"].observed
    assert not [check for check in report.checks if not check.passed and check.where == "plate p2"]
    assert report.red_flags is None
    (figures, other) = report.plates
    assert (figures.plate, other.plate) == ("p1", "p2")
    assert figures.row_effect > 1.25
    assert other.row_effect is None or other.row_effect < 1.25


PLANTED = {
    "columns_are_alike": ("column_effect", 1.9, "columns differ by 1.9 times"),
    "controls_are_told_apart": ("ssmd_size", 1.2, "positive and negative controls overlap"),
    "replicates_are_alike": ("replicate_spread", 1.02, "differ 1.02 times as much"),
    "edge_wells_are_like_the_others": ("edge_effect", -4.5, "by -4.5 deviations"),
}


def test_further_rules_read_their_figures(
    make_batch: Callable, tmp_path: Path, demo_params: Params, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = demo_params.quality.model_copy(update={"suite": "cell-painting-v3"})
    params = demo_params.model_copy(update={"quality": quality})

    def planted(fields: pd.DataFrame, shape: tuple[int, int]) -> dict[str, object]:
        first = fields["Metadata_Plate"].iloc[0] == "p1"
        return plate_figures(fields, shape) | ({key: value for key, value, _ in PLANTED.values()} if first else {})

    monkeypatch.setattr("coda.quality.expected_tables.plate_figures", planted)
    report = judged(make_batch(), tmp_path, params, settings)
    for rule, (_, _, words) in PLANTED.items():
        (check,) = (check for check in report.checks if check.name == rule)
        assert (check.severity, check.where, check.passed) == ("warning", "plate p1", False)
        assert words in check.observed
        assert "$" not in check.observed + check.expected + check.remedy


def test_a_plate_of_another_format_states_no_effect_of_place() -> None:
    fields = plate(6)
    assert np.isnan(plate_figures(fields, FORMATS[96])["row_effect"])
    assert np.isfinite(plate_figures(fields, FORMATS[96])["ssmd"])
    assert well_table(fields, "p50_ER", SHAPE).shape == SHAPE
