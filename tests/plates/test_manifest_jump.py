"""JUMP-CP from a public bucket to plate stores: no credentials, images stay, wells from the consortium's tables."""

import gzip

import numpy as np
import pytest
from batches import SETTINGS, field, tiff
from jump_trees import PHENIX, source
from typer.testing import CliRunner

from coda.cli.manifest import app
from coda.contracts import BatchManifest
from coda.plates.dataset import BatchFolder
from coda.steps.ingest import ingest

PREFIX = "cpg0016-jump/source_4"
PLATE = "BR00117035"
TABLES = {
    "plate.csv.gz": f"Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType\nsource_4,B1,{PLATE},TARGET2\n",
    "well.csv.gz": "Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022\n"
                   f"source_4,{PLATE},A01,JCP2022_033924\nsource_4,{PLATE},A02,JCP2022_043547\n",
    "perturbation_control.csv": "Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality\n"
                                "JCP2022_033924,negcon,DMSO,compound\n",
    "microscope_config.csv": "Metadata_Source,Metadata_Microscope_Name,Metadata_Widefield_vs_Confocal,"
                             "Metadata_Objective_NA,Metadata_Sites_Per_Well,Metadata_Pixel_Size_Microns\n"
                             "source_4,Opera Phenix,Widefield,1.0,2,0.597976\n",
}  # fmt: skip


@pytest.fixture
def gallery(moto_server, tmp_path):
    """A bucket that anybody may read, with one small plate of real structure and real images."""
    folder = tmp_path / "gallery"
    source(folder, PHENIX)
    for number, path in enumerate(sorted(folder.rglob("*.tiff"))):
        path.write_bytes(tiff(field(number, (48, 48))["DNA"]))
    for path in folder.rglob("*.npy"):
        np.save(path, np.full((48, 48), 1.5))
    store = moto_server.bucket()
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{PREFIX}/{path.relative_to(folder).as_posix()}"
            store.client.put_object(Bucket=store.bucket, Key=key, Body=path.read_bytes(), ACL="public-read")
    return store


def test_a_plate_of_the_public_bucket_is_described_and_ingested_without_credentials(
    gallery, moto_server, small_params, tmp_path, monkeypatch
):
    tables = tmp_path / "metadata"
    tables.mkdir()
    for name, text in TABLES.items():
        (tables / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    roots = f"unsigned+s3://{gallery.bucket}#{moto_server.endpoint}"
    monkeypatch.setenv("CODA_IMAGE_ROOTS", roots)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    landing = tmp_path / "landing" / "source_4" / "B1"
    prefix = f"s3://{gallery.bucket}/{PREFIX}"
    result = CliRunner().invoke(
        app,
        ["build", prefix, "--source", "source_4", "--jump-batch", "B1", "--jump-tables", str(tables), "--out",
         str(landing), "--work", str(tmp_path / "work")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "absent" not in result.output
    manifest = BatchManifest.read(landing / "manifest.json")
    assert (manifest.batch_id, manifest.images_at) == ("source_4/B1", prefix)
    assert (manifest.instrument.name, manifest.instrument.pixel_size_um) == ("Opera Phenix", 0.597976)
    assert set(manifest.plates[0].illumination) == set(manifest.channels)
    settings = SETTINGS.model_copy(update={"image_roots": roots, "s3_endpoint": "http://127.0.0.1:9"})
    (report,) = ingest([str(landing / "manifest.json")], tmp_path / "ds", params=small_params(), settings=settings)
    assert (report.fields_accepted, report.delivered, report.problems) == (4, True, ())
    assert report.plates[0].illumination == "given"
    batch = BatchFolder(tmp_path / "ds" / "source_4" / "B1")
    kinds = dict(zip(batch.index["Metadata_Well"], batch.index["Metadata_pert_type"], strict=True))
    assert kinds == {"A01": "negcon", "A02": "trt"}
    assert CliRunner().invoke(app, ["check", str(landing), "--digests"]).exit_code == 0
