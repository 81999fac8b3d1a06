"""`coda step adapt` and `coda step predict`, as a person types them beside the pipeline's own steps."""

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from coda.adaptation.candidates import read_candidates
from coda.cli.step import app
from coda.errors import ConfigError, ContractError
from coda.steps.adapt import adapt
from coda.steps.predict import predict

STATED = ("--params", "params.yaml")
"""Models without a record are predicted with what a person states."""

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides


@pytest.fixture
def call(settings, params, released, tmp_path, monkeypatch):
    """Call `coda step` where the services are known and ./params.yaml holds the run's parameters."""
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        result = CliRunner().invoke(app, [str(item) for item in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return go


def test_adapt_lays_out_what_the_step_of_the_pipeline_lays_out(call, datasets, params, settings, tmp_path):
    said = call("adapt", "--dataset", datasets["b2"], "--earlier", datasets["b1"], "--out", "candidates")
    adapt(datasets["b2"], datasets["b1"], tmp_path / "step", params=params, settings=settings, run_id="other")
    mine, theirs = (read_candidates(tmp_path / name) for name in ("candidates", "step"))
    assert [item.name for item in mine] == [item.name for item in theirs]
    for item in mine:
        tables = [
            pd.read_parquet(tmp_path / name / item.name / "predictions.parquet") for name in ("candidates", "step")
        ]
        pd.testing.assert_frame_equal(*tables)
        assert f"\n{item.name}: " in f"\n{said}"
    alone = call("adapt", "--dataset", datasets["b2"], "--out", "alone")
    assert "unadapted: base extractor" in alone


def test_predict_writes_the_tables_of_a_release_and_publishes_nothing(
    call, datasets, params, settings, released, tmp_path
):
    given = released.write(tmp_path / "release.json")
    said = call("predict", "--dataset", datasets["b2"], "--release", given, "--out", "tables", *STATED)
    predict(datasets["b2"], given, tmp_path / "step", params=params, settings=settings, publish=False)
    for path in sorted((tmp_path / "step").iterdir()):
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    assert "field: 16 rows" in said
    assert released.release_id in call(
        "predict", "--dataset", datasets["b2"], "--release", released.release_id, "--out", "again", *STATED
    )


def test_what_is_missing_is_told_in_the_words_of_the_pipelines_steps(call, released, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="There is no ingested batch"):
        call("adapt", "--dataset", tmp_path / "none", "--out", "candidates")
    with pytest.raises(ContractError, match="There is nothing to predict"):
        call(
            "predict", "--dataset", tmp_path, "--release", released.write(tmp_path / "release.json"), "--out", "tables"
        )
    with pytest.raises(ConfigError, match="cannot be predicted with this release"):
        call("predict", "--dataset", tmp_path, "--release", "never", "--out", "tables")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="services are not configured"):
        call("adapt", "--dataset", tmp_path, "--out", "candidates")


@pytest.mark.parametrize("step", ["pretrain", "adapt"])
def test_a_dataset_folder_that_is_not_there_is_named_first(call, step, tmp_path):
    with pytest.raises(ConfigError, match="There is no ingested batch") as caught:
        call(step, "--dataset", tmp_path / "nowhere", "--out", "out")
    assert "no such folder" in str(caught.value)
