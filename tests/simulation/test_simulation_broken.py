"""Broken deliveries are broken in the way their kind says, and in no other."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from coda.contracts import BatchManifest
from coda.contracts.manifest import FileEntry
from coda.errors import ConfigError
from coda.plates import file_lists
from coda.plates.batch_files import LocalFiles
from coda.plates.file_lists import files_of_plate
from coda.simulation import KINDS, break_batch, simulate_batch
from coda.simulation.delivery_files import describe_file


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def wrong_digests(folder: Path) -> list[str]:
    """Files that are listed but absent, or not as recorded."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return [
        file["path"]
        for plate in manifest["plates"]
        for file in plate["files"]
        if not (folder / file["path"]).exists() or describe_file(folder, file["path"]).model_dump() != file
    ]


def unreadable(folder: Path) -> list[str]:
    bad = []
    for path in sorted(folder.rglob("*.tif")):
        try:
            tifffile.imread(path)
        except (tifffile.TiffFileError, ValueError, OSError):
            bad.append(path.name)
    return bad


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_recorded_and_says_what_was_done(delivery, kind):
    (sentence,) = break_batch(delivery, [kind], 5)
    assert sentence.startswith(f"{kind}: ")
    assert json.loads((delivery / "manifest.json").read_text())["simulation"]["broken"] == [kind]
    silent = kind not in ("truncated_upload", "missing_plate")
    assert (not wrong_digests(delivery)) == silent
    BatchManifest.read(delivery / "manifest.json")


def everything_listed(folder: Path) -> list[set[FileEntry]]:
    manifest = BatchManifest.read(folder / "manifest.json")
    return [set(files_of_plate(LocalFiles(folder), plate)) for plate in manifest.plates]


def test_a_large_batch_is_simulated_and_broken_with_file_lists(experiment, delivery, tmp_path, monkeypatch):
    """All kinds at once leave the same files, listed alike, as in a manifest that lists them itself."""
    monkeypatch.setattr(file_lists, "MOST_INLINE", 10)
    simulate_batch(experiment, "lab_b", "batch_1", ("plate_1", "plate_2"), tmp_path, workers=1)
    large = tmp_path / "lab_b" / "batch_1"
    assert everything_listed(large) == everything_listed(delivery)
    for folder in (delivery, large):
        break_batch(folder, sorted(KINDS, key=lambda kind: kind == "missing_plate"), 5)
    manifest = BatchManifest.read(large / "manifest.json")
    assert [plate.file_list is None for plate in manifest.plates] == [False, False]
    assert everything_listed(large) == everything_listed(delivery)
    bodies = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.parent.name != "file_list"}
        for folder in (delivery, large)
    ]
    assert {path for path in bodies[0] if bodies[0][path] != bodies[1].get(path)} == {Path("manifest.json")}


@pytest.mark.filterwarnings("ignore")
def test_corrupt_images_cannot_be_read_but_are_recorded_as_they_are(delivery):
    assert unreadable(delivery) == []
    break_batch(delivery, ["corrupt_tiff"], 5)
    assert len(unreadable(delivery)) == 3
    assert wrong_digests(delivery) == []


def test_a_truncated_upload_is_shorter_than_recorded(delivery):
    break_batch(delivery, ["truncated_upload"], 5)
    assert len(wrong_digests(delivery)) == 3


def test_a_missing_plate_is_listed_and_not_there(delivery):
    break_batch(delivery, ["missing_plate"], 5)
    assert not list(delivery.rglob("*plate_2*.*"))
    assert len(wrong_digests(delivery)) == 102


def test_swapped_stains_change_load_data_alone(delivery):
    before = table(delivery / "load_data/plate_1.csv")
    break_batch(delivery, ["swapped_stains"], 5)
    after = table(delivery / "load_data/plate_1.csv")
    assert [row["FileName_OrigDNA"] for row in after] == [row["FileName_OrigAGP"] for row in before]
    assert [row["FileName_OrigAGP"] for row in after] == [row["FileName_OrigDNA"] for row in before]
    assert [row["FileName_OrigER"] for row in after] == [row["FileName_OrigER"] for row in before]


