"""`coda benchmark ingest` at the smallest size: what it says must be true of what it did; nothing timed is judged."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.ingest import ingest_speed as module
from benchmarks.ingest.ingest_delivery import deliver_fields
from benchmarks.ingest.ingest_speed import SAME_WORK, measure_ingest
from benchmarks.ingest.ingest_stages import CODECS, OURS
from benchmarks.ingest.store_codecs import codec_table
from coda.cli.benchmark import app
from coda.config import load_params
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"])


@pytest.fixture(scope="module")
def report(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.os, "cpu_count", lambda: 1)
        return measure_ingest(params, folder, side=96, different=3, fields=18, turns=2)


def test_both_ways_give_the_same_pixels(report):
    assert report.largest_difference <= 1
    assert report.different_share < 0.01
    assert report.stages[0].pixels[0].shape == (5, 48, 48)


def test_every_stage_was_measured_and_sums_are_sums(report):
    for turn in report.stages:
        assert tuple(turn.ours) == OURS
        assert tuple(turn.codecs) == CODECS
        assert all(value >= 0 for value in (*turn.ours.values(), *turn.codecs.values()))
    sums = [sum(turn.ours.values()) for turn in report.stages]
    assert report.ours() == pytest.approx(min(sums))
    assert report.ours(SAME_WORK) < report.ours()
    assert len(report.times_obvious) == 2
    assert report.plates.fields == 18, "the whole plate was ingested, none set aside"
    assert report.plates.gain(1) == 1
    assert report.load.pixel_bytes == 18 * 5 * 48 * 48


def test_target2_is_reckoned_from_what_was_measured(report):
    found = report.target2()
    stored = np.mean([turn.stored_bytes for turn in report.stages])
    assert found["stored_gb"] == pytest.approx(487_000 * stored / 1e9)
    assert found["hours"] == pytest.approx(487_000 * report.ours() / 16 / 3600)
    assert found["usd_per_month"] == pytest.approx(found["stored_gb"] * 0.023)


def test_the_delivery_is_a_plate_of_links_to_few_fields(tmp_path):
    made = deliver_fields(tmp_path, different=2, fields=20, side=64)
    again = deliver_fields(tmp_path, different=2, fields=20, side=64)
    assert made == again
    manifest = BatchManifest.read(tmp_path / MANIFEST_NAME)
    images = [file for file in manifest.plates[0].files if file.path.startswith("images/")]
    assert (len(images), len({file.sha256 for file in images})) == (27 * 5, 10)
    assert (tmp_path / images[0].path).samefile(made.fields[0][0])
    assert made.raw_bytes == 5 * 64 * 64 * 2


def test_codecs_are_compared_at_equal_pixels():
    rng = np.random.default_rng(0)
    fields = [rng.integers(0, 40, (5, 32, 32)).astype(np.uint8) for _ in range(3)]
    rows = codec_table(fields, threads=2, turns=1)
    assert {row.threads for row in rows} == {1, 2}
    by_name = {(row.codec, row.chunks): row.size for row in rows}
    assert by_name["PNG, level 6", "stain"] < 0.9
    assert all(0.5 < size < 1.1 for size in by_name.values())


def test_the_command_prints_tables_and_writes_them(params, root, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    options = ["ingest", "--side", "64", "--different", "2", "--fields", "12", "--turns", "1"]
    options += ["--params", str(root / "params.yaml"), "--overlay", str(root / "params" / "demo.yaml")]
    places = ["--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--json", str(tmp_path / "j.json")]
    result = CliRunner().invoke(app, [*options, *places])
    assert result.exit_code == 0, result.output
    assert "the obvious way" in result.output
    assert (tmp_path / "o" / "report.html").is_file()
    numbers = json.loads((tmp_path / "j.json").read_text())
    assert {row["stage"] for row in numbers["tables"]["stages"]} == {*OURS, "all"}
    assert numbers["same_result"]["largest_difference"] <= 1
    assert not list((tmp_path / "w").rglob("*.ome.zarr.zip")), "only the simulated fields are kept"
