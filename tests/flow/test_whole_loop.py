"""From plates in a bucket to a released, predicted and reported batch; and a broken batch that reaches no registry."""

import io
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from coda.cli.predict import app as predict_app
from coda.contracts import GateReport
from coda.errors import CodaError, ConfigError
from coda.local.arrival import run_until_settled
from coda.registry.releases import ReleaseLog
from coda.registry.versions import list_versions
from coda.steps.publication import current
from coda.storage.data_registry import list_batches
from coda.storage.objects import store_for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def adapted(loop):
    loop.deliver("lab_b", "b1")
    return run_until_settled("lab_b/b1", loop.settings, loop.params, loop.folder / "work", "lab_a", lambda line: None)


def test_training_releases_the_source_for_itself_and_as_default(loop):
    log = ReleaseLog(loop.settings)
    assert log.current("lab_a") == log.current("default")
    assert {version.name for version in list_versions(loop.settings)} == {"coda-extractor", "coda-head"}
    assert [item.batch for item in list_batches("lab_a", settings=loop.settings)] == ["b1", "b2"]


def test_a_new_batch_ends_served_predicted_and_reported(loop, adapted):
    platform = store_for(loop.settings.platform, loop.settings)
    assert adapted["outcome"] in ("released", "incumbent_kept"), adapted
    serving = ReleaseLog(loop.settings).serving("lab_b")
    assert serving is not None
    run = json.loads(platform.get(f"runs/{adapted['run_id']}/run.json"))
    assert run["release_id"] == serving.release_id
    steps = {step["name"] for step in run["steps"]}
    assert {"ingest", "validate", "version", "adapt", "gate", "register_adaptation", "release", "predict"} <= steps
    assert run["data"][0]["revision"], "the run does not name its data revision"
    gate = GateReport.parse(platform.get(f"runs/{adapted['run_id']}/gate.json"), "gate.json")
    assert {candidate.name for candidate in gate.candidates} == set(loop.params.adaptation.candidates)
    published = current(platform, "lab_b/b1", serving.release_id, run["manifest_digests"][0])
    fields = pd.read_parquet(io.BytesIO(published.read(platform, "field.parquet")))
    chosen = pd.read_parquet(io.BytesIO(platform.get(f"runs/{adapted['run_id']}/candidates/{gate.chosen}.parquet")))
    columns = sorted(column for column in fields.columns if column.startswith("p_"))
    merged = fields.merge(chosen, on="image_id", suffixes=("", "_judged"))
    assert len(merged) == len(fields) == len(chosen)
    for column in columns:
        # what is served is what was judged
        assert (merged[column] - merged[f"{column}_judged"]).abs().max() < 1e-4
    reports = [item.key for item in platform.list("reports/lab_b/b1/") if item.key.endswith(".html")]
    assert len(reports) == 1


def test_the_same_batch_again_starts_nothing(loop, adapted):
    versions = len(list_versions(loop.settings))
    again = run_until_settled("lab_b/b1", loop.settings, loop.params, loop.folder / "work", "lab_a", lambda line: None)
    assert again["run_id"] == adapted["run_id"]
    assert len(list_versions(loop.settings)) == versions


def test_the_command_of_the_readme_gives_the_tables_of_the_pipeline_and_changes_nothing(
    loop, adapted, root, tmp_path, monkeypatch
):
    platform = store_for(loop.settings.platform, loop.settings)
    release = ReleaseLog(loop.settings).serving("lab_b").release_id
    before = {item.key: (item.etag, item.modified) for item in platform.list("predictions/")}
    published = current(platform, "lab_b/b1", release)
    assert published.entry.run_id == adapted["run_id"]
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(predict_app, ["lab_b/b1", "--out", str(tmp_path / "bare")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "crops.global_size: 32 is used, as recorded in config.json of coda-extractor" in " ".join(
        done.output.split()
    )
    for name in published.files:
        assert (tmp_path / "bare" / name).read_bytes() == published.read(platform, name)
    wrong = CliRunner().invoke(predict_app, ["lab_b/b1", "--overlay", "params/demo.yaml"])
    assert isinstance(wrong.exception, ConfigError)
    (problem,) = [item for item in wrong.exception.problems if item.where == "crops.global_size"]
    assert "48 (params/demo.yaml)" in problem.found
    assert problem.expected.startswith("32, recorded in config.json of coda-extractor version ")
    assert {item.key: (item.etag, item.modified) for item in platform.list("predictions/")} == before


def test_a_broken_batch_is_refused_with_reasons_and_reaches_no_registry(loop, adapted):
    versions = list_versions(loop.settings)
    releases = ReleaseLog(loop.settings).history("lab_b")
    loop.deliver("lab_b", "b9", plates=3, broken=("missing_plate", "swapped_stains"))
    ended = run_until_settled("lab_b/b9", loop.settings, loop.params, loop.folder / "work", "lab_a", lambda line: None)
    assert ended["outcome"] == "refused"
    assert "lab_b" in ended["sentence"]
    assert list_versions(loop.settings) == versions
    assert ReleaseLog(loop.settings).history("lab_b") == releases
    assert [item.batch for item in list_batches("lab_b", settings=loop.settings)] == ["b1"]


def test_a_failing_step_shows_its_own_reason(loop):
    with pytest.raises(CodaError) as caught:
        loop.adapt(f"{loop.settings.landing}/lab_b/nowhere/manifest.json", "no-such-batch")
    assert "nowhere" in str(caught.value)
    assert "inner task" not in str(caught.value).lower()
