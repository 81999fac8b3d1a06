"""What lies in a delivered batch: files, tables, manifest; the same bytes each time; no label."""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from coda.contracts import STAINS, BatchManifest
from coda.errors import ConfigError
from coda.simulation import MECHANISMS, Experiment, find_laboratory, plan_experiment, simulate_batch, write_labels
from coda.simulation.delivery_files import write_image

LABS = ("lab_a", "lab_b", "lab_c")


def tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(experiment, deliveries, tmp_path):
    calls = []
    simulate_batch(
        experiment, "lab_c", "batch_1", ("plate_1", "plate_2"), tmp_path, workers=2, progress=lambda *c: calls.append(c)
    )
    assert tree(tmp_path / "lab_c") == tree(deliveries / "lab_c")
    assert calls[-1] == (40, 40)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_another_seed_gives_other_pixels(experiment, deliveries, tmp_path):
    other = plan_experiment(8, experiment.design)
    simulate_batch(other, "lab_a", "batch_1", ("plate_1",), tmp_path, workers=1)
    theirs = {digest for name, digest in tree(tmp_path).items() if name.endswith("tiff")}
    ours = {digest for name, digest in tree(deliveries / "lab_a").items() if name.endswith("tiff")}
    assert len(theirs) == 100
    assert not theirs & ours


@pytest.mark.parametrize("lab", LABS)
def test_the_manifest_lists_every_file_with_its_size_and_digest(deliveries, lab):
    folder = deliveries / lab / "batch_1"
    manifest = BatchManifest.read(folder / "manifest.json")
    listed = {file.path: file.sha256 for plate in manifest.plates for file in plate.files}
    present = tree(folder)
    del present["manifest.json"]
    assert listed == present
    assert all((folder / file.path).stat().st_size == file.size_bytes for p in manifest.plates for file in p.files)
    # 10 wells (6 compounds, 3 DMSO, 1 positive control) x 2 sites x 5 stains, and two tables
    assert [len(plate.files) for plate in manifest.plates] == [102, 102]
    assert manifest.channels == STAINS
    assert manifest.instrument.pixel_size_um == pytest.approx(2 * find_laboratory(lab).optics.pixel_size_um)


@pytest.mark.parametrize("lab", LABS)
def test_load_data_names_existing_16_bit_images(deliveries, lab):
    folder = deliveries / lab / "batch_1"
    table = rows(folder / "load_data" / "plate_2.csv")
    assert len(table) == 20
    for row in table:
        assert (row["Metadata_Source"], row["Metadata_Batch"], row["Metadata_Plate"]) == (lab, "batch_1", "plate_2")
        for stain in STAINS:
            with tifffile.TiffFile(folder / (row[f"PathName_Orig{stain}"] + row[f"FileName_Orig{stain}"])) as tiff:
                assert len(tiff.pages) == 1
                page = tiff.pages[0]
                assert (page.dtype, page.shape) == (np.uint16, (48, 48))
                x = page.tags["XResolution"].value
                assert 1e4 * x[1] / x[0] == pytest.approx(2 * find_laboratory(lab).optics.pixel_size_um, rel=1e-4)


def test_file_names_follow_each_familys_own_pattern_and_channel_numbers(deliveries):
    patterns = {
        "lab_a": r"^r\d\dc\d\df\d\dp01-ch(\d+)sk1fk1fl1\.tiff$",
        "lab_b": r"^plate_1_[A-Z]\d\d_T0001F\d{3}L01A\d\dZ01C(\d\d)\.tif$",
        "lab_c": r"^HTS_[A-Z]\d\d_s\d_w(\d)[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}\.tif$",
    }
    numbers = {}
    for lab, pattern in patterns.items():
        row = rows(deliveries / lab / "batch_1" / "load_data" / "plate_1.csv")[0]
        matches = [re.match(pattern, row[f"FileName_Orig{stain}"]) for stain in STAINS]
        assert all(matches), lab
        numbers[lab] = tuple(int(match.group(1)) for match in matches)
    assert len(set(numbers.values())) == 3


