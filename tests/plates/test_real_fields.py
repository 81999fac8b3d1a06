"""Whole batches of real fields, from the instrument's folder to the verdict: the reasons must be the true ones."""

import csv
import shutil

import numpy as np
import pytest
from batches import SETTINGS
from typer.testing import CliRunner

from coda.cli.plates import app as plates_app
from coda.cli.quality import app as quality_app
from coda.cli.step import app as step_app
from coda.contracts import BatchManifest
from coda.errors import ContractError
from coda.monitoring.report import write_report
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.file_references import FileResolver
from coda.plates.load_data import read_fields, stains_of
from coda.plates.readers.deliver import Identity
from coda.plates.readers.deliver import import_plates as import_tree
from coda.plates.store_reading import read_arrays
from coda.plates.tabular.table import read_table
from coda.plates.tree import LocalTree
from coda.steps.ingest import ingest
from coda.steps.validate import validate

PHENIX = ("ingest.channels=[ER, RNA, AGP, Mito]", "extractor.channels=[ER, RNA, AGP, Mito]")
JUMP = ("ingest.channels=[DNA, RNA, AGP]", "extractor.channels=[DNA, RNA, AGP]")
RXRX1 = ("quality.plate_quorum=0.5",)
CELLS = {"HEPG2": (400, 1100), "HUVEC": (80, 160), "RPE": (70, 130), "U2OS": (110, 190)}
"""Nuclei in a field of 0.33 mm, counted by eye in the pictures, with room: HEPG2 grows in clumps."""


def import_plates(layout, folder, out, identity, options=None):
    return import_tree(layout, LocalTree(folder), out, identity, options)


def who(**changes):
    return Identity(**({"source": "lab", "batch": "b", "instrument": "Opera Phenix"} | changes))


@pytest.fixture
def judged(small_params, tmp_path):
    """Ingest and validate one imported batch; returns its folder, the quality report and the parameters."""

    def go(manifest, *changes):
        params = small_params(*changes)
        ingest([str(manifest)], tmp_path / "out", params=params, settings=SETTINGS)
        (report,) = validate(tmp_path / "out", params=params, settings=SETTINGS)
        (folder,) = open_batches(tmp_path / "out")
        return folder, report, params

    return go


def jump_folder(shared_data, tmp_path):
    """One field of the JUMP pilot with the table its laboratory would have written."""
    folder = tmp_path / "folder"
    shutil.copytree(shared_data / "images/cpjump1_BR00117006", folder)
    names = {"AGP": 2, "RNA": 3, "DNA": 5}
    (folder / "load_data.csv").write_text(
        ",".join(f"FileName_Orig{stain}" for stain in names)
        + ",Metadata_Plate,Metadata_Well,Metadata_Site\n"
        + ",".join(f"r01c01f01p01-ch{number}sk1fk1fl1.tiff" for number in names.values())
        + ",BR00117006,A01,1\n"
    )
    return folder


def failed(report, severity):
    return {check.name for check in report.checks if not check.passed and check.severity == severity}


def stored(folder):
    """The stored pixels of a batch, also of refused plates: {image_id: (channels, height, width)}."""
    found = {}
    for store, rows in folder.ingested.groupby("store"):
        shapes = [
            (len(c.split(",")), h, w) for c, h, w in zip(rows["channels"], rows["height"], rows["width"], strict=True)
        ]
        found |= dict(
            zip(rows["image_id"], read_arrays(folder.path / store, rows["array"].tolist(), shapes), strict=True)
        )
    return found


def assert_pictures(folder):
    """Neither black nor white nor flat: each stain uses the 8 bits, clips under 1 %, and is neither empty nor full."""
    pictures = stored(folder)
    assert pictures
    for name, field in pictures.items():
        for stain, plane in zip(str(folder.ingested["channels"].iloc[0]).split(","), field, strict=True):
            where = (name, stain)
            assert plane.max() >= 200, where
            assert (plane == 255).mean() < 0.01, where
            assert (plane == 0).mean() < 0.5, where  # an 8-bit source may hold its ground in one count
            assert 4 < plane.mean() < 140, where
            assert plane.std() > 4, where


def phenix_delivery(shared_data, tmp_path, layout):
    folder = shared_data / "images/phenix_v5"
    if layout == "phenix":
        return import_plates("phenix", folder / "images", tmp_path / "in", who())[0]
    return import_plates("load_data", folder, tmp_path / "in", who(modality="confocal", plate_wells=384))[0]


