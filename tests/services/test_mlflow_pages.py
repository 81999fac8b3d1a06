"""What people see in MLflow: a real server, real runs of the register and report steps, a real Chromium."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from mlflow_server import _wait
from report_inputs import gate_report, manifest
from servers import Moto, free_port, moto_server
from tiny_models import tiny, train

from coda.adaptation.candidates import Candidate, write_candidates
from coda.config import Params
from coda.contracts import DataRevision, StepRecord
from coda.networks import artifact
from coda.registry import EXTRACTOR, ReleaseLog, describe, find
from coda.registry.mlflow_client import connect, experiment_id
from coda.settings import Settings
from coda.steps.register_adaptation import register_adaptation
from coda.steps.register_training import register_training
from coda.steps.release import release
from coda.steps.tracked_run import keep_report
from coda.steps.version import write_revisions

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium (tests/services/run.sh)"),
]
__all__ = ["moto_server"]

STEPS = [StepRecord(name="ingest", seconds=41.0), StepRecord(name="adapt", seconds=310.0)]


def log(start: float, iterations: int) -> list[dict[str, float]]:
    return [
        {
            "iteration": float(k), "loss": start * math.exp(-k / iterations) + 0.05 * math.sin(k),
            "learning_rate": 1e-3 * (1 + math.cos(math.pi * k / iterations)) / 2, "momentum": 0.996,
            "gradient_norm": 1.2, "loss_share": 0.7, "teacher_entropy": 0.4 + 0.2 * math.exp(-k / 40),
            "mean_entropy": 0.9, "feature_spread": 0.8 - 0.1 * math.exp(-k / 30),
        }
        for k in range(0, iterations, 5)
    ]  # fmt: skip


def speed(iterations: int) -> list[dict[str, float]]:
    return [{"iteration": float(k), "samples_per_s": 80 + 5 * math.sin(k)} for k in range(0, iterations, 5)]


def revisions(folder: Path, source: str, batch: str) -> Path:
    data = DataRevision(
        source=source, batch=batch, path=f"data/{source}/{batch}", revision="a" * 40, digest=f"{'0' * 32}.dir"
    )
    return write_revisions(folder / f"{source}-{batch}.json", [data])


def adapt(work: Path, run_id: str, batch: str, start: float, params: Params, settings: Settings) -> None:
    """An adaptation of one batch, from its candidates on."""
    folder = work / run_id
    shutil.copytree(work / "trained" / "pretrained" / "extractor", folder / "extractor")
    base = ReleaseLog(settings).current("default")
    digests = {describe(ref, settings=settings).tags["alignment"]: ref.digest for ref in base.heads}
    new = artifact.folder_digest(folder / "extractor")
    ways = [
        Candidate(
            name=name, extractor=extractor, alignment="none", head="none", head_digest=digests["none"],
            extractor_digest=base.extractor.digest if extractor == "base" else new,
        )
        for name, extractor in (("unadapted", "base"), ("coda+aligned", "adapted"))
    ]  # fmt: skip
    write_candidates(folder, ways)
    base.write(folder / "base_release.json")
    learned = {"log": log(start, 120), "speed": speed(120), "alarms": []}
    (folder / "training.json").write_text(json.dumps(learned))
    gate_report(manifest("lab_b", batch)).write(folder / "gate.json")
    register_adaptation(
        folder, folder / "gate.json", revisions(work, "lab_b", batch), work / f"{run_id}.json", params=params,
        settings=settings, run_id=run_id,
    )  # fmt: skip
    page = work / f"{run_id}.html"
    page.write_text("<h1>Report of a batch</h1><p>Replicates agree better than before.</p>")
    keep_report(run_id, page, STEPS, settings)


@pytest.fixture(scope="module")
def served(moto_server: Moto, demo_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One training and two adaptations in MLflow, whose own server is the only way to it."""
    work, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
        f"--backend-store-uri=sqlite:///{work / 'mlflow.db'}", f"--artifacts-destination={work / 'artifacts'}",
    ]  # fmt: skip
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    with (work / "server.log").open("wb") as output:
        server = subprocess.Popen(
            command, cwd=work, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(port, server, work / "server.log")
        values = moto_server.settings(work).model_dump() | {
            "mlflow_uri": f"http://127.0.0.1:{port}", "mlflow_artifacts": None,
        }  # fmt: skip
        settings, params = Settings(**values), tiny(demo_params)
        trained = train(work / "trained", params, seed=1)
        learned = {"log": log(6.0, 300), "speed": speed(300), "alarms": []}
        (trained.pretrained / "pretraining.json").write_text(json.dumps(learned))
        (work / "metrics.json").write_text(json.dumps({"none_accuracy_field": 0.71, "none_accuracy_well": 0.8}))
        register_training(
            trained.pretrained, trained.heads, work / "metrics.json", revisions(work, "lab_a", "b1"),
            work / "train.json", params=params, settings=settings, run_id="train-lab_a-0",
        )  # fmt: skip
        release(work / "train.json", work / "served.json", settings=settings, run_id="train-lab_a-0", approver="gate")
        adapt(work, "adapt-lab_b-b2", "b2", 5.0, params, settings)
        adapt(work, "adapt-lab_b-b3", "b3", 4.0, params, settings)
        yield settings
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def shown(browser: Browser, address: str, *words: str, picture: Path) -> None:
    """Open a page of MLflow, wait until it says these words, and take a picture of it."""
    browser.open(address, width=1500, height=1300)
    for word in words:
        browser.wait(f"document.body.innerText.includes({json.dumps(word)})")
    browser.picture(picture)


def named(settings: Settings) -> tuple[str, dict[str, str]]:
    client = connect(settings)
    experiment = experiment_id(client, settings)
    return experiment, {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}


def test_the_page_of_a_run_says_what_it_was(served: Settings, browser: Browser, tmp_path: Path) -> None:
    experiment, runs = named(served)
    page = f"{served.mlflow_uri}/#/experiments/{experiment}/runs/{runs['adapt-lab_b-b3']}"
    words = ("gate/agreement", "adaptation.budget.batch_size", "lab_b/b3", "outcome", "agreement across plates")
    shown(browser, page, *words, picture=tmp_path / "run.png")
    curves = ("loss", "learning_rate", "feature_spread", "samples_per_s")
    shown(browser, f"{page}/model-metrics", *curves, picture=tmp_path / "curves.png")
    shown(browser, f"{page}/artifacts/report.html", "report.html", picture=tmp_path / "artifacts.png")
    browser.wait("document.querySelector('iframe')?.src.startsWith('blob:')")
    opened = browser.js("fetch(document.querySelector('iframe').src).then(answer => answer.text())")
    assert "Report of a batch" in str(opened), "it opens there"
    browser.picture(tmp_path / "artifacts.png")


def test_runs_can_be_compared(served: Settings, browser: Browser, tmp_path: Path) -> None:
    experiment, runs = named(served)
    chosen = [runs["adapt-lab_b-b2"], runs["adapt-lab_b-b3"]]
    page = f"{served.mlflow_uri}/#/compare-runs?runs={json.dumps(chosen)}&experiments={json.dumps([experiment])}"
    words = ("adapt-lab_b-b2", "adapt-lab_b-b3", "gate/gain", "adaptation/loss")
    shown(browser, page, *words, picture=tmp_path / "compare.png")


def test_the_page_of_a_version_has_the_numbers_of_the_gate(served: Settings, browser: Browser, tmp_path: Path) -> None:
    version = find(EXTRACTOR, settings=served, run_id="adapt-lab_b-b3")[0].ref.version
    page = f"{served.mlflow_uri}/#/models/{EXTRACTOR}/versions/{version}"
    shown(browser, page, "agreement", "adapt-lab_b-b3", picture=tmp_path / "version.png")
    client = connect(served)
    experiment, runs = named(served)
    (model,) = client.get_run(runs["adapt-lab_b-b3"]).outputs.model_outputs
    page = f"{served.mlflow_uri}/#/experiments/{experiment}/models/{model.model_id}"
    shown(browser, page, "gain_low", "0.58", "adapt-lab_b-b3", picture=tmp_path / "model.png")
