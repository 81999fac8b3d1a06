"""Plates of real instruments: parsing, import, and ingest of the real fields."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from batches import SETTINGS, tiff
from typer.testing import CliRunner

from coda.cli.plates import app
from coda.contracts import BatchManifest
from coda.errors import ConfigError, ContractError
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.file_references import FileResolver
from coda.plates.load_data import read_fields
from coda.plates.readers.deliver import Identity
from coda.plates.readers.deliver import import_plates as import_tree
from coda.plates.readers.layouts import find_plates
from coda.plates.readers.listing import safe_name
from coda.plates.readers.read_options import ReadOptions
from coda.plates.readers.xml import UnsafeXmlError, parse_xml
from coda.plates.tabular.table import read_table
from coda.plates.tree import LocalTree
from coda.steps.ingest import ingest


def import_plates(layout, folder, out, identity, options=None):
    return import_tree(layout, LocalTree(folder), out, identity, options)


def who(**changes):
    return Identity(**({"source": "lab", "batch": "b", "instrument": "Opera Phenix"} | changes))


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>"""
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [(BOMB, "document type"), (OUTSIDE, "document type"), ("<a><b></a>", "well-formed"), ("", "well-formed")],
)
def test_xml_that_expands_fetches_or_breaks_is_refused(text, reason):
    with pytest.raises(UnsafeXmlError, match=reason):
        parse_xml(text.encode())


def test_plain_xml_loses_its_namespaces():
    root = parse_xml(b'\xef\xbb\xbf<a xmlns="urn:x" xmlns:y="urn:y"><b>t</b><y:c z="1"/></a>')
    assert [(item.tag, item.text, item.attrib) for item in root] == [("b", "t", {}), ("c", None, {"z": "1"})]


def test_the_phenix_index_gives_what_the_fields_own_tool_makes_of_it(shared_data):
    """The load_data table beside the images was made from the same index by pe2loaddata: an independent parse."""
    folder = shared_data / "images/phenix_v5"
    (plate,) = find_plates("phenix", LocalTree(folder / "images"), ReadOptions())
    (golden,) = csv.DictReader((folder / "load_data_version5.csv").read_text().splitlines())
    (field,) = plate.fields
    assert plate.plate == golden["Metadata_Plate"]
    assert (field.place, field.site) == ((0, 0), int(golden["Metadata_Site"]))
    assert {stain: image.path for stain, image in field.files.items()} == {
        stain: golden[f"FileName_Orig{stain}"] for stain in ("RNA", "ER", "AGP", "Mito")
    }
    assert plate.pixel_size_um == pytest.approx(float(golden["Metadata_ImageResolutionX"]) * 1e6)
    assert (plate.wells, plate.bit_depth, plate.modality, plate.objective) == (384, 16, "confocal", "20x/1")
    assert plate.left_out == {"Digital Phase Contrast": 1, "Brightfield high": 1}


def test_real_phenix_images_become_a_stored_field(shared_data, small_params, tmp_path):
    manifest, remarks = import_plates("phenix", shared_data / "images/phenix_v5/images", tmp_path / "in", who())
    assert any("Not found: DNA" in remark for remark in remarks)
    params = small_params("ingest.channels=[ER, RNA, AGP, Mito]", "extractor.channels=[ER, RNA, AGP]")
    (report,) = ingest([str(manifest)], tmp_path / "out", params=params, settings=SETTINGS)
    assert (report.fields_expected, report.fields_accepted) == (1, 1)
    assert report.plates[0].illumination == "too_few_fields"
    fields = load_fields(open_batches(tmp_path / "out"), ("AGP", "Mito"), 448)
    assert fields.images.shape == (1, 2, 448, 448)
    assert fields.images.std(axis=(2, 3)).min() > 5
    assert fields.table["Metadata_Treatment"][0] == "unknown:BR00122249:A01"
    (whole,) = ingest([str(manifest)], tmp_path / "all", params=small_params(), settings=SETTINGS)
    assert "missing: DNA" in whole.batch_problems[0].expected


