"""What MLflow knows of a run: curves, parameters, data sets, results, the report; once, however often it is told."""

import json
import shutil
from pathlib import Path

import pytest
from conftest_registry import Trained
from report_inputs import gate_report, manifest
from test_register_steps import Loop, revisions

from coda.config import Params
from coda.contracts import StepRecord
from coda.registry import EXTRACTOR, find
from coda.registry.mlflow_client import connect, experiment_id
from coda.registry.registering import RUN_TAG
from coda.registry.tracking import flat
from coda.settings import Settings
from coda.steps.register_adaptation import register_adaptation
from coda.steps.tracked_run import keep_report

LOG = [
    {"iteration": 0.0, "loss": 5.0, "learning_rate": 0.001, "feature_spread": 0.8, "teacher_entropy": 0.9},
    {"iteration": 10.0, "loss": 4.0, "learning_rate": 0.0005, "feature_spread": 0.7, "teacher_entropy": float("nan")},
]
SPEED = [{"iteration": 0.0, "samples_per_s": 90.0}, {"iteration": 10.0, "samples_per_s": 110.0}]


class Judged(Loop):
    """The same with what the gate measured of each candidate."""

    def register_adaptation(self, outcome: str, chosen: str | None, run_id: str = "adapt-1") -> Path:
        gate = gate_report(manifest(batch="b1")).model_copy(update={"outcome": outcome, "chosen": chosen})
        gate.write(self.work / "gate.json")
        folder = self.candidates(run_id)
        (folder / "training.json").write_text(json.dumps({"log": LOG, "alarms": ["it collapsed"], "speed": SPEED}))
        register_adaptation(
            folder, self.work / "gate.json", revisions(self.work, "lab_b"), self.work / f"{run_id}.json",
            params=self.params, settings=self.settings, run_id=run_id,
        )  # fmt: skip
        return self.work / f"{run_id}.json"


@pytest.fixture
def loop(tmp_path: Path, tiny_params: Params, services: Settings, trained: Trained, adapted: Path) -> Judged:
    learned = Trained(tmp_path / "pretrained", tmp_path / "heads")
    shutil.copytree(trained.pretrained, learned.pretrained)
    shutil.copytree(trained.heads, learned.heads)
    (learned.pretrained / "pretraining.json").write_text(json.dumps({"log": LOG, "alarms": [], "speed": SPEED}))
    head = [{"iteration": 5.0, "validation_accuracy": 0.6}, {"iteration": 9.0, "validation_accuracy": 0.7}]
    (learned.heads / "training.json").write_text(json.dumps({"heads": {"none": {"accuracy": 0.7, "log": head}}}))
    return Judged(tmp_path, tiny_params, services, learned, adapted)


def told(settings: Settings, run_id: str):
    client = connect(settings)
    (run,) = client.search_runs([experiment_id(client, settings)], f"tags.`{RUN_TAG}` = '{run_id}'")
    return client, run


def curve(client, run, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_a_training_run_has_curves_parameters_data_and_accuracies(loop: Judged) -> None:
    loop.train()
    client, run = told(loop.settings, "train-1")
    assert curve(client, run, "pretraining/loss") == [(0, 5.0), (10, 4.0)]
    assert curve(client, run, "pretraining/learning_rate") == [(0, 0.001), (10, 0.0005)]
    assert curve(client, run, "pretraining/feature_spread") == [(0, 0.8), (10, 0.7)]
    assert curve(client, run, "pretraining/teacher_entropy") == [(0, 0.9)], "what is no number is no point"
    assert curve(client, run, "pretraining/samples_per_s") == [(0, 90.0), (10, 110.0)]
    assert curve(client, run, "head_none/validation_accuracy") == [(5, 0.6), (9, 0.7)]
    assert run.data.metrics["head_none/accuracy_field"] == 0.5
    assert run.data.params == dict(flat(loop.params.model_dump(mode="json")))
    assert run.data.params["seed"] == str(loop.params.seed)
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("lab_a/b1", "0" * 32 + ".dir")
    assert json.loads(data.dataset.source)["revision"] == "a" * 40
    assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": "training"}


def test_an_adaptation_has_what_the_gate_saw_also_with_the_version_it_chose(loop: Judged) -> None:
    loop.train()
    loop.adapt("release", "coda")
    client, run = told(loop.settings, "adapt-1")
    assert curve(client, run, "adaptation/loss") == [(0, 5.0), (10, 4.0)]
    assert run.data.metrics["adaptation/alarms"] == 1
    measured = {"agreement": 0.29, "top_class_share": 0.82, "gain": -0.02, "gain_low": -0.06}
    judged = {f"gate/{name}": value for name, value in measured.items()}
    found = {name: run.data.metrics[name] for name in judged}
    assert found == pytest.approx(judged)
    assert run.data.metrics["gate_baseline/agreement"] == pytest.approx(0.31)
    (version,) = find(EXTRACTOR, settings=loop.settings, run_id="adapt-1")
    (model,) = client.search_logged_models(
        [experiment_id(client, loop.settings)], filter_string=f"tags.digest = '{version.ref.digest}'"
    )
    kept = {metric.key: metric.value for metric in model.metrics}
    assert {metric.dataset_name for metric in model.metrics} == {"lab_b/b1"}
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert {name: kept[name] for name in judged} == pytest.approx(judged)
    assert set(model.tags) <= {"kind", "alignment", "digest", "source", "method", "run_id", "mlflow.modelVersions"}


@pytest.mark.parametrize("outcome", ["keep_incumbent", "refuse", "hold"])
def test_a_run_that_released_nothing_is_told_too(loop: Judged, outcome: str) -> None:
    loop.train()
    loop.register_adaptation(outcome, {"hold": "coda", "keep_incumbent": "unadapted"}.get(outcome))
    _, run = told(loop.settings, "adapt-1")
    ours = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert ours["outcome"] == outcome
    assert set(ours) <= {RUN_TAG, "pipeline", "source", "batch", "outcome", "method"}, "tags that people filter by"


def test_telling_it_twice_is_telling_it_once(loop: Judged) -> None:
    loop.register_training()
    client, run = told(loop.settings, "train-1")
    before = curve(client, run, "pretraining/loss")
    loop.register_training()
    client, run = told(loop.settings, "train-1")
    assert curve(client, run, "pretraining/loss") == before
    assert len(run.inputs.dataset_inputs) == 1


def test_the_report_lies_with_its_run_and_its_seconds(loop: Judged, tmp_path: Path) -> None:
    loop.register_training()
    page = tmp_path / "report.html"
    page.write_text("<p>µm</p>", encoding="utf-8")
    for _ in range(2):
        keep_report("train-1", page, [StepRecord(name="pretrain", seconds=12.5)], loop.settings)
    client, run = told(loop.settings, "train-1")
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["report.html"]
    (tmp_path / "down").mkdir()
    kept = Path(client.download_artifacts(run.info.run_id, "report.html", str(tmp_path / "down")))
    assert kept.read_text(encoding="utf-8") == "<p>µm</p>"
    assert curve(client, run, "seconds/pretrain") == [(0, 12.5)]


def test_a_report_without_a_run_or_without_mlflow_is_kept_all_the_same(
    loop: Judged, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>refused</p>")
    keep_report("refused-1", page, [], loop.settings)
    assert not caplog.records
    broken = loop.settings.model_copy(update={"mlflow_uri": f"sqlite:///{tmp_path}"})
    keep_report("refused-1", page, [], broken)
    assert "is not in MLflow" in caplog.text
