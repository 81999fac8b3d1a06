"""One plate through the whole measurement, against what lies on the disk afterwards."""

import json
import os
from pathlib import Path

import pytest
import tifffile
from typer.testing import CliRunner

from benchmarks.scale.small_plates import FIELD_PX, Delivery, experiment_of, lay_into, simulate, take_away
from coda.cli import app
from coda.config import load_params
from coda.contracts import BatchManifest
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment
from coda.simulation.laboratories import find_laboratory

SMALL = Design(mechanisms=2, compounds_per_mechanism=1, negcon_wells=1, poscon_wells=1, plate_wells=24, field_px=32)


@pytest.fixture
def environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_source_of_ones_own_has_the_plates_of_its_microscope(tmp_path):
    made = plan_experiment(1, SMALL)
    laboratory = find_laboratory("lab_b")
    by_name = simulate_batch(made, "lab_b", "b1", ["p1"], tmp_path / "name", workers=1)
    assert simulate_batch(made, laboratory, "b1", ["p1"], tmp_path / "object", workers=1) == by_name
    other = laboratory.model_copy(update={"name": "scale-01-0"})
    manifest = simulate_batch(made, other, "b1", ["p1"], tmp_path / "other", workers=1)
    assert (manifest.source, manifest.instrument) == ("scale-01-0", by_name.instrument)
    assert (tmp_path / "other" / "scale-01-0" / "b1" / "manifest.json").is_file()


def test_what_is_laid_into_the_store_is_what_was_delivered(tmp_path):
    delivery, folder, objects = Delivery("lab", "b1", 1), tmp_path / "batch", tmp_path / "objects"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "ü 1.tiff").write_bytes(b"12345")
    (folder / "manifest.json").write_bytes(b"{}")
    take_away(objects)
    assert lay_into(objects, folder, delivery) == 7
    assert lay_into(objects, folder, delivery) == 7, "again, after an interruption"
    found = {file.name: file.read_bytes() for file in (objects / "coda-landing").iterdir()}
    assert found == {"lab%2Fb1%2Fimages%2F%C3%BC%201.tiff": b"12345", "lab%2Fb1%2Fmanifest.json": b"{}"}
    take_away(objects)
    assert list((objects / "coda-landing").iterdir()) == []
    assert (folder / "manifest.json").read_bytes() == b"{}"


def test_what_was_measured_before_is_told_again_in_80_columns(tmp_path, environment):
    from benchmarks.scale.scale_runs import Scale
    from tests.benchmarks.scale.test_scale_growth import row

    params = load_params(Path("params.yaml"), [Path("params/demo.yaml")])
    kept = Scale(tmp_path / "work", params, field_px=FIELD_PX, workers=1, told=print).folder / "measured"
    kept.mkdir(parents=True)
    for plates in (1, 8):
        (kept / f"scale-{plates:02d}-0.json").write_text(json.dumps(row(plates)))
    command = ["benchmark", "scale", "--plates", "8,1", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "j")]
    done = CliRunner().invoke(app, [*command, "--objects", "0", "--manifest-plates", "0"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert "ingest_plate" in done.stdout
    assert "met" in done.stdout
    assert [size["plates"] for size in json.loads((tmp_path / "j").read_text())["sizes"]] == [1, 8]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_one_plate_is_measured_and_not_twice(tmp_path, environment):
    work, out = tmp_path / "work", tmp_path / "scale.json"
    command = ["benchmark", "scale", "--plates", "1", "--work", str(work), "--json", str(out)]
    command += ["--objects", "0", "--manifest-plates", "1", "--releases", "3"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    (found,) = json.loads(out.read_text())["sizes"]
    parts = json.loads(out.read_text())["parts"]
    assert parts["manifest"]["taken"]
    assert parts["releases"]["releases"] == 3
    assert "looks" not in parts
    experiment = experiment_of(FIELD_PX)
    images = len(experiment.imaged_wells()) * experiment.design.sites_per_well * 5
    # every image is read from the landing bucket at least once, and the plate is written to the data registry once
    assert found["raw_bytes"] <= found["traffic"]["raw"]["read_bytes"]
    assert found["traffic"]["raw"]["requests"] >= images
    assert found["stored_bytes"] <= found["traffic"]["data"]["written_bytes"] < 2 * found["stored_bytes"]
    assert found["cpu_s"] > 0
    assert {"adapt", "gate", "predict", "report"} <= found["steps"].keys()
    assert all(step["peak_bytes"] > 2**20 for name, step in found["steps"].items() if step["cpu_s"] > 1)
    before = out.read_bytes()
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "measured before" in again.output
    assert json.loads(out.read_text())["sizes"] == json.loads(before)["sizes"]

    # and what is simulated is where a later measurement finds it
    stamp = (work / f"shifted-{FIELD_PX}px" / "scale-01-0" / "b1" / "manifest.json").stat().st_mtime_ns
    simulate(Delivery("scale-01-0", "b1", 1), experiment, work / f"shifted-{FIELD_PX}px", 1, print)
    assert (work / f"shifted-{FIELD_PX}px" / "scale-01-0" / "b1" / "manifest.json").stat().st_mtime_ns == stamp


def test_a_shifted_plate_is_the_rendered_one_in_other_bytes(tmp_path):
    small = plan_experiment(1, SMALL)
    folder = simulate(Delivery("s", "b1", 2), small, tmp_path, 1, print)
    manifest = BatchManifest.read(folder / "manifest.json")
    first, second = ([file for file in plate.files if file.path.endswith(".tif")] for plate in manifest.plates)
    assert len({file.sha256 for file in (*first, *second)}) == len(first) + len(second) > 0
    for one, other in zip(first, second, strict=True):
        images = [tifffile.imread(folder / file.path) for file in (one, other)]
        assert sorted(images[0].ravel()) == sorted(images[1].ravel())
    assert simulate(Delivery("s", "b1", 2), small, tmp_path, 1, print) == folder
