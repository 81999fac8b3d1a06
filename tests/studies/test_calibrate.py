"""A calibration on two tiny seeds: every model is there, broken ones are broken, and it resumes where it stopped."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from coda.benchmark.benchmark_report import plain
from coda.cli import app
from coda.errors import ConfigError
from studies.gate_calibration.calibration import LAYOUTS, RUNS, adopt, as_json, calibrate, plan_lines, targets
from studies.gate_calibration.calibration_metrics import BETTER
from studies.gate_calibration.calibration_models import (
    BROKEN,
    OTHER_LABORATORY,
    SHUFFLED_MAP,
    WRONG_STAINS,
    shuffled_map,
)
from tests.benchmark.conftest import DESIGN

TINY_RUNS = ("lab_a:lab_b:1.0:balanced",)

MADE_HERE = set(BROKEN) - {OTHER_LABORATORY}
"""The other laboratory of these runs is the target itself, so no model is adapted to a third one."""


@pytest.fixture(scope="module")
def calibration(short, plates, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibration")
    return calibrate(
        short, out, plates / "calibration", choose_seeds=[3], report_seeds=[4],
        runs=TINY_RUNS, design={**DESIGN, "negcon_wells": 3, "poscon_wells": 2},
    )  # fmt: skip


def entries(run, **wanted):
    return [entry for entry in run["models"] if all(entry[key] == value for key, value in wanted.items())]


def test_every_model_is_measured_in_every_way_of_serving(calibration):
    for run in (*calibration.choose.runs, *calibration.report.runs):
        names = {(entry["model"], entry["view"]) for entry in run["models"]}
        assert {name for name, _ in names} >= {"unadapted", "coda", "oda", *MADE_HERE}
        assert {name for name, _ in names if name.startswith("coda@")}, "checkpoints on the way"
        assert {("unadapted", SHUFFLED_MAP), ("unadapted", WRONG_STAINS)} <= names
        assert len(run["models"]) == 3 * len(names)
        for entry in run["models"]:
            assert set(entry["metrics"]) <= set(BETTER)
            assert all(np.isfinite(value) for value in entry["metrics"].values())
            assert 0 <= entry["field_accuracy"] <= 1


def test_together_the_models_have_every_metric_that_these_plates_allow(calibration):
    found = {name for run in calibration.choose.runs for entry in run["models"] for name in entry["metrics"]}
    # one positive-control compound is never confused with another
    assert set(BETTER) - found == {"control_accuracy"}


def test_broken_models_are_broken(calibration):
    run = calibration.choose.runs[0]
    for entry in entries(run, model="collapsed"):
        assert entry["metrics"]["feature_spread"] == pytest.approx(0, abs=1e-3)
        assert entry["metrics"]["top_class_share"] == 1
    start, shuffled = (entries(run, model="unadapted", view=view)[0] for view in ("as they are", SHUFFLED_MAP))
    assert start["field_accuracy"] == shuffled["field_accuracy"], "the truth knows the true map"
    assert start["metrics"]["marginal_entropy"] == shuffled["metrics"]["marginal_entropy"]
    assert start["metrics"]["replicate_map"] != shuffled["metrics"]["replicate_map"]
    permuted = entries(run, model="unadapted", view=WRONG_STAINS)[0]
    assert permuted["metrics"]["rankme"] != start["metrics"]["rankme"]


def test_the_gate_is_asked_about_three_simple_ways_and_three_adapted_ones(calibration):
    for run in calibration.choose.runs:
        assert set(run["sets"]) == {"coda", "oda", *MADE_HERE}
        for name, group in run["sets"].items():
            own = [run["models"][place] for place in group["candidates"]]
            assert [entry["measures"]["name"] for entry in own][:3] == ["unadapted", "aligned", "coral"]
            assert {entry["model"] for entry in own[3:]} == {name}
            assert len({entry["view"] for entry in own}) == 1
            assert {item["name"] for item in run["references"][group["references"]]} == {"pixels", "untrained"}


def test_it_goes_on_from_what_is_kept_and_gives_the_same(calibration, short, plates, tmp_path):
    told = []
    again = calibrate(
        short, tmp_path, plates / "calibration", choose_seeds=[3], report_seeds=[4], runs=TINY_RUNS,
        design={**DESIGN, "negcon_wells": 3, "poscon_wells": 2}, report=told.append,
    )  # fmt: skip
    assert {event.state for event in told} == {"kept"}
    assert plain(as_json(again)) == plain(as_json(calibration))


def test_the_report_and_the_numbers_for_programs_hold_ranks_decisions_and_thresholds(calibration, short):
    folder = calibration.page.parent
    assert {path.suffix for path in folder.iterdir()} >= {".html", ".csv", ".png"}
    numbers = json.loads(json.dumps(plain(as_json(calibration)), allow_nan=False))
    assert {row["metric"] for row in numbers["choose"]["ranks"]} == set(BETTER)
    present = short.gate.policy
    assert set(numbers["report"]["gates"]) == {present.title, f"{present.name}-v{present.version + 1}"}
    assert numbers["derived"]["adopt"] == adopt(calibration)
    page = calibration.page.read_text()
    assert "Which metric ranks models as the truth does" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_shuffled_map_moves_whole_wells_within_their_plate_and_leaves_controls(fields):
    table = fields.table.assign(Metadata_pert_type=["negcon", *["trt"] * (len(fields) - 1)])
    table["Metadata_Well"] = [f"A{number // 2 % 12 + 1:02d}" for number in range(len(table))]
    shuffled = shuffled_map(table, seed=1)
    assert (shuffled["Metadata_Treatment"] != table["Metadata_Treatment"]).any()
    assert shuffled["Metadata_Treatment"].iloc[0] == table["Metadata_Treatment"].iloc[0]
    other = [name for name in table.columns if name not in ("Metadata_Treatment", "Metadata_Compound")]
    assert shuffled[other].equals(table[other])
    assert shuffled_map(table, seed=1).equals(shuffled)
    assert not shuffled_map(table, seed=2).equals(shuffled)
    trt = shuffled["Metadata_pert_type"] == "trt"
    for _, plate in shuffled[trt].groupby(["Metadata_Batch", "Metadata_Plate"]):
        assert (plate.groupby("Metadata_Well")["Metadata_Treatment"].nunique() == 1).all()


def test_runs_and_seeds_are_checked_together(short, tmp_path):
    with pytest.raises(ConfigError) as error:
        targets(["lab_a:lab_b", "lab_a:lab_a:1:balanced", "lab_a:lab_b:9:balanced", "lab_a:lab_b:1:odd"], [3], short,
                tmp_path)  # fmt: skip
    assert len(error.value.problems) == 4
    with pytest.raises(ConfigError, match="share seeds"):
        calibrate(short, tmp_path, tmp_path, choose_seeds=[3, 4], report_seeds=[4], runs=TINY_RUNS)


def test_shift_and_layout_reach_the_plates_and_models_are_shared(short, tmp_path):
    found = targets(RUNS, [10], short, tmp_path)
    assert {target.trained.job().digest for target in found if target.trained.source == "lab_a"}.__len__() == 1
    assert len({target.job().digest for target in found}) == len(RUNS)
    by_layout = {target.layout: target.data.plan.sources[0] for target in found}
    assert {layout: source.batches for layout, source in by_layout.items()} == {
        layout: batches for layout, (batches, _) in LAYOUTS.items()
    }
    assert by_layout["unbalanced"].wells["mTOR inhibitor"] == "tubulin inhibitor"
    strengths = {target.shift: target.data.plan.sources[0].laboratory.optics.haze for target in found
                 if target.name == "lab_b"}  # fmt: skip
    assert strengths[0.5] > strengths[1.0] > strengths[1.3], "a confocal has less haze the further one goes"


def test_the_plan_counts_models_and_targets(short, tmp_path):
    lines = plan_lines(RUNS, [10, 11], [20], short, tmp_path)
    assert lines[0] == f"6 source models, {3 * len(RUNS)} targets; 0 of {6 + 3 * len(RUNS)} are there already."
    assert len(lines) == len(RUNS) + 2


def test_the_command_refuses_shared_seeds_before_any_work(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    result = CliRunner().invoke(
        app, ["benchmark", "calibrate", "--choose-seeds", "10", "--report-seeds", "10", "--work", str(tmp_path / "w")]
    )
    assert result.exit_code != 0
    assert not (tmp_path / "w").exists()