@pytest.mark.parametrize("layout", ["phenix", "load_data"])
def test_a_phenix_plate_is_refused_for_its_controls_and_its_empty_stain_told(layout, shared_data, tmp_path, judged):
    """By eye: ER, RNA and AGP show cells; the mitochondria were never stained, Mito holds lamp light and dust."""
    manifest = phenix_delivery(shared_data, tmp_path, layout)
    folder, report, _ = judged(manifest, *PHENIX)
    assert failed(report, "critical") == {"negative_controls_are_there", "enough_plates_are_left"}
    assert "its one plate cannot be used. Plate BR00122249: 0 negative-control wells; no plate map" in report.sentence
    # one field is too little to refuse a plate for what its pictures show
    (empty,) = (check for check in report.checks if check.name == "stains_of_the_cytoplasm_resemble_each_other")
    assert (empty.where, empty.observed.count("the pictures of")) == ("plate BR00122249", 1)
    assert "the pictures of Mito" in empty.observed
    assert "nuclei_can_be_looked_for" in failed(report, "warning")
    assert_pictures(folder)
    row = folder.ingested.iloc[0]
    assert row["channels"] == "ER,RNA,AGP,Mito"
    assert (row["height"], row["width"]) == (540, 540)
    assert row["Metadata_PixelSize_um"] == pytest.approx(2 * 0.59797608)
    assert folder.manifest.plate_wells == 384
    assert (folder.manifest.instrument.bit_depth, folder.manifest.instrument.objective) == (16, "20x/1")
    assert load_fields([folder], ("ER",), 448).images.shape[0] == 0, "nothing of a refused batch may be learned from"


def test_index_and_table_of_one_phenix_plate_give_the_same_pixels(shared_data, small_params, tmp_path):
    found = []
    for layout in ("phenix", "load_data"):
        manifest = phenix_delivery(shared_data, tmp_path / layout, layout)
        ingest([str(manifest)], tmp_path / layout / "out", params=small_params(*PHENIX), settings=SETTINGS)
        found.append(BatchFolder(tmp_path / layout / "out/lab/b"))
    assert found[0].index.equals(found[1].index)


def test_without_the_settings_for_its_stains_the_batch_is_refused_whole_and_told_what_to_set(
    shared_data, tmp_path, judged
):
    manifest = phenix_delivery(shared_data, tmp_path, "phenix")
    folder, report, _ = judged(manifest)
    assert report.refused
    assert "only the stains ER, RNA, AGP, Mito" in report.sentence
    assert "leave DNA out of ingest.channels and extractor.channels" in report.sentence
    assert "Upload" not in report.sentence
    assert report.sentence.count("missing: DNA") == 1
    assert not stored(folder)
    _, remarks = import_plates("phenix", shared_data / "images/phenix_v5/images", tmp_path / "again", who())
    (advice,) = (remark for remark in remarks if remark.startswith("Not found: DNA"))
    assert "--set 'ingest.channels=[ER,RNA,AGP,Mito]' --set 'extractor.channels=[ER,RNA,AGP,Mito]'" in advice


def test_a_jump_field_is_refused_for_its_controls_alone(shared_data, tmp_path, judged):
    identity = who(modality="confocal", pixel_size_um=0.598, plate_wells=384)
    manifest, remarks = import_plates("load_data", jump_folder(shared_data, tmp_path), tmp_path / "in", identity)
    assert not [remark for remark in remarks if "Plate format" in remark]
    folder, report, _ = judged(manifest, *JUMP)
    assert failed(report, "critical") == {"negative_controls_are_there", "enough_plates_are_left"}
    assert "Plate BR00117006: 0 negative-control wells" in report.sentence
    assert_pictures(folder)
    row = folder.ingested.iloc[0]
    assert row["channels"] == "DNA,RNA,AGP"
    assert row["Metadata_PixelSize_um"] == pytest.approx(1.196)
    assert 100 < row["QC_cells_DNA"] < 300
    assert row["QC_corr_RNA_AGP"] > 0.8


def test_a_plate_whose_format_is_not_said_tells_the_guess_and_refuses_an_impossible_one(shared_data, tmp_path):
    folder = jump_folder(shared_data, tmp_path)
    known = {"modality": "confocal", "pixel_size_um": 0.598}
    manifest, remarks = import_plates("load_data", folder, tmp_path / "in", who(**known))
    assert BatchManifest.read(manifest).plate_wells == 96
    assert any("Plate format: 96 wells" in remark and "--plate-wells" in remark for remark in remarks)
    table = folder / "load_data.csv"
    table.write_text(table.read_text().replace(",A01,", ",P24,"))
    for wells, found in ((96, "96, but images of well P24"), (100, "100")):
        with pytest.raises(ContractError) as caught:
            import_plates("load_data", folder, tmp_path / "no", who(**known, plate_wells=wells))
        assert [problem.found for problem in caught.value.problems] == [found]
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("cell", CELLS)
def test_rxrx1_plates_are_refused_for_an_incomplete_well_and_then_for_their_controls(
    cell, shared_data, tmp_path, judged
):
    folder = shared_data / f"images/rxrx1/train/{cell}-01"
    manifest, _ = import_plates("rxrx1", folder, tmp_path / "in", who(pixel_size_um=0.65))
    _, strict, _ = judged(manifest)
    assert failed(strict, "critical") == {"plates_are_delivered", "enough_plates_are_left"}
    plates = ", ".join(f"{cell}-01_Plate{number}" for number in range(1, 5))
    assert f"Plates {plates}: Only 1 of 2 expected fields can be read" in strict.sentence
    assert "well B02 site 2, Mito: load_data names no file for this stain" in strict.sentence
    assert strict.sentence.count("B02") == 1, "one reason for four plates is said once"
    ingested, report, _ = judged(manifest, *RXRX1)
    assert failed(report, "critical") == {"negative_controls_are_there", "enough_plates_are_left"}
    assert f"Plates {plates}: 0 negative-control wells" in report.sentence
    assert_pictures(ingested)
    low, high = CELLS[cell]
    assert ingested.ingested["QC_cells_DNA"].between(low, high).all()
    assert (ingested.ingested["channels"] == "DNA,ER,RNA,AGP,Mito").all()
    assert (ingested.ingested["Metadata_PixelSize_um"] == 1.3).all()


