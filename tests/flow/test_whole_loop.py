"""From plates in a bucket to a released, predicted and reported batch; and a broken batch that reaches no registry."""

import io
import json

import pandas as pd
import pytest

from coda.contracts import GateReport
from coda.errors import CodaError
from coda.local.arrival import run_until_settled
from coda.registry.releases import ReleaseLog
from coda.registry.versions import list_versions
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
    fields = pd.read_parquet(io.BytesIO(platform.get(f"predictions/lab_b/b1/{serving.release_id}/field.parquet")))
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