def test_the_layout_is_the_same_on_every_plate_of_every_laboratory(deliveries):
    maps = [rows(path) for path in sorted(deliveries.rglob("platemaps/*.csv"))]
    assert len(maps) == 6
    plain = [[{k: v for k, v in row.items() if k != "Metadata_Plate"} for row in table] for table in maps]
    assert all(table == plain[0] for table in plain)
    kinds = [row["Metadata_pert_type"] for row in plain[0]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"trt": 6, "negcon": 3, "poscon": 1, "empty": 14}
    assert all(row["Metadata_Treatment"] == "" for row in plain[0] if row["Metadata_pert_type"] == "empty")


def test_cells_differ_between_sites_plates_and_laboratories(deliveries):
    images = list(deliveries.rglob("*.tif*"))
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in images}) == len(images) == 600


def test_no_mechanism_reaches_a_delivered_file(experiment, deliveries, tmp_path):
    labels = rows(write_labels(experiment, tmp_path / "labels.csv"))
    names = {name.lower().encode() for name in MECHANISMS} | {b"metadata_moa", b"ec50_um"}
    words = names | {name.split()[0].lower().encode() for name in MECHANISMS}
    files = [path for path in deliveries.rglob("*") if path.is_file()]
    assert len(files) == 615
    for path in files:
        content = path.read_bytes().lower()
        # Three letters may turn up in pixels by chance: images are searched for whole names.
        searched = names if ".tif" in path.name else words
        assert not [word for word in searched if word in content or word in path.name.lower().encode()], path
    treated = {plan.compound for plan in experiment.layout if plan.pert_type == "trt"}
    assert {row["Metadata_Compound"] for row in labels} == treated
    assert len(labels) == 6
    assert len({row["moa"] for row in labels}) == 3
    # the code names do not follow the mechanisms: sorted by name, the mechanisms are mixed
    names = [row["moa"] for row in sorted(labels, key=lambda row: row["Metadata_Compound"])]
    assert list(names) != sorted(names)


def test_a_whole_delivery_is_left_alone_and_an_interrupted_one_is_completed(experiment, delivery, deliveries):
    out = delivery.parent
    target = out / "lab_b" / "batch_1"
    target.parent.mkdir()
    delivery.rename(target)
    image = next(target.rglob("*.tif"))
    image.write_bytes(b"touched")
    simulate_batch(experiment, "lab_b", "batch_1", ("plate_1", "plate_2"), out, workers=1)
    assert image.read_bytes() == b"touched"
    (target / "manifest.json").unlink()
    simulate_batch(experiment, "lab_b", "batch_1", ("plate_1", "plate_2"), out, workers=1)
    assert tree(target) == tree(deliveries / "lab_b" / "batch_1")
    with pytest.raises(ConfigError, match="other parameters"):
        simulate_batch(experiment, "lab_b", "batch_1", ("plate_1", "plate_3"), out, workers=1)


def test_bad_names_are_reported_together(experiment, tmp_path):
    with pytest.raises(ConfigError) as caught:
        simulate_batch(experiment, "lab_a", "../up", ("p 1", "p2", "p2"), tmp_path)
    assert [problem.where for problem in caught.value.problems] == ["batch", "plates", "plates"]
    with pytest.raises(ConfigError, match="lab_z"):
        simulate_batch(experiment, "lab_z", "b", ("p",), tmp_path)
    assert not list(tmp_path.iterdir())


def test_lzw_keeps_the_pixels(tmp_path):
    counts = np.arange(64, dtype=np.uint16).reshape(8, 8)
    write_image(tmp_path / "a.tif", counts, 1.1, "lzw")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW
        assert (tiff.asarray() == counts).all()


def test_the_experiment_survives_json(experiment):
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