def rxrx1_map(path, cell):
    header = "Metadata_Plate,Metadata_Well,Metadata_Compound,Metadata_Treatment,Metadata_pert_type,Metadata_Dose_uM\n"
    path.write_text(header + "".join(f"{cell}-01_Plate{n},B02,untreated,untreated,negcon,\n" for n in range(1, 5)))
    return path


def test_real_plates_with_a_plate_map_are_accepted_and_their_fields_come_out(shared_data, tmp_path, judged):
    identity = who(pixel_size_um=0.65, plate_map=rxrx1_map(tmp_path / "map.csv", "HUVEC"))
    manifest, _ = import_plates("rxrx1", shared_data / "images/rxrx1/train/HUVEC-01", tmp_path / "in", identity)
    changes = ("quality.min_negcon_wells=1", "ingest.scaling_factor=1.0", "crops.centre=448")
    folder, report, params = judged(manifest, *RXRX1, *changes)
    assert report.verdict == "accepted_with_warnings"
    assert failed(report, "critical") == set()
    assert failed(report, "warning") == {"plates_are_complete", "treatments_are_in_another_batch"}
    fields = load_fields([folder], ("DNA", "AGP", "RNA"), params.crops.centre)
    assert fields.images.shape == (4, 3, 448, 448)
    assert set(fields.table["Metadata_pert_type"]) == {"negcon"}
    assert not [note for note in folder.ingest.notes if "crops.centre" in note]
    assert fields.images[:, :, :8].mean() > 2, "no black frame"


def test_small_fields_are_told_because_the_network_would_see_a_black_frame(shared_data, tmp_path, judged):
    manifest, _ = import_plates(
        "rxrx1", shared_data / "images/rxrx1/train/RPE-01", tmp_path / "in", who(pixel_size_um=0.65)
    )
    folder, _, _ = judged(manifest, *RXRX1, "crops.centre=448")
    (note,) = (note for note in folder.ingest.notes if "crops.centre" in note)
    assert note.startswith("Fields of 256 x 256 stored pixels are smaller than crops.centre (448)")


@pytest.mark.parametrize("stain", ["ER", "RNA", "AGP", "Mito"])
def test_pictures_of_another_well_under_one_stain_are_warned_of(stain, shared_data, tmp_path, judged):
    """A mixed-up file name: one stain of each U2OS plate, of one field, comes from the HUVEC plate of the number."""
    mixed = tmp_path / "train/U2OS-01"
    shutil.copytree(shared_data / "images/rxrx1/train/U2OS-01", mixed)
    number = {"ER": 2, "AGP": 3, "RNA": 4, "Mito": 5}[stain]
    for plate in range(1, 5):
        name = f"Plate{plate}/B02_s1_w{number}.png"
        shutil.copy(shared_data / "images/rxrx1/train/HUVEC-01" / name, mixed / name)
    identity = who(pixel_size_um=0.65, plate_map=rxrx1_map(tmp_path / "map.csv", "U2OS"))
    manifest, _ = import_plates("rxrx1", mixed, tmp_path / "in", identity)
    _, report, _ = judged(manifest, *RXRX1, "quality.min_negcon_wells=1")
    checks = [c for c in report.checks if c.name == "stains_seem_to_show_the_same_cells" and not c.passed]
    assert {check.where for check in checks} == {f"plate U2OS-01_Plate{number}" for number in range(1, 5)}
    assert all(f"the pictures of {stain}" in check.observed for check in checks)


