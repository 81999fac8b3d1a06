"""`coda plates import --images`: no copies where a reference will do, and never another plate's pixels through one."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from batches import SETTINGS, field, tiff
from lying import lay
from typer.testing import CliRunner

from coda.cli import import_images
from coda.cli.plates import app
from coda.contracts import STAINS, BatchManifest
from coda.errors import CodaError, ConfigError, ContractError
from coda.plates.dataset import load_fields, open_batches
from coda.steps.ingest import ingest


@pytest.fixture
def folder(tmp_path):
    lay(tmp_path / "scope" / "b1", plates=2)
    return tmp_path / "scope" / "b1"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Import; returns what is said and the manifest's path."""
    monkeypatch.delenv("CODA_IMAGE_ROOTS", raising=False)

    def go(folder, *options):
        given = [folder, tmp_path / "out", "--source", "lab_a", "--batch", "b1", "--instrument", "scope", "--modality",
                 "widefield", "--pixel-size", "0.6", "--plate-wells", "96", "--work", tmp_path / "work"]  # fmt: skip
        result = CliRunner().invoke(app, ["import", *map(str, (*given, *options))])
        if isinstance(result.exception, CodaError):
            raise result.exception
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output, tmp_path / "out" / "lab_a" / "b1" / "manifest.json"

    return go


def images_in(manifest):
    return [path for path in manifest.parent.rglob("*") if path.suffix == ".tiff"]


def stored(manifest, out, small_params, roots="none"):
    (report,) = ingest([str(manifest)], out, params=small_params(),
                       settings=SETTINGS.model_copy(update={"image_roots": roots}))  # fmt: skip
    assert report.problems == ()
    return load_fields(open_batches(out), STAINS, 32)


def test_images_of_an_allowed_place_stay_there_and_give_the_same_fields(
    call, folder, tmp_path, small_params, monkeypatch
):
    maps = ("--plate-map", folder.parent / "wells.csv")
    _, copied = call(folder, "--images", "copy", *maps)
    assert {path.stat().st_nlink for path in images_in(copied)} == {1}
    whole = stored(copied, tmp_path / "whole", small_params)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setenv("CODA_IMAGE_ROOTS", str(folder.parent))
    said, manifest = call(folder, *maps)
    assert f"Images stay at {folder}" in said
    assert images_in(manifest) == []
    assert BatchManifest.read(manifest).images_at == str(folder)
    with pytest.raises(ContractError, match="CODA_IMAGE_ROOTS"):
        stored(manifest, tmp_path / "refused", small_params)
    fields = stored(manifest, tmp_path / "placed", small_params, roots=str(folder.parent))
    pd.testing.assert_frame_equal(fields.table, whole.table)
    np.testing.assert_array_equal(fields.images, whole.images)


def test_without_an_allowed_place_files_are_linked_and_copied_only_where_they_are_few(call, folder, monkeypatch):
    said, manifest = call(folder)
    assert "linked, not copied" in said
    assert {path.stat().st_nlink for path in images_in(manifest)} == {2}

    def no_link(*_):
        raise OSError(18, "another disk")

    monkeypatch.setattr("os.link", no_link)
    said, manifest = call(folder)
    assert "GB of images are copied; they can stay where they lie with --images in-place" in said
    assert {path.stat().st_nlink for path in images_in(manifest)} == {1}
    shutil.rmtree(manifest.parent)
    monkeypatch.setattr(import_images, "FEW_BYTES", 1000)
    with pytest.raises(ConfigError, match="--images copy") as caught:
        call(folder)
    assert str(folder) in str(caught.value)
    assert not manifest.parent.exists(), "nothing was brought before it was asked"
    said, manifest = call(folder, "--images", "in-place")
    assert "Ingest does not read images at" in said
    assert images_in(manifest) == []


def test_images_that_are_parts_of_files_cannot_stay(call, tmp_path):
    folder = tmp_path / "scope"
    folder.mkdir()
    pages = np.stack(list(field(1, (32, 32)).values()))
    tifffile.imwrite(folder / "P1_B02_s1.tif", pages, photometric="minisblack")
    given = ["--layout", "pattern", "--pattern", r"(?P<plate>P1)_(?P<well>B02)_s(?P<site>1)\.tif"]
    for number, stain in enumerate(STAINS, 1):
        given += ["--channel", f"{number}={stain}"]
    with pytest.raises(ContractError, match="--images auto") as caught:
        call(folder, *given, "--images", "in-place")
    assert "planes of larger files" in str(caught.value)
    said, manifest = call(folder, *given)
    assert "they are written out" in said
    assert len(list(manifest.parent.rglob("*.tif*"))) == 5


def test_a_lost_well_is_missing_in_place_and_never_another_plates(call, tmp_path, small_params, monkeypatch):
    folder, rows = tmp_path / "scope", []
    for number, plate in enumerate(("P1", "P2")):
        for well in ("B02", "B03", "C02", "C03"):
            row = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": 1}
            for stain, image in field(10 * number + len(rows)).items():
                place = folder / plate / "Images" / f"{well}_{stain}.tiff"
                place.parent.mkdir(parents=True, exist_ok=True)
                if (plate, well) != ("P2", "C03"):
                    place.write_bytes(tiff(image))
                row |= {f"FileName_Orig{stain}": place.name, f"PathName_Orig{stain}": f"/old/{plate}/Images"}
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)
    monkeypatch.setenv("CODA_IMAGE_ROOTS", str(folder))
    said, manifest = call(folder)
    assert "5 image(s) are absent" in said
    plates = {plate.plate: plate for plate in BatchManifest.read(manifest).plates}
    assert {len(plate.files) for plate in plates.values()} == {22, 17}
    for plate in plates.values():
        images = [file.path for file in plate.files if file.path.endswith(".tiff")]
        assert {path.split("/")[0] for path in images} == {plate.plate}


def test_images_of_a_bucket_are_not_brought_to_describe_them(call, folder, moto_server, monkeypatch):
    store = moto_server.bucket()
    store.upload_folder(folder, "plates/b1")
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CODA_IMAGE_ROOTS", f"{store.uri}/plates")
    said, manifest = call(f"{store.uri}/plates/b1")
    assert f"Images stay at {store.uri}/plates/b1" in said
    assert images_in(manifest) == []
    assert BatchManifest.read(manifest).images_at == f"{store.uri}/plates/b1"
