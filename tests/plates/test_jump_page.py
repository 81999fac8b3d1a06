"""docs/jump.md: its four commands, as they stand there, from a bucket of JUMP's layout to the paper's table 2."""

import shlex

import pandas as pd
import pytest
import yaml
from jump_gallery import BUCKET, IDS, SOURCES, WELLS, batches_of, fill, write_tables
from typer.testing import CliRunner

from coda.benchmark.systems import SYSTEMS
from coda.cli import app
from coda.contracts import BatchManifest
from coda.plates.dataset import open_batches
from tests.benchmark.conftest import SHORT
from tests.training.conftest import TINY

SMALL = {"benchmark": ["--seeds", "0", "--processes", "1", "--target", "source_7"]}
"""What the test adds to a command, so that it ends soon."""


def commands(root):
    """Return the commands of the page's first block."""
    block = (root / "docs" / "jump.md").read_text().split("```")[1]
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").strip().splitlines()]


@pytest.fixture
def bucket(moto_server, tmp_path, small_params, monkeypatch):
    """The public bucket, and a folder with what a user has beside it."""
    fill(moto_server.bucket(BUCKET))
    write_tables(tmp_path)
    params = small_params(*TINY, *SHORT).model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("CODA_IMAGE_ROOTS", f"unsigned+s3://{BUCKET}#{moto_server.endpoint}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(arguments):
    result = CliRunner().invoke(app, [*arguments, *SMALL.get(arguments[0], [])])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_four_commands_from_the_bucket_to_table_2(bucket, root):
    build, labels, ingest, table2 = commands(root)
    said = call(build)
    assert "20 batch(es) of 6 source(s): 20 written." in said
    written = {
        str(path.relative_to(bucket / "manifests").parent) for path in bucket.glob("manifests/*/*/manifest.json")
    }
    assert written == {f"{source}/{batch}" for source in SOURCES for batch in batches_of(source)}
    for source in SOURCES:
        for batch in batches_of(source):
            manifest = BatchManifest.read(bucket / "manifests" / source / batch / "manifest.json")
            assert [plate.plate for plate in manifest.plates] == [f"T2-{batch}"]
            wells = pd.read_csv(bucket / "manifests" / source / batch / "plate_map" / f"T2-{batch}.csv", dtype=str)
            assert dict(zip(wells["Metadata_Well"], wells["Metadata_Compound"], strict=True)) == {
                well: IDS[sample] for well, sample in WELLS.items()
            }, "source_7 is in no table of wells, and still holds what it holds"
    assert "the table of wells lacks it; it was given what all 17 known TARGET2 plates" in said
    assert "20 batch(es) of 6 source(s): 20 the same already." in call(build)
    assert "4 compounds of 2 mechanisms" in call(labels)
    call(ingest)
    batches = open_batches(bucket / "dataset")
    assert len(batches) == 20
    assert all((batch.ingest.fields_accepted, batch.ingest.problems) == (6, ()) for batch in batches)
    call(table2)
    table = pd.read_csv(bucket / "runs" / "benchmark" / "table2" / "table2_source_3_image_accuracy.csv")
    assert set(SYSTEMS) <= set(table["system"])
    assert table.set_index("system").loc[list(SYSTEMS), "source_7 mean"].notna().all()
