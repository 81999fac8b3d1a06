"""Validation of a batch: what is refused, in which words, what stays, and that asking twice changes nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from coda.config import Params
from coda.contracts import STAINS
from coda.contracts.ingest import ContractProblem
from coda.contracts.quality import QualityReport
from coda.errors import ConfigError, ContractError
from coda.quality.batch_quality import INGESTED, accepted_indexes
from coda.quality.earlier_plates import history_table
from coda.quality.suite import SUITES, load_suite
from coda.settings import Settings
from coda.steps.validate import validate, verdict

PLATE = "Metadata_Plate"


@pytest.fixture
def judge(tmp_path: Path, demo_params: Params, settings: Settings) -> Callable[..., QualityReport]:
    def run(batch: object, history: Path | None = None, **quality: object) -> QualityReport:
        batch.write(tmp_path / "ds")
        params = demo_params.model_copy(update={"quality": demo_params.quality.model_copy(update=quality)})
        return validate(tmp_path / "ds", params=params, settings=settings, history=history)[-1]

    return run


def failed(report: QualityReport, severity: str | None = None) -> set[str]:
    return {check.name for check in report.checks if not check.passed and severity in (None, check.severity)}


def test_a_good_batch_is_accepted_whole(make_batch: Callable, judge: Callable, tmp_path: Path) -> None:
    report = judge(make_batch())
    assert report.verdict == "accepted_with_warnings"
    assert failed(report) == {"treatments_are_in_another_batch", "instrument_is_known", "stains_can_be_compared"}
    assert report.plates_accepted == ("p1", "p2")
    assert report.fields_accepted == report.fields_expected == 96
    assert report.sentence == "Batch lab_x/b1 was accepted with 1 warning: all 2 plates can be used."
    folder = tmp_path / "ds" / "lab_x" / "b1"
    assert not (folder / INGESTED).exists()
    assert QualityReport.read(folder / "quality.json") == report
    assert verdict(tmp_path / "ds") == "accepted"


def lose_wells(batch: object, plate: str) -> None:
    batch.index = batch.index[~(batch.field_rows(plate) & batch.index["Metadata_Well"].isin(["A06", "B02", "D06"]))]


def unmap(batch: object, plate: str) -> None:
    batch.wells = batch.wells[~((batch.wells[PLATE] == plate) & (batch.wells["Metadata_Well"] == "B03"))]


def outside(batch: object, plate: str) -> None:
    extra = batch.wells[batch.wells[PLATE] == plate].iloc[:1].assign(Metadata_Well="P24")
    batch.wells = pd.concat([batch.wells, extra], ignore_index=True)


def map_twice(batch: object, plate: str) -> None:
    batch.wells = pd.concat([batch.wells, batch.wells[batch.wells[PLATE] == plate].iloc[:1]], ignore_index=True)


def set_to(column: str, value: object) -> Callable[[object, str], None]:
    return lambda batch, plate: batch.change(column, value, plate)


def swap_stains(batch: object, plate: str) -> None:
    rows = batch.field_rows(plate)
    for name in [name for name in batch.index if name.startswith("QC_") and name.endswith("_DNA")]:
        other = name.replace("_DNA", "_AGP")
        if other in batch.index:
            batch.index.loc[rows, [name, other]] = batch.index.loc[rows, [other, name]].to_numpy()


def few_controls(batch: object, plate: str) -> None:
    rows = batch.field_rows(plate) & ~batch.index["Metadata_Well"].isin(["A01", "A02"])
    batch.index.loc[rows, "Metadata_pert_type"] = "trt"


def repeat_field(batch: object, plate: str) -> None:
    batch.index = pd.concat([batch.index, batch.index[batch.field_rows(plate)].iloc[:1]], ignore_index=True)


def refused_by_ingest(batch: object, plate: str) -> None:
    batch.index = batch.index[~batch.field_rows(plate)]
    reason = "Only 24 of 48 expected fields can be read"
    batch.outcomes[plate] = {"outcome": "refused", "fields_accepted": 0, "fields_readable": 24, "reason": reason}


def absent(batch: object, plate: str) -> None:
    batch.index = batch.index[~batch.field_rows(plate)]


def bad_kind(batch: object, plate: str) -> None:
    batch.wells.loc[batch.wells[PLATE] == plate, "Metadata_pert_type"] = "control?"


def problem(batch: object, plate: str) -> None:
    where = f"plate {plate}, load.csv"
    fault = ContractProblem(plate=plate, where=where, found="no column X", expected="X", remedy="Add X.")
    batch.problems.append(fault)


def other_cells(batch: object, plate: str) -> None:
    for name in [name for name in batch.index if name.startswith("QC_match") and "Mito" in name]:
        batch.change(name, 0.7, plate)


CRITICAL = {
    "lost": (lose_wells, "plates_are_complete_enough", ["42 of 48", "87.5 %"]),
    "unmapped": (unmap, "imaged_wells_are_mapped", ["B03"]),
    "outside": (outside, "plate_map_fits_the_plate", ["P24", "24-well"]),
    "twice": (map_twice, "wells_are_mapped_once", ["A01"]),
    "swapped": (swap_stains, "nuclei_are_in_the_dna_stain", ["AGP", "nuclei", "0 %"]),
    "uncontrolled": (few_controls, "negative_controls_are_there", ["2 negative-control wells"]),
    "repeated": (repeat_field, "fields_are_listed_once", ["A01", "site 1"]),
    "refused": (refused_by_ingest, "plates_are_delivered", ["Only 24 of 48 expected fields"]),
    "absent": (absent, "plates_are_delivered", ["no field of it could be read"]),
    "kinds": (bad_kind, "kinds_of_wells_are_known", ["control?"]),
    "problem": (problem, "delivery_keeps_its_contract", ["load.csv: no column X", "expected X"]),
    "untreated": (set_to("Metadata_Treatment", None), "fields_are_in_wells_with_a_treatment", ["without a treatment"]),
    "saturated": (set_to("QC_saturation_ER", 0.2), "pictures_are_not_saturated", ["ER", "20 %"]),
    "black": (set_to("QC_near_black_RNA", 1.0), "pictures_are_not_black", ["RNA", "100 %"]),
    "unstained": (set_to("QC_snr_Mito", 3.5), "stains_can_be_seen", ["Mito", "3.5"]),
    "elsewhere": (other_cells, "stains_show_the_same_cells", ["Mito", "other things", "0.7"]),
    "blurred": (set_to("QC_focus_AGP", -11.0), "focus_is_plausible", ["AGP", "-11"]),
    "empty": (set_to("QC_cells_DNA", 0.0), "cells_are_there", ["0 nuclei"]),
}


def test_each_critical_fault_refuses_its_plate_alone_in_plain_words(
    make_batch: Callable, judge: Callable, tmp_path: Path
) -> None:
    batch = make_batch(plates=("good", *CRITICAL))
    for plate, (fault, _, _) in CRITICAL.items():
        fault(batch, plate)
    report = judge(batch, batch_quorum=0.0)
    assert report.verdict == "accepted_with_warnings"
    assert report.plates_accepted == ("good",)
    assert set(report.plates_refused) == set(CRITICAL)
    for plate, (_, name, words) in CRITICAL.items():
        stops = {c.name: c for c in report.checks if c.where == f"plate {plate}" and c.severity == "critical"}
        assert name in stops, plate
        check = stops[name]
        assert check.reason
        assert check.remedy
        assert all(word in check.observed for word in words), check.observed
        assert "$" not in check.observed + check.expected + check.remedy
    assert not [check for check in report.checks if check.where == "plate good" and check.severity == "critical"]
    assert f"1 of {len(CRITICAL) + 1} plates can be used. Plate lost: 42 of 48 fields" in report.sentence
    kept = pd.read_parquet(tmp_path / "ds/lab_x/b1/index.parquet")
    assert set(kept[PLATE]) == {"good"}
    assert report.fields_accepted == len(kept) == 48


def sparse_edges(batch: object, plate: str) -> None:
    sides = batch.index["Metadata_Well"].str.match(r".*0[16]$")
    batch.index.loc[batch.field_rows(plate) & sides, "QC_cells_DNA"] = 3.0


def sparse_edges_of_controls(batch: object, plate: str) -> None:
    """All wells untreated, those at the edge (all but B02 to C05) with few cells."""
    rows = batch.field_rows(plate)
    edge = ~batch.index["Metadata_Well"].str.match(r"[BC]0[2-5]$")
    batch.index.loc[rows, "Metadata_pert_type"] = "negcon"
    batch.index.loc[rows & edge, "QC_cells_DNA"] = 30.0


def few_foreign_fields(batch: object, plate: str) -> None:
    """Three fields alone can be compared, and their ER shows other cells: too little to refuse a plate."""
    pairs = [name for name in batch.index if name.startswith("QC_match_") and "ER" in name]
    rows = batch.index.index[batch.field_rows(plate)]
    batch.index.loc[rows[:3], pairs] = 0.7
    batch.index.loc[rows[3:], pairs] = np.nan


def drop_one(batch: object, plate: str) -> None:
    batch.index = batch.index.drop(index=batch.index.index[batch.field_rows(plate)][10])


def drop_well(batch: object, plate: str) -> None:
    batch.index = batch.index[~(batch.field_rows(plate) & (batch.index["Metadata_Well"] == "C04"))]


def pale_nuclei(batch: object, plate: str) -> None:
    """DNA about as nuclear as the best of the other stains: a weak stain, no proof of a swap."""
    for name in ("separability", "foreground", "focus"):
        rows = batch.field_rows(plate)
        batch.index.loc[rows, f"QC_{name}_DNA"] = batch.index.loc[rows, [f"QC_{name}_RNA"]].to_numpy().ravel()


WARNINGS = {
    "copied": (set_to("sha256", "f" * 64), "pictures_are_all_different"),
    "bright": (set_to("QC_saturation_ER", 0.03), "few_pictures_are_saturated"),
    "pale": (pale_nuclei, "nuclei_stand_out_in_the_dna_stain"),
    "faint": (set_to("QC_snr_Mito", 7.0), "stains_are_strong"),
    "fainter": (set_to("QC_snr_Mito", 9.5), "stains_are_as_strong_as_on_other_plates"),
    "soft": (set_to("QC_focus_AGP", -4.5), "focus_is_as_on_other_plates"),
    "sparse": (sparse_edges, "few_wells_are_sparse"),
    "edges": (sparse_edges_of_controls, "edge_wells_are_like_the_others"),
    "lone": (few_foreign_fields, "stains_seem_to_show_the_same_cells"),
    "short": (drop_one, "plates_are_complete"),
    "gap": (drop_well, "wells_are_all_there"),
}


def test_lesser_faults_are_warnings_and_refuse_nothing(make_batch: Callable, judge: Callable) -> None:
    batch = make_batch(plates=("good", *WARNINGS))
    for plate, (fault, _) in WARNINGS.items():
        fault(batch, plate)
    report = judge(batch)
    assert report.plates_refused == ()
    for plate, (_, name) in WARNINGS.items():
        assert name in {c.name for c in report.checks if c.where == f"plate {plate}" and c.severity == "warning"}
    assert not [check for check in report.checks if check.where == "plate good"]


def test_a_batch_below_its_quorum_is_refused_whole(make_batch: Callable, judge: Callable, tmp_path: Path) -> None:
    batch = make_batch(plates=("p1", "p2", "p3"))
    for plate in ("p1", "p3"):
        batch.change("QC_near_black_DNA", 1.0, plate)
    report = judge(batch)
    assert report.verdict == "refused"
    assert report.refused
    assert report.fields_accepted == 0
    assert report.sentence.startswith(
        "Batch lab_x/b1 was refused: 2 of 3 plates cannot be used. Plates p1, p3: 100 % of"
    )
    assert "What to do: Check the microscope's log" in report.sentence
    assert "enough_plates_are_left" in failed(report, "critical")
    assert len(pd.read_parquet(tmp_path / "ds/lab_x/b1/index.parquet")) == 0
    assert verdict(tmp_path / "ds") == "refused"


@pytest.mark.parametrize("kind", ["whole problem", "missing columns"])
def test_what_concerns_the_whole_batch_refuses_it(kind: str, make_batch: Callable, judge: Callable) -> None:
    batch = make_batch()
    if kind == "whole problem":
        batch.problems.append(ContractProblem(where="manifest", found="stain Actin", expected="AGP", remedy="Rename."))
    else:
        batch.index = batch.index.drop(columns=["Metadata_Treatment", "sha256"])
    report = judge(batch)
    assert report.refused
    assert report.plates_accepted == ()
    if kind == "whole problem":
        assert "stain Actin" in report.sentence
    else:
        assert "index_has_its_columns" in failed(report, "critical")


def test_asking_twice_gives_the_same_report_and_never_un_refuses(
    make_batch: Callable, judge: Callable, tmp_path: Path, demo_params: Params, settings: Settings
) -> None:
    batch = make_batch()
    few_controls(batch, "p1")
    first = judge(batch)
    again = validate(tmp_path / "ds", params=demo_params, settings=settings)[0]
    assert again == first
    lax = demo_params.model_copy(update={"quality": demo_params.quality.model_copy(update={"min_negcon_wells": 0})})
    third = validate(tmp_path / "ds", params=lax, settings=settings)[0]
    assert third.plates_refused == ("p1",)
    assert "refused_before" in failed(third, "critical")
    assert set(pd.read_parquet(tmp_path / "ds/lab_x/b1/index.parquet")[PLATE]) == {"p2"}


def test_a_refused_batch_stays_refused_and_a_new_delivery_is_judged_afresh(
    make_batch: Callable, judge: Callable
) -> None:
    batch = make_batch()
    for plate in ("p1", "p2"):
        batch.change("QC_near_black_DNA", 1.0, plate)
    assert judge(batch).refused
    assert judge(batch, batch_quorum=0.0).refused
    fresh = make_batch(seed=1)
    fresh.outcomes["p1"] = {"reason": "delivered again"}
    report = judge(fresh)
    assert not report.refused
    assert report.fields_accepted == 96


def test_history_warns_of_a_changed_stain_and_a_new_instrument_starts_its_own(
    make_batch: Callable, judge: Callable, tmp_path: Path
) -> None:
    for number in range(3):
        make_batch(batch=f"a{number}", seed=number).write(tmp_path / "history")
    changed = make_batch(batch="b2")
    changed.change("QC_p95_Mito", 9000.0, "p2")
    report = judge(changed, tmp_path / "history")
    found = [check for check in report.checks if check.name == "plates_are_like_earlier_ones" and not check.passed]
    assert [check.where for check in found] == ["plate p2"]
    assert "p95 of Mito is 9000" in found[0].observed
    assert found[0].severity == "warning"
    assert report.plates_refused == ()
    assert failed(report, "info") == set()
    assert "treatments_are_in_another_batch" not in failed(report)
    new = make_batch(batch="b3", instrument="Microscope 2")
    new.change("QC_p95_Mito", 9000.0, "p2")
    report = judge(new, tmp_path / "history")
    assert "plates_are_like_earlier_ones" not in failed(report)
    assert "instrument_is_known" in failed(report, "info")


def test_refused_batches_are_no_history(make_batch: Callable, judge: Callable, tmp_path: Path) -> None:
    good = judge(make_batch(batch="b1"))
    for number in range(3):
        folder = make_batch(batch=f"a{number}", seed=number).write(tmp_path / "history")
        good.model_copy(update={"verdict": "refused"}).write(folder / "quality.json")
    assert accepted_indexes(tmp_path / "history", "lab_x") == []
    make_batch(batch="a3").write(tmp_path / "history")
    assert [len(index) for index in accepted_indexes(tmp_path / "history", "lab_x")] == [96]
    assert accepted_indexes(tmp_path / "history", "lab_x", besides=["a3"]) == []
    assert accepted_indexes(None, "lab_x") == accepted_indexes(tmp_path / "nowhere", "lab_x") == []


def test_an_unchanged_batch_is_not_called_different(make_batch: Callable) -> None:
    earlier = pd.concat([make_batch(batch=f"a{number}", seed=number).index for number in range(4)])
    rules = load_suite("cell-painting-v3").history
    table = history_table(make_batch(batch="b9", seed=77).index, earlier, STAINS, rules, 4)
    assert len(table) == 2 * (5 * len(rules.statistics) + 10)
    assert table["distance_mads"].max() < 5
    assert len(history_table(make_batch().index, earlier, STAINS, rules, 9)) == 0


def test_one_plate_and_lonely_treatments_are_warnings(make_batch: Callable, judge: Callable) -> None:
    report = judge(make_batch(plates=("p1",)))
    assert {"there_is_more_than_one_plate", "treatments_can_be_paired"} <= failed(report, "warning")
    assert not report.refused
    assert "its one plate can be used" in report.sentence


def edited_suite(tmp_path: Path, **changes: object) -> str:
    content = yaml.safe_load((SUITES / "cell-painting-v3.yaml").read_text(encoding="utf-8"))
    item = next(item for item in content["expectations"] if item["name"] == "edge_wells_are_like_the_others")
    item.update(changes)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_a_crashed_warning_counts_as_critical(make_batch: Callable, judge: Callable, tmp_path: Path) -> None:
    suite = edited_suite(tmp_path, arguments={"column": "no_such_column", "max_value": 3})
    report = judge(make_batch(), suite=suite)
    assert report.refused
    check = next(check for check in report.checks if check.name == "edge_wells_are_like_the_others")
    assert check.severity == "critical"
    assert "no_such_column" in check.observed
    assert "suite" in check.remedy


@pytest.mark.parametrize(
    "changes", [{"expect": "expect_miracles"}, {"arguments": {"column": "edge_effect", "min_value": "low"}}]
)
def test_an_impossible_expectation_is_the_operators_to_correct(
    changes: dict, make_batch: Callable, judge: Callable, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="edge_wells_are_like_the_others"):
        judge(make_batch(), suite=edited_suite(tmp_path, **changes))


def test_a_laboratory_can_tighten_a_limit(make_batch: Callable, judge: Callable, tmp_path: Path) -> None:
    arguments = {"column": "cells_median", "min_value": 100}
    report = judge(make_batch(), suite=edited_suite(tmp_path, arguments=arguments, severity="critical"))
    assert report.refused


def test_data_docs_agree_with_the_report(
    make_batch: Callable, judge: Callable, tmp_path: Path, demo_params: Params, settings: Settings
) -> None:
    batch = make_batch()
    few_controls(batch, "p1")
    report = judge(batch)
    docs = tmp_path / "ds/lab_x/b1/data_docs"
    assert (docs / "index.html").is_file()
    pages = {
        page.parent.parent.parent.name: page.read_text(encoding="utf-8") for page in docs.glob("validations/**/*.html")
    }
    tables = {name.rsplit(".", 1)[-1] for name in pages}
    assert tables == {"fields", "wells", "plates", "stains", "batch", "problems", "history"}
    names = {check.name for check in report.checks} - {"enough_plates_are_left"}
    text = "".join(pages.values())
    assert all(name.replace("_", " ") in text for name in names)
    elsewhere = settings.model_copy(update={"data_docs": str(tmp_path / "docs")})
    validate(tmp_path / "ds", params=demo_params, settings=elsewhere)
    assert (tmp_path / "docs/lab_x/b1/index.html").is_file()


def test_unfinished_folders_are_named(
    tmp_path: Path, demo_params: Params, settings: Settings, make_batch: Callable
) -> None:
    with pytest.raises(ContractError, match="nothing to validate"):
        validate(tmp_path, params=demo_params, settings=settings)
    folder = make_batch().write(tmp_path / "ds")
    with pytest.raises(ContractError, match="no verdict"):
        verdict(tmp_path / "ds")
    (folder / "ingest.json").unlink()
    with pytest.raises(ContractError, match=r"ingest\.json"):
        validate(tmp_path / "ds", params=demo_params, settings=settings)


def test_statistics_that_are_missing_are_no_failure(make_batch: Callable, judge: Callable) -> None:
    batch = make_batch()
    batch.index.loc[batch.index.index[:5], [name for name in batch.index if name.startswith("QC_")]] = np.nan
    assert not failed(judge(batch), "critical")


def test_great_expectations_is_imported_only_to_validate() -> None:
    code = "import sys, coda.quality.batch_quality, coda.steps.validate; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