def test_swapped_stains_of_the_cytoplasm_change_load_data_of_all_plates(delivery):
    before = [table(delivery / f"load_data/plate_{number}.csv") for number in (1, 2)]
    break_batch(delivery, ["swapped_cytoplasm"], 5)
    after = [table(delivery / f"load_data/plate_{number}.csv") for number in (1, 2)]
    for old, new in zip(before, after, strict=True):
        assert [row["FileName_OrigRNA"] for row in new] == [row["FileName_OrigAGP"] for row in old]
        assert [row["FileName_OrigAGP"] for row in new] == [row["FileName_OrigRNA"] for row in old]
        assert [row["FileName_OrigER"] for row in new] == [row["FileName_OrigER"] for row in old]


def test_a_shuffled_plate_map_has_the_same_wells_and_treatments_elsewhere(delivery):
    before = table(delivery / "platemaps/plate_1.csv")
    break_batch(delivery, ["shuffled_platemap"], 5)
    after = table(delivery / "platemaps/plate_1.csv")
    assert [row["Metadata_Well"] for row in after] == [row["Metadata_Well"] for row in before]
    treatments = [[row["Metadata_Treatment"] for row in rows] for rows in (before, after)]
    assert sorted(treatments[0]) == sorted(treatments[1])
    assert treatments[0] != treatments[1]
    for rows in (before, after):
        assert {row["Metadata_Well"] for row in rows if row["Metadata_pert_type"] == "empty"} == {
            row["Metadata_Well"] for row in before if row["Metadata_pert_type"] == "empty"
        }


def test_without_controls_the_rest_is_whole(delivery):
    break_batch(delivery, ["no_controls"], 5)
    kinds = {row["Metadata_pert_type"] for row in table(delivery / "platemaps/plate_1.csv")}
    assert kinds == {"trt", "empty"}
    assert len(table(delivery / "load_data/plate_2.csv")) == 12
    assert len(list(delivery.rglob("*.tif"))) == 2 * 12 * 5


def test_an_unknown_stain_is_a_name_like_others_in_manifest_and_table(delivery):
    """A laboratory may call its stains as it likes; who needs AGP refuses the batch (ingest.channels, a release)."""
    break_batch(delivery, ["unknown_stain"], 5)
    assert BatchManifest.read(delivery / "manifest.json").channels == ("DNA", "ER", "RNA", "Actin", "Mito")
    assert "FileName_OrigActin" in table(delivery / "load_data/plate_1.csv")[0]


def test_a_wrong_plate_map_has_none_of_the_imaged_wells(delivery):
    break_batch(delivery, ["wrong_platemap"], 5)
    imaged = {row["Metadata_Well"] for row in table(delivery / "load_data/plate_1.csv")}
    assert not imaged & {row["Metadata_Well"] for row in table(delivery / "platemaps/plate_1.csv")}
    assert imaged <= {row["Metadata_Well"] for row in table(delivery / "platemaps/plate_2.csv")}


def test_zero_images_are_valid_and_black(delivery):
    break_batch(delivery, ["zero_images"], 5)
    black = [path for path in delivery.rglob("*.tif") if not tifffile.imread(path).any()]
    assert len(black) == 3
    assert tifffile.imread(black[0]).dtype == np.uint16


def test_the_same_seed_breaks_the_same_files_and_kinds_add_up(delivery, tmp_path):
    break_batch(delivery, ["swapped_stains"], 5)
    break_batch(delivery, ["missing_plate"], 5)
    manifest = json.loads((delivery / "manifest.json").read_text())
    assert manifest["simulation"]["broken"] == ["swapped_stains", "missing_plate"]


def test_unknown_kinds_and_folders_are_reported_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        break_batch(tmp_path, ["rust", "zero_images", "fire"], 0)
    assert [problem.found for problem in caught.value.problems] == ["'rust'", "'fire'", "no manifest.json"]
