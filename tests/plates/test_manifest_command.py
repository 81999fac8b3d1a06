"""`coda manifest`, as a user types it: plates in a bucket without a manifest, all the way to the plate stores."""

import json

import pytest
from lying import lay
from typer.testing import CliRunner

from coda.cli.manifest import app
from coda.cli.step import app as step_app
from coda.contracts import BatchManifest
from coda.errors import ConfigError, ContractError
from coda.plates.dataset import BatchFolder

GIVEN = [
    "--source", "lab_a", "--batch", "b1", "--instrument", "scope", "--modality", "widefield", "--pixel-size", "0.6",
    "--plate-wells", "96", "--layout", "load_data",
]  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call `coda manifest`; an error of ours is raised, other ends give the result."""
    monkeypatch.delenv("CODA_IMAGE_ROOTS", raising=False)
    monkeypatch.setenv("COLUMNS", "300")

    def go(*args, app=app, code=0):
        result = CliRunner().invoke(app, [str(item) for item in args])
        if isinstance(result.exception, (ConfigError, ContractError)):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return go


@pytest.fixture
def folder(tmp_path):
    lay(tmp_path / "scope" / "b1", plates=1)
    return tmp_path / "scope" / "b1"


def built(call, folder, *args, code=0):
    maps = folder.parent / "wells.csv"
    return call("build", folder, *GIVEN, "--plate-map", maps, "--work", folder.parent / "work", *args, code=code)


def test_from_a_bucket_without_a_manifest_to_plate_stores(call, moto_server, folder, tmp_path, root, monkeypatch):
    scope, landing = moto_server.bucket(), moto_server.bucket()
    scope.upload_folder(folder, "plates/b1")
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    out = f"{landing.uri}/lab_a/b1"
    said = call("build", f"{scope.uri}/plates/b1", *GIVEN, "--plate-map", folder.parent / "wells.csv", "--out", out,
                "--work", tmp_path / "work")  # fmt: skip
    assert "1 plate(s), 8 fields, 40 files" in said.output
    assert "Ingest does not read images at" in said.output
    assert {item.key for item in landing.list()} == {
        "lab_a/b1/manifest.json", "lab_a/b1/load_data/b1_p1.csv", "lab_a/b1/plate_map/b1_p1.csv"
    }  # fmt: skip
    uri = f"{out}/manifest.json"
    with pytest.raises(ContractError, match="CODA_IMAGE_ROOTS"):
        call("check", uri)
    monkeypatch.setenv("CODA_IMAGE_ROOTS", f"{scope.uri}/plates")
    said = json.loads(call("check", uri, "--digests", "--json").stdout)
    assert (said["files"], said["files_read"], said["wrong"], said["findings"]) == (42, 42, 0, [])
    call("ingest", "--manifest", uri, "--out", tmp_path / "ds", "--params", root / "params.yaml",
         "--overlay", root / "params" / "demo.yaml", "--set", "ingest.workers=1",
         "--set", "ingest.illumination.min_fields=4", app=step_app)  # fmt: skip
    report = BatchFolder(tmp_path / "ds" / "lab_a" / "b1").ingest
    assert (report.fields_accepted, report.delivered, report.problems) == (8, True, ())


def test_check_says_what_is_wrong_and_ends_with_3(call, folder):
    built(call, folder)
    manifest = folder / "manifest.json"
    assert "Everything" not in call("check", manifest).output  # the table of the folder is extra
    (folder / "all_load_data.csv").unlink()
    assert "Everything is there as the manifest says" in call("check", manifest).output
    assert "Everything is there" in call("check", folder).output
    (folder / "images" / "b1_p1" / "B02_s1_DNA.tiff").unlink()
    result = CliRunner().invoke(app, ["check", str(manifest)])
    assert result.exception.exit_code == 3
    assert "1 wrong, 0 extra" in result.output
    assert "images/b1_p1/B02_s1_DNA.tiff" in result.output


def test_dry_run_writes_and_reads_nothing(call, folder):
    before = sorted(folder.rglob("*"))
    said = built(call, folder, "--dry-run").output
    assert "Would read 40 files" in said
    assert "plate_map/b1_p1.csv" in said
    assert sorted(folder.rglob("*")) == before
    assert not (folder.parent / "work").exists()


def test_absent_images_are_printed_and_written(call, folder, tmp_path):
    for name in ("B02_s1_DNA", "B02_s2_ER"):
        (folder / "images" / "b1_p1" / f"{name}.tiff").unlink()
    said = built(call, folder, "--absent", tmp_path / "absent.csv").output
    assert "2 image(s) are absent" in said
    assert "b1_p1, well B02 site 1, DNA" in said
    lines = (tmp_path / "absent.csv").read_text().splitlines()
    assert lines[0] == "plate,well,site,stain,path"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == ["b1_p1,B02,1,DNA", "b1_p1,B02,2,ER"]


def test_ctrl_c_says_how_to_go_on(call, folder, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("coda.cli.manifest_build.publish", stop)
    said = built(call, folder, code=130)
    assert "the same command resumes from there" in said.output
    assert not (folder / "manifest.json").exists()


def test_a_public_bucket_needs_a_place_of_ones_own_before_anything_is_read(call):
    with pytest.raises(ConfigError, match="--out"):
        call("build", "unsigned+s3://public/plates#http://127.0.0.1:9", *GIVEN)


def test_names_that_are_missing_are_told_together(call, folder):
    with pytest.raises(ConfigError) as caught:
        call("build", folder, "--source", "lab_a")
    assert [problem.where for problem in caught.value.problems] == ["--batch", "--instrument"]
    with pytest.raises(ConfigError, match="no such folder"):
        call("build", folder / "nowhere", *GIVEN)
    with pytest.raises(ContractError, match="no such file"):
        call("check", folder / "manifest.json")


def test_jumps_tables_name_instrument_and_wells(call, folder, tmp_path):
    tables = tmp_path / "jump"
    tables.mkdir()
    texts = {
        "plate": "Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType\nlab_a,run1,b1_p1,TARGET2\n",
        "well": "Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022\n"
                "lab_a,b1_p1,B02,JCP2022_033924\nlab_a,b1_p1,B03,JCP2022_037716\nlab_a,b1_p1,C02,JCP2022_000002\n",
        "perturbation_control": "Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality\n"
                                "JCP2022_033924,negcon,DMSO,compound\nJCP2022_037716,poscon,AMG900,compound\n",
        "microscope_config": "Metadata_Source,Metadata_Microscope_Name,Metadata_Widefield_vs_Confocal,"
                             "Metadata_Objective_NA,Metadata_Sites_Per_Well,Metadata_Pixel_Size_Microns\n"
                             "lab_a,CV8000,Confocal,1.0,9,0.65\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tables / f"{name}.csv").write_text(text)
    said = call("build", folder, "--source", "lab_a", "--batch", "b1", "--jump-tables", tables, "--layout", "load_data",
                "--plate-wells", "96", "--work", tmp_path / "work")  # fmt: skip
    manifest = BatchManifest.read(folder / "manifest.json")
    assert (manifest.instrument.name, manifest.instrument.modality) == ("CV8000", "confocal")
    assert manifest.instrument.pixel_size_um == 0.65
    assert "nobody knows what is in 1 wells (C03)" in said.output
    assert "2 sites a well; JUMP planned 9" in said.output
    assert "No plate map was given" not in said.output
    rows = (folder / "plate_map" / "b1_p1.csv").read_text().splitlines()[1:]
    assert rows[:2] == [
        "b1_p1,B02,JCP2022_033924,JCP2022_033924,negcon,",
        "b1_p1,B03,JCP2022_037716,JCP2022_037716,poscon,",
    ]
    with pytest.raises(ConfigError, match="one of run1"):
        call("build", folder, "--source", "lab_a", "--jump-tables", tables, "--jump-batch", "run9")
