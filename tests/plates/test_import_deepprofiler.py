"""DeepProfiler's compressed images: an index with a file for each channel, and channels side by side."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from batches import SETTINGS, field
from instrument_trees import found, put

from coda.contracts import STAINS, BatchManifest
from coda.errors import ConfigError, ContractError
from coda.plates.dataset import load_fields, open_batches
from coda.plates.readers.deliver import Identity, import_plates
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import LocalTree
from coda.steps.ingest import ingest

ORDER = {str(number): stain for number, stain in enumerate(STAINS, start=1)}


def eight(seed):
    return {stain: (image >> 8).astype(np.uint8) + number for number, (stain, image) in enumerate(field(seed).items())}


def png(image):
    return imagecodecs.png_encode(image)


def side_by_side(folder, *, wells=("B02", "B03", "C02", "C03"), sites=(1, 2)):
    """Write a plate of images with five channels side by side; returns their pixels by path."""
    shots = {}
    for number, well in enumerate(wells):
        for site in sites:
            shots[f"P1/{well}_{site}.png"] = np.hstack(list(eight(10 * number + site).values()))
    put(folder, {path: png(image) for path, image in shots.items()})
    return shots


def who():
    return Identity("lab", "b", "DeepProfiler", modality="confocal", pixel_size_um=1.196)


def test_channels_side_by_side_are_cut_where_they_were_joined(tmp_path):
    shots = side_by_side(tmp_path / "in")
    (plate,) = found("deepprofiler", tmp_path / "in", channels=ORDER)
    assert (plate.plate, plate.bit_depth, len(plate.fields)) == ("P1", 8, 8)
    manifest, remarks = import_plates(
        "deepprofiler", LocalTree(tmp_path / "in"), tmp_path / "out", who(), ReadOptions(ORDER)
    )
    parsed = BatchManifest.read(manifest)
    assert parsed.preparation == "deepprofiler"
    assert parsed.instrument.pixel_size_um == 1.196
    assert "Plate P1: 5 channels side by side: DNA, ER, RNA, AGP, Mito." in remarks
    for number, stain in enumerate(STAINS):
        pixels = tifffile.imread(manifest.parent / f"images/P1/C02_s2_{stain}.tif")
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, shots["P1/C02_2.png"][:, 80 * number : 80 * (number + 1)])


def test_positions_may_be_left_out_but_not_forgotten(tmp_path):
    side_by_side(tmp_path, wells=("B02",), sites=(1,))
    (plate,) = found("deepprofiler", tmp_path, channels=ORDER | {"2": "none", "3": "none"})
    assert {stain: image.plane for stain, image in plate.fields[0].files.items()} == {"DNA": 0, "AGP": 3, "Mito": 4}
    for channels in ({}, {"1": "DNA", "3": "Mito"}, {"DNA": "DNA"}, {"1": "DNA", "x": "ER"}, {"99": "DNA"}):
        with pytest.raises(ConfigError, match="--channel 1=DNA"):
            found("deepprofiler", tmp_path, channels=channels)


def test_endings_of_images_side_by_side_may_be_written_in_any_case(tmp_path):
    put(tmp_path, {"P1/A01_1.png": b"", "P1/A02_1.PNG": b""})
    (plate,) = found("deepprofiler", tmp_path, channels={"1": "DNA", "2": "none"})
    assert [item.files["DNA"].path for item in plate.fields] == ["P1/A01_1.png", "P1/A02_1.PNG"]


def test_images_that_are_no_such_images_are_told_and_absent(tmp_path):
    side_by_side(tmp_path / "in", wells=("B02",))
    put(tmp_path / "in", {"P1/B03_1.png": png(np.zeros((64, 401), np.uint8)), "P1/B04_1.png": b"\x89PNG\r\n\x1a\nxx"})
    manifest, remarks = import_plates(
        "deepprofiler", LocalTree(tmp_path / "in"), tmp_path / "out", who(), ReadOptions(ORDER)
    )
    assert any("10 image(s) could not be read" in remark and "401 pixels wide" in remark for remark in remarks)
    assert len(BatchManifest.read(manifest).plates[0].files) == 2 * 5 + 2


def indexed(folder, columns=None):
    """Write images with a file for each channel, and the index that names the raw ones; returns the pixels."""
    lines, files, shots = ["Metadata_Plate,Metadata_Well,Metadata_Site,DNA,ER,RNA,AGP,Mito,Treatment"], {}, {}
    for number, well in enumerate(("B02", "B03", "C02", "C03")):
        for site in ("1", "2"):
            images = eight(10 * number + int(site))
            names = []
            for stain in STAINS:
                files[f"outputs/compressed/images/P1/{well}_{site}_{stain}.png"] = png(images[stain])
                shots[well, int(site), stain] = images[stain]
                names.append(f"P1/{well}_{site}_{stain}.tif")
            lines.append(",".join(["P1", well, site, *names, "aspirin"]))
    lines[0] = columns or lines[0]
    put(folder, {**files, "inputs/metadata/index.csv": "\n".join(lines) + "\n"})
    return shots


def test_an_indexed_folder_is_ingested_with_its_pixels_as_they_are(tmp_path, small_params):
    shots = indexed(tmp_path / "in")
    manifest, _ = import_plates("deepprofiler", LocalTree(tmp_path / "in"), tmp_path / "out", who(), ReadOptions())
    (report,) = ingest([str(manifest)], tmp_path / "data", params=small_params(), settings=SETTINGS)
    assert (report.fields_expected, report.fields_accepted) == (8, 8)
    fields = load_fields(open_batches(tmp_path / "data"), ("DNA", "Mito"), 64)
    row = fields.table.index[(fields.table["Metadata_Well"] == "C03") & (fields.table["Metadata_Site"] == 2)][0]
    for number, stain in enumerate(("DNA", "Mito")):
        stored = fields.images[row, number]
        assert np.array_equal(stored, shots["C03", 2, stain][:, 8:72]), "the middle of 64 x 80 pixels"


def test_columns_of_other_names_are_mapped_and_others_are_no_channels(tmp_path):
    indexed(tmp_path, "Metadata_Plate,Metadata_Well,Metadata_Site,ch1,ch2,RNA,AGP,Mito,Treatment")
    (plate,) = found("deepprofiler", tmp_path, channels={"ch1": "DNA"})
    assert set(plate.fields[0].files) == {"DNA", "RNA", "AGP", "Mito"}
    assert plate.left_out == {"ch2": 8}


@pytest.mark.parametrize(
    ("row", "reason"),
    [("P1,Z,1,a.png", "a number"), ("P1,B02,one,a.png", "a number"), (",B02,1,a.png", "a number"),
     ("P1,B02,1,a.png\nP1,B02,1,a.png", "a second time")],
)  # fmt: skip
def test_rows_that_cannot_be_are_refused(row, reason, tmp_path):
    put(tmp_path, {"a.png": b"", "index.csv": f"Metadata_Plate,Metadata_Well,Metadata_Site,DNA\n{row}\n"})
    with pytest.raises(ContractError, match=reason):
        found("deepprofiler", tmp_path)


def test_images_that_the_index_names_elsewhere_are_not_found(tmp_path):
    text = "Metadata_Plate,Metadata_Well,Metadata_Site,DNA\nP1,B02,1,../../secret.png\nP1,B03,1,a.png\n"
    put(tmp_path, {"secret.png": b"", "in/a.png": b"", "in/index.csv": text})
    (plate,) = found("deepprofiler", tmp_path / "in")
    assert [sorted(item.files) for item in plate.fields] == [[], ["DNA"]]
    assert "1 image(s) named by the index are not there (the first: ../../secret.png)" in plate.notes


def test_other_tables_do_not_disturb_and_a_broken_index_is_told(tmp_path):
    indexed(tmp_path)
    put(tmp_path, {"notes.csv": "", "wells.csv": "a,b\n1,2\n"})
    assert len(found("deepprofiler", tmp_path)[0].fields) == 8
    put(tmp_path, {"inputs/metadata/index.csv": ""})
    with pytest.raises(ContractError, match=r"index\.csv"):
        found("deepprofiler", tmp_path)


def test_two_indexes_or_no_images_are_refused(tmp_path):
    text = "Metadata_Plate,Metadata_Well,Metadata_Site,DNA\nP1,B02,1,a.png\n"
    put(tmp_path, {"a.png": b"", "index.csv": text, "x/metadata.csv": text})
    with pytest.raises(ContractError, match="one index"):
        found("deepprofiler", tmp_path)
    with pytest.raises(ContractError, match="neither of them"):
        found("deepprofiler", put(tmp_path / "none", {"x.png": b""}))