def test_the_load_data_of_the_same_plate_imports_the_same_pixels(shared_data, small_params, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(shared_data / "images/phenix_v5/images", folder / "images")
    shutil.copy(shared_data / "images/phenix_v5/load_data_version5.csv", folder)
    one, _ = import_plates("phenix", folder, tmp_path / "one", who())
    two, remarks = import_plates("load_data", folder, tmp_path / "two", who(modality="confocal", pixel_size_um=0.598))
    manifests = [BatchManifest.read(path) for path in (one, two)]
    files = [[file for plate in manifest.plates for file in plate.files] for manifest in manifests]
    digests = [{(file.path, file.sha256) for file in some if "images/" in file.path} for some in files]
    assert digests[0] == digests[1]
    assert any("Brightfield" in remark for remark in remarks)


def test_a_real_jump_field_goes_through_its_load_data(shared_data, small_params, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(shared_data / "images/cpjump1_BR00117006", folder)
    (folder / "load_data.csv").write_text(
        "URL_OrigAGP,URL_OrigRNA,URL_OrigDNA,Metadata_Plate,Metadata_Well,Metadata_Site\n"
        + ",".join(f"s3://b/p/Images/r01c01f01p01-ch{n}sk1fk1fl1.tiff" for n in (2, 3, 5))
        + ",BR00117006,A01,1\n"
    )
    manifest, _ = import_plates("load_data", folder, tmp_path / "in", who(modality="confocal", pixel_size_um=0.598))
    params = small_params("ingest.channels=[DNA, RNA, AGP]", "extractor.channels=[DNA, RNA, AGP]")
    (report,) = ingest([str(manifest)], tmp_path / "out", params=params, settings=SETTINGS)
    assert report.fields_accepted == 1
    row = BatchFolder(tmp_path / "out/lab/b").index.iloc[0]
    assert 100 < row["QC_cells_DNA"] < 300, "about 170 nuclei are in this field"
    assert row["height"] == 540


def test_rxrx1_fields_keep_their_eight_bits_and_incomplete_sites_are_set_aside(shared_data, small_params, tmp_path):
    folder = shared_data / "images/rxrx1/train/U2OS-01"
    manifest, remarks = import_plates("rxrx1", folder, tmp_path / "in", who(pixel_size_um=0.65))
    assert "Plate U2OS-01_Plate1: 1 of 2 fields lack a stain (well B02 site 2: Mito, Golgi)." in remarks
    assert BatchManifest.read(manifest).instrument.bit_depth == 8
    params = small_params("quality.plate_quorum=0.5", "ingest.scaling_factor=1.0")
    (report,) = ingest([str(manifest)], tmp_path / "out", params=params, settings=SETTINGS)
    assert (report.fields_expected, report.fields_accepted) == (8, 4)
    assert {(item.site, item.channel) for item in report.quarantined} == {(2, "Mito")}
    (refused,) = ingest([str(manifest)], tmp_path / "strict", params=small_params(), settings=SETTINGS)
    assert refused.fields_accepted == 0
    fields = load_fields(open_batches(tmp_path / "out"), ("DNA",), 512)
    assert fields.images.shape == (4, 1, 512, 512)


def test_real_jump_tables_of_another_generation_are_read(shared_data):
    table = read_table((shared_data / "jump/load_data/pe2loaddata_version7.csv").read_bytes())
    fields, problems = read_fields(
        table, where="t", plate="240624_WES_Perturbs_n_densities_1.1", declared=("DNA", "ER", "RNA", "AGP", "Mito"),
        wells=384, resolver=FileResolver(["Images/r01c01f01p01-ch6sk1fk1fl1.tiff"]),
    )  # fmt: skip
    assert fields[0].files == {"DNA": "Images/r01c01f01p01-ch6sk1fk1fl1.tiff"}
    assert [problem.found for problem in problems] == ["unknown channel 'Actin'"]


def phenix_index(tmp_path, *images):
    body = "".join(
        "<Image><id>i</id><State>{}</State><URL>{}</URL><Row>2</Row><Col>3</Col><FieldID>{}</FieldID>"
        "<ChannelName>{}</ChannelName><ImageResolutionX>6e-07</ImageResolutionX></Image>".format(*image)
        for image in images
    )
    text = f"<E><Plates><Plate><Name>P 1/x</Name></Plate></Plates><Images>{body}</Images></E>"
    (tmp_path / "Index.idx.xml").write_text(text)
    for name in "abc":
        (tmp_path / f"{name}.tiff").write_bytes(b"")
    return tmp_path


def test_a_phenix_index_that_leads_outside_or_repeats_a_stain_is_refused_with_all_reasons(tmp_path):
    phenix_index(
        tmp_path, ("Ok", "../../etc/passwd", 1, "DAPI"), ("Ok", "a.tiff", 2, "DAPI"), ("Ok", "b.tiff", 2, "DAPI")
    )
    with pytest.raises(ContractError) as caught:
        find_plates("phenix", LocalTree(tmp_path), ReadOptions())
    told = str(caught.value)
    assert "leads out of the folder" in told
    assert "a second time" in told


def test_a_phenix_image_marked_faulty_is_noted_and_mapped_names_win(tmp_path):
    phenix_index(tmp_path, ("Ok", "a.tiff", 1, "Cy5"), ("Error", "b.tiff", 2, "Cy5"), ("Ok", "c.tiff", 1, "DAPI"))
    (plate,) = find_plates("phenix", LocalTree(tmp_path), ReadOptions({"Cy5": "Mito", "DAPI": "ER"}))
    assert plate.plate == "P-1-x"
    assert [sorted(field.files) for field in plate.fields] == [["ER", "Mito"], []]
    assert plate.notes == (
        "1 images the instrument itself marks as not Ok (1 Error)", "the laboratory calls it 'P 1/x'"
    )  # fmt: skip
    assert plate.fields[0].place == (1, 2)


def test_a_folder_without_an_index_or_a_table_is_told_what_it_lacks(tmp_path):
    for layout in ("phenix", "load_data", "rxrx1"):
        with pytest.raises(ContractError, match="expected") as caught:
            import_plates(layout, tmp_path, tmp_path / "out", who())
        assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_the_folder_does_not_say_must_be_given(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(tiff(np.eye(32, dtype=np.uint16)))
    (tmp_path / "in/load_data.csv").write_text("FileName_OrigDNA,Metadata_Well,Metadata_Site\na.tif,A01,0\n")
    with pytest.raises(ContractError) as caught:
        import_plates("load_data", tmp_path / "in", tmp_path / "out", who(), ReadOptions({"x": "Golgi 2"}))
    found = [problem.found for problem in caught.value.problems]
    assert found == ["x, which no image is called by", "no pixel size", "no modality", "x=Golgi 2"]
    plate_map = tmp_path / "map.csv"
    plate_map.write_text(
        "Metadata_Plate,Metadata_Well,Metadata_Compound,Metadata_Treatment,Metadata_pert_type,Metadata_Dose_uM\n"
        "in,A01,DMSO,DMSO,negcon,\n"
    )
    manifest, _ = import_plates("load_data", tmp_path / "in", tmp_path / "out",
                        who(modality="widefield", pixel_size_um=0.6, plate_map=plate_map))  # fmt: skip
    parsed = BatchManifest.read(manifest)
    assert parsed.plate_wells == 96
    assert "negcon" in (manifest.parent / parsed.plates[0].plate_map).read_text()


def test_names_are_made_safe():
    assert [safe_name(text) for text in ("a b/c", "..", "CP-CC9_R1", "é")] == [
        "a-b-c",
        "unnamed",
        "CP-CC9_R1",
        "unnamed",
    ]


def test_show_prints_the_plate_and_writes_pictures(dataset, tmp_path):
    result = CliRunner().invoke(
        app, ["show", str(dataset / "lab_a" / "b1"), "--plate", "b1_p2", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert "8 of 8" in result.output
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"b1_p2_{kind}.png" for kind in ("wells", "contact_sheet", "heat_maps")}
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 5000


def test_show_and_import_say_what_is_wrong_with_their_arguments(dataset, tmp_path):
    runner = CliRunner()
    batch = str(dataset / "lab_a" / "b1")
    for arguments in (["show", str(tmp_path)], ["show", batch, "--plate", "nope", "--out", str(tmp_path)]):
        assert isinstance(runner.invoke(app, arguments).exception, ConfigError)
    base = ["import", str(tmp_path), str(tmp_path), "--layout", "phenix", "--source", "s", "--batch", "b"]
    result = runner.invoke(app, [*base, "--instrument", "i", "--channel", "Cy5"])
    assert isinstance(result.exception, ConfigError)
    assert list(tmp_path.iterdir()) == []


def test_the_former_name_takes_the_same_options_does_the_same_and_says_so(tmp_path):
    runner = CliRunner()
    options = [str(tmp_path), str(tmp_path), "--source", "s", "--batch", "b", "--instrument", "i", "--channel", "Cy5"]
    now, before = (runner.invoke(app, [name, *options]) for name in ("import", "adopt"))
    assert str(now.exception) == str(before.exception)
    assert "coda plates import" in before.stderr
    assert now.stderr == ""
    assert "adopt" not in runner.invoke(app, ["--help"]).output


def test_import_writes_a_manifest_that_ingest_takes(shared_data, tmp_path):
    folder = shared_data / "images/phenix_v5/images"
    result = CliRunner().invoke(
        app, ["import", str(folder), str(tmp_path), "--layout", "phenix", "--source", "s", "--batch", "b",
              "--instrument", "Phenix", "--channel", "Brightfield high=DNA"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "s/b/manifest.json").read_text())
    assert manifest["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito"]
    assert pd.read_csv(tmp_path / "s/b" / manifest["plates"][0]["load_data"])["FileName_OrigDNA"].notna().all()
