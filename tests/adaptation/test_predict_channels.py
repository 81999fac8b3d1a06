"""Prediction takes channels by name: a batch that lacks one is refused with what cures it, and that gives the same."""

import re
import shutil

import pandas as pd
import pytest

from coda.errors import ConfigError
from coda.plates.dataset import open_batches
from coda.registry import DEFAULT_SCOPE, ReleaseLog
from coda.simulation import break_batch
from coda.steps.ingest import ingest
from coda.steps.predict import predict

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides


@pytest.fixture
def own(settings, released, moto_server):
    """The same models behind a platform bucket of its own."""
    found = settings.model_copy(update={"platform": moto_server.bucket().uri})
    ReleaseLog(found).append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return found


@pytest.fixture
def called_actin(folder, datasets, tmp_path):
    """The second batch as a laboratory delivers it that calls AGP Actin, in load_data and in the manifest."""
    place = tmp_path / "raw" / "lab_b" / "b2"
    shutil.copytree(folder / "raw" / "lab_b" / "b2", place)
    break_batch(place, ["unknown_stain"], 0)
    return place / "manifest.json"


def test_a_release_refuses_a_batch_that_lacks_a_channel_and_reads_it_by_the_name_it_is_told(
    called_actin, datasets, own, released, tiny, params, tmp_path
):
    given = released.write(tmp_path / "release.json")
    right = predict(datasets["b2"], given, tmp_path / "right", params=params, settings=own, publish=False)
    assert "Of lab_b/b2 the model reads DNA, AGP, RNA; ER, Mito are not read." in right["notes"]

    other = tiny("ingest.workers=1", "ingest.channels=[Mito,Actin,RNA,ER,DNA]", "extractor.channels=[DNA,RNA]")
    ingest([str(called_actin)], tmp_path / "lacking", params=other, settings=own)
    with pytest.raises(ConfigError) as caught:
        predict(tmp_path / "lacking", given, tmp_path / "no", params=params, settings=own, publish=False)
    (problem,) = caught.value.problems
    assert problem.where == "batch lab_b/b2"
    assert problem.found == "the channels Mito, Actin, RNA, ER, DNA"
    assert problem.expected == "all that the model reads: DNA, AGP, RNA (missing: AGP)"

    settings = [
        re.sub(r"\{\w+: AGP\}", "{Actin: AGP}", text) for text in re.findall(r"--set '([^']+)'", problem.remedy)
    ]
    settings = [text.replace("[AGP,Actin", "[Mito,AGP") for text in settings]
    assert "ingest.renamed={Actin: AGP}" in settings
    ingest([str(called_actin)], tmp_path / "cured", params=tiny("ingest.workers=1", *settings), settings=own)
    (batch,) = open_batches(tmp_path / "cured")
    assert batch.ingest.renamed == {"Actin": "AGP"}
    predict(tmp_path / "cured", given, tmp_path / "made", params=params, settings=own, publish=False)
    for name in ("field", "well", "compound"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "made" / f"{name}.parquet"),
            pd.read_parquet(tmp_path / "right" / f"{name}.parquet"),
        )