def test_a_refused_plate_can_still_be_looked_at(shared_data, tmp_path, judged):
    folder, report, params = judged(phenix_delivery(shared_data, tmp_path, "phenix"), *PHENIX)
    assert report.refused
    assert len(folder.index) == 0
    assert len(folder.ingested) == 1
    result = CliRunner().invoke(plates_app, ["show", str(folder.path), "--out", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    assert "refused by" in result.output
    assert "negative-control" in result.output
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"BR00122249_{kind}.png" for kind in ("wells", "contact_sheet", "heat_maps")}
    narrow = CliRunner().invoke(quality_app, ["show", str(folder.path), "--width", "80"])
    assert narrow.exit_code == 0, narrow.output
    assert "critical  plate BR00122249: negative controls are there" in narrow.output
    page = write_report(tmp_path / "out", tmp_path / "r.html", params=params, run_id="r").path.read_text()
    assert page.count("data:image/") >= 3 + 4, "example fields and heat maps of the refused plate"
    assert "as stored (light not corrected)" in page
    assert "not corrected (too few fields)" in page


def test_the_ingest_command_accounts_for_refused_plates_and_says_its_notes(shared_data, root, tmp_path):
    manifest, _ = import_plates(
        "rxrx1", shared_data / "images/rxrx1/train/RPE-01", tmp_path / "in", who(pixel_size_um=0.65)
    )
    arguments = ["ingest", "--manifest", str(manifest), "--params", str(root / "params.yaml"), "--work", str(tmp_path)]
    refused = CliRunner().invoke(step_app, [*arguments, "--out", str(tmp_path / "strict")])
    assert isinstance(refused.exception, ContractError)
    assert "nothing for the next step" in refused.exception.message
    assert [problem.where for problem in refused.exception.problems] == [
        f"lab/b, plate RPE-01_Plate{n}" for n in (1, 2, 3, 4)
    ]
    assert all("fields can be read" in problem.found for problem in refused.exception.problems)
    assert "lab/b: 0 of 8 fields in the plate stores, 4 of 4 plates refused, 4 field(s) or file(s)" in refused.output
    taken = CliRunner().invoke(step_app, [*arguments, "--out", str(tmp_path / "lax"), "--set", *RXRX1])
    assert "4 of 8 fields" in taken.output
    assert "plates refused" not in taken.output
    assert "Illumination was left as recorded on RPE-01_Plate1" in taken.output


def test_the_table_of_an_export_says_pixel_size_bits_and_lens(shared_data, tmp_path):
    (golden,) = csv.DictReader((shared_data / "images/phenix_v5/load_data_version5.csv").read_text().splitlines())
    instrument = BatchManifest.read(phenix_delivery(shared_data, tmp_path, "load_data")).instrument
    assert instrument.pixel_size_um == pytest.approx(float(golden["Metadata_ImageResolutionX"]) * 1e6)
    assert instrument.bit_depth == int(np.log2(int(golden["Metadata_MaxIntensity"]) + 1))
    assert instrument.objective == f"{golden['Metadata_ObjectiveMagnification']}x/{golden['Metadata_ObjectiveNA']}"


TABLES = {
    "pe2loaddata_version7.csv": ("Metadata_Plate", ("DNA", "ER", "RNA", "AGP", "Mito")),
    "pycytominer_BR00126114_load_data_with_illum.parquet": ("Metadata_Plate", ("DNA", "ER", "RNA", "AGP", "Mito")),
}


@pytest.mark.parametrize("generation", ["names and folders", "addresses"])
@pytest.mark.parametrize("name", TABLES)
def test_real_load_data_of_both_generations_gives_every_field_its_files(name, generation, shared_data):
    """The newer generation holds one address a stain; no such real table is at hand, so it is made of the older one."""
    table = read_table((shared_data / "jump/load_data" / name).read_bytes())
    column, declared = TABLES[name]
    assert set(declared) <= set(stains_of(list(table.columns)))
    plate = str(table[column].iloc[0])
    paths = []
    for stain in declared:
        folders = table[f"PathName_Orig{stain}"].str.rstrip("/")
        addresses = folders + "/" + table[f"FileName_Orig{stain}"]
        paths += [f"images/{plate}/{address.rpartition('/')[2]}" for address in addresses]
        if generation == "addresses":
            table[f"URL_Orig{stain}"] = "s3://bucket" + addresses
            table = table.drop(columns=[f"PathName_Orig{stain}", f"FileName_Orig{stain}"])
    fields, problems = read_fields(
        table, where="t", plate=plate, declared=declared, wells=384, resolver=FileResolver(sorted(set(paths)))
    )
    assert {problem.found for problem in problems} <= {"unknown channel 'Actin'"}
    assert len(fields) == len(table)
    for field in fields:
        assert not field.missing
        assert set(field.files) == set(declared)
        assert len(set(field.files.values())) == len(declared)
    assert {(field.well, field.site) for field in fields} == {
        (well, int(site)) for well, site in zip(table["Metadata_Well"], table["Metadata_Site"], strict=True)
    }
