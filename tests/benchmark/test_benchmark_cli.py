"""`coda benchmark` on ingested plates, its messages, and what Ctrl-C leaves."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from coda.benchmark import table3 as module
from coda.cli.benchmark import app
from coda.errors import CodaError, ConfigError
from tests.benchmark.conftest import SHORT
from tests.training.conftest import TINY


def invoke(root, ingested_plates, out, *more):
    arguments = ["table3", "--seeds", "0,1", "--dataset", str(ingested_plates / "dataset"), "--labels"]
    arguments += [
        str(ingested_plates / "labels.csv"),
        "--work",
        str(ingested_plates / "work"),
        "--out",
        str(out),
        "--processes",
        "1",
    ]
    arguments += ["--params", str(root / "params.yaml"), "--overlay", str(root / "params" / "demo.yaml")]
    settings = [part for change in (*TINY, *SHORT) for part in ("--set", change)]
    return CliRunner().invoke(app, [*arguments, *settings, *more])


def test_a_table_on_ingested_plates_and_its_files(root, ingested_plates, tmp_path):
    found = invoke(root, ingested_plates, tmp_path, "--source", "lab_a", "--json", str(tmp_path / "all.json"))
    assert found.exit_code == 0, found.exception
    assert f"Wrote {tmp_path / 'report.html'}" in found.output
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["setting"]["targets"] == ["lab_b"]
    assert content["setting"]["simulated"] is False
    table = pd.read_csv(tmp_path / "table3_lab_a_image_accuracy.csv")
    assert table["system"].tolist() == list(module.SYSTEMS)
    assert table["lab_b sd"].notna().all()
    assert "another run on the same plates" in (tmp_path / "report.html").read_text()


def test_ctrl_c_says_how_to_go_on_and_keeps_what_is_finished(root, ingested_plates, tmp_path, monkeypatch):
    from coda.benchmark import job

    done = []
    real = job.write_job

    def interrupted(*args):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(real(*args))

    monkeypatch.setattr(job, "write_job", interrupted)
    work = ("--work", str(tmp_path / "work"), "--source", "lab_a")
    stopped = invoke(root, ingested_plates, tmp_path / "out", *work)
    assert stopped.exit_code == 130
    assert "the same command resumes" in " ".join(stopped.output.split())
    monkeypatch.setattr(job, "write_job", real)
    finished = invoke(root, ingested_plates, tmp_path / "out", *work)
    assert finished.exit_code == 0
    assert "kept seed 0" in finished.output


def test_failed_jobs_are_named_the_report_is_written_and_the_command_fails(
    root, ingested_plates, tmp_path, monkeypatch
):
    from coda.training.methods.registry import method_of

    def broken(*_args, **_kwargs):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(type(method_of("mae")), "train", broken)
    found = invoke(root, ingested_plates, tmp_path / "out", "--work", str(tmp_path / "work"), "--source", "lab_a")
    assert isinstance(found.exception, CodaError)
    assert "Dual-model-MAE on lab_a: found RuntimeError: no more memory" in str(found.exception)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not complete: 6 jobs failed" in page
    assert "ODA" in page


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "Name one, for example --source source_3"),
        (("--source", "lab_z"), "batches of lab_z"),
        (("--source", "lab_a", "--target", "lab_a"), "a source other than lab_a"),
        (("--source", "lab_a", "--seeds", "1,1"), "each once"),
        (("--source", "lab_a", "--seeds", "one"), "whole numbers"),
    ],
)
def test_messages(root, ingested_plates, tmp_path, more, said):
    found = invoke(root, ingested_plates, tmp_path, *more)
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)


def test_real_plates_need_labels(root, ingested_plates, tmp_path):
    found = CliRunner().invoke(app, ["table2", "--dataset", str(ingested_plates / "dataset"), "--out", str(tmp_path)])
    assert isinstance(found.exception, ConfigError)
    assert "--labels" in str(found.exception)


@pytest.mark.parametrize(
    ("shift", "said"), [("optical:1", "no --dataset beside it"), ("optic:1", "Write for example --shift optical:1")]
)
def test_only_simulated_plates_are_shifted(ingested_plates, tmp_path, shift, said):
    dataset = ["--dataset", str(ingested_plates / "dataset"), "--labels", str(ingested_plates / "labels.csv")]
    found = CliRunner().invoke(app, ["table2", *dataset, "--out", str(tmp_path), "--shift", shift])
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)


def test_shifts_and_systems_reach_the_table(root, tmp_path, monkeypatch):
    from coda.benchmark import table2
    from coda.cli import benchmark_options
    from coda.simulation.shifts import read_shifts

    given = {}

    def setting(*_, shifts, **more):
        given.update(more, shifts=shifts)
        return SimpleNamespace(root=tmp_path)

    def run(*_, systems, **__):
        given["systems"] = systems
        return SimpleNamespace(page="page", outcomes=[])

    monkeypatch.setattr(benchmark_options, "simulated_setting", setting)
    monkeypatch.setattr(table2, "table2", run)
    shifts = ["--shift", "optical:1", "--shift", "all:1+missing:0.5", "--target", "lab_e"]
    params = ["--params", str(root / "params.yaml"), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, ["table2", *params, *shifts, "--system", "CODA"])
    assert found.exit_code == 0, found.exception
    assert given["shifts"] == [read_shifts("optical:1"), read_shifts("all:1+missing:0.5")]
    assert (given["targets"], list(given["systems"])) == (["lab_e"], ["CODA"])
