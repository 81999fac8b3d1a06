"""Acquisitions, time points and planes: one rule in all readers, with the list to choose from."""

import numpy as np
import pytest
import tifffile
from batches import tiff
from instrument_trees import (
    HARMONY,
    cv_detail,
    cv_index,
    cv_name,
    cv_record,
    found,
    harmony_image,
    harmony_index,
    harmony_settings,
    htd,
    put,
)

from coda.cli.reading import ReadingOptions
from coda.contracts import STAINS
from coda.errors import ConfigError, ContractError
from coda.plates.jump.selection import PlateFilter
from coda.plates.readers.deliver import Identity, import_plates
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import LocalTree
from coda.quality.stats import image_focus

PLANES = (1, 2, 3)


def picture(stain, plane):
    """An image of noise that is told from all others; the middle plane is the sharpest."""
    rng = np.random.default_rng([STAINS.index(stain), plane])
    image = rng.integers(100, 4000, (64, 80)).astype(np.uint16)
    if plane != 2:
        smooth = sum(np.roll(image.astype(np.uint32), k, 1) for k in range(8)) // 8
        return np.asarray(smooth, np.uint16)
    return image


def harmony(folder):
    images, files = [], {}
    for stain, (number, name) in HARMONY.items():
        for plane in PLANES if stain == "DNA" else PLANES[:1]:
            images.append(harmony_image(number, name, plane=plane))
            files[f"r01c01f01p{plane:02d}-ch{number}sk1fk1fl1.tiff"] = tiff(picture(stain, plane))
    channels = {number: harmony_settings(name) for number, name in HARMONY.values()}
    return put(folder, files | {"Index.XML": harmony_index(images, channels=channels)}), "phenix", {}


def cellvoyager(folder):
    records, files = [], {}
    for channel, stain in enumerate(STAINS, start=1):
        for plane in PLANES if stain == "DNA" else PLANES[:1]:
            name = cv_name("BAR1", "A01", channel=channel, z=plane)
            records.append(cv_record(name, channel=channel, z=plane))
            files[name] = tiff(picture(stain, plane))
    files |= {"MeasurementData.mlf": cv_index(records), "MeasurementDetail.mrf": cv_detail(range(1, 6))}
    return put(folder, files), "yokogawa", {f"C{k:02d}": stain for k, stain in enumerate(STAINS, start=1)}


def imagexpress(folder):
    files = {"P.HTD": htd(waves=STAINS, wells=("A01",), sites=1)}
    for wave, stain in enumerate(STAINS, start=1):
        for plane in PLANES if stain == "DNA" else (None,):
            place = f"TimePoint_1/ZStep_{plane}" if plane else "TimePoint_1"
            files[f"{place}/P_A01_s1_w{wave}.tif"] = tiff(picture(stain, plane or 1))
    return put(folder, files), "imagexpress", {}


def ome_tiff(folder):
    """All stains have three planes here: an OME image is a whole array."""
    stack = np.stack([[picture(stain, plane if stain == "DNA" else 1) for plane in PLANES] for stain in STAINS])
    folder.mkdir()
    tifffile.imwrite(folder / "P_A01.ome.tif", stack, ome=True, photometric="minisblack",
                     metadata={"axes": "CZYX", "Channel": {"Name": list(STAINS)}})  # fmt: skip
    return folder, "ome-tiff", {}


MADE = {"harmony": harmony, "cellvoyager": cellvoyager, "imagexpress": imagexpress, "ome-tiff": ome_tiff}


def delivered(folder, layout, out, channels, **options):
    pattern = r"(?P<well>[A-P]\d\d)\.ome\.tif" if layout == "ome-tiff" else None
    if layout == "ome-tiff":
        pattern = r"P_" + pattern
    who = Identity("s", "b", "x", modality="confocal", pixel_size_um=0.6)
    manifest, remarks = import_plates(
        layout, LocalTree(folder), out, who, ReadOptions(channels, pattern=pattern, **options)
    )
    images = {path.stem.rpartition("_")[2]: tifffile.imread(path) for path in manifest.parent.glob("images/*/*.tif*")}
    return images, remarks


@pytest.mark.parametrize("instrument", MADE)
def test_a_stack_of_one_stain_is_chosen_or_projected_and_the_others_stay(instrument, tmp_path):
    folder, layout, channels = MADE[instrument](tmp_path / "in")
    with pytest.raises(ContractError) as caught:
        delivered(folder, layout, tmp_path / "no", channels)
    told = str(caught.value)
    assert "DNA in the planes" in told
    assert "--plane DNA=" in told
    assert "best-focus" in told
    stack = np.stack([picture("DNA", plane) for plane in PLANES])
    first = 0 if layout == "ome-tiff" else 1
    rest = {} if layout != "ome-tiff" else dict.fromkeys(STAINS[1:], 0)
    wanted = {
        first + 1: stack[1],
        "maximum": stack.max(axis=0),
        "mean": np.floor(stack.mean(axis=0) + 0.5),
        "best-focus": stack[max(range(3), key=lambda k: image_focus(stack[k]))],
    }
    for number, (choice, expected) in enumerate(wanted.items()):
        images, _ = delivered(folder, layout, tmp_path / f"{number}", channels, planes=rest | {"DNA": choice})
        assert set(images) == set(STAINS)
        assert np.array_equal(images["DNA"], expected), choice
        for stain in STAINS[1:]:
            assert np.array_equal(images[stain], picture(stain, 1))


def test_a_number_for_all_takes_it_of_stacks_and_single_planes_as_they_are(tmp_path):
    folder, layout, channels = harmony(tmp_path / "in")
    images, remarks = delivered(folder, layout, tmp_path / "out", channels, plane=3)
    assert np.array_equal(images["DNA"], picture("DNA", 3))
    assert np.array_equal(images["ER"], picture("ER", 1))
    assert any("ER has one plane alone, which is taken" in remark for remark in remarks)
    for options in ({"plane": 9}, {"planes": {"DNA": 7}}, {"planes": {"Golgi": 1}}, {"planes": {"ER": 2}}):
        with pytest.raises(ContractError, match="--plane"):
            found(layout, folder, **options)


def test_a_plane_that_did_not_arrive_is_missing_and_never_projected_without(tmp_path):
    folder, layout, channels = harmony(tmp_path / "in")
    (folder / "r01c01f01p02-ch5sk1fk1fl1.tiff").unlink()
    images, remarks = delivered(folder, layout, tmp_path / "out", channels, planes={"DNA": "maximum"})
    assert set(images) == set(STAINS) - {"DNA"}
    assert any("r01c01f01p02-ch5sk1fk1fl1.tiff" in remark for remark in remarks)


def test_the_instruments_own_projection_is_chosen_by_name(tmp_path):
    files = {f"TimePoint_1/ZStep_{z}/P_A01_w1.TIF": b"" for z in (0, 1, 2)}
    put(tmp_path, files | {"P.htd": htd(waves=("DNA",), wells=("A01",))})
    with pytest.raises(ContractError, match=r"planes 0 \(a projection\), 1, 2"):
        found("imagexpress", tmp_path)
    (plate,) = found("imagexpress", tmp_path, plane="projection")
    assert plate.fields[0].files["DNA"].path == "TimePoint_1/ZStep_0/P_A01_w1.TIF"
    (plate,) = found("imagexpress", tmp_path, plane="maximum")
    assert [part.path[18] for part in plate.fields[0].files["DNA"].parts] == ["1", "2"]


def test_time_points_are_chosen_in_every_reader_and_errors_of_others_do_not_count(tmp_path):
    records = [cv_record(cv_name("B", "A01", channel=1, time=t), channel=1, time=t) for t in (1, 2)]
    lost = cv_record("AF Error", row=1, column=2, time=2, kind="ERR", extra="bts:FieldIndex='1'")
    files = {cv_name("B", "A01", channel=1, time=t): b"" for t in (1, 2)}
    put(tmp_path, files | {"measurementdata.MLF": cv_index([*records, lost])})
    with pytest.raises(ContractError, match=r"the time points 1, 2.*--time 1"):
        found("yokogawa", tmp_path, channels={"1": "DNA"})
    (plate,) = found("yokogawa", tmp_path, channels={"1": "DNA"}, time=1)
    assert [(item.place, sorted(item.files)) for item in plate.fields] == [((0, 0), ["DNA"])]
    assert not any("errors" in note for note in plate.notes)
    (plate,) = found("yokogawa", tmp_path, channels={"1": "DNA"}, time=2)
    assert [item.place for item in plate.fields] == [(0, 0), (0, 1)]
    with pytest.raises(ContractError, match="no time point 7"):
        found("yokogawa", tmp_path, channels={"1": "DNA"}, time=7)


def test_fields_of_different_time_points_are_never_mixed(tmp_path):
    """Site 1 was imaged before, site 2 after: no field has two images, and still a choice must be made."""
    put(tmp_path, {"TimePoint_1/P_A01_s1_w1.tif": b"", "TimePoint_2/P_A01_s2_w1.tif": b""})
    with pytest.raises(ContractError, match="the time points 1, 2"):
        found("imagexpress", tmp_path, channels={"w1": "DNA"})


def test_measurements_of_one_plate_are_chosen_by_their_folder(tmp_path):
    for name in ("P1__2024-Measurement 1", "P1__2024-Measurement 2"):
        harmony(tmp_path / name)
    with pytest.raises(ContractError, match=r"P1__2024-Measurement 1, P1__2024-Measurement 2.*--acquisition"):
        found("phenix", tmp_path, plane=1)
    (plate,) = found("phenix", tmp_path, plane=1, acquisition="P1__2024-Measurement 2")
    assert plate.fields[0].files["ER"].path.startswith("P1__2024-Measurement 2/")
    with pytest.raises(ConfigError, match="no such acquisition"):
        found("phenix", tmp_path, plane=1, acquisition="P1__2024-Measurement 3")


def options(**given):
    return ReadingOptions(**given).read_options(None, PlateFilter(), [], [])


def test_options_are_read_and_slips_are_told_together():
    given = options(plane=["2", "DNA=maximum"], rename=["HeLa+=a"], moved=["D:\\hcs=images", "/lab/x="])
    assert (given.plane, dict(given.planes), dict(given.renames)) == (2, {"DNA": "maximum"}, {"HeLa+": "a"})
    assert [(move.old, move.new) for move in given.moved] == [(("D:", "hcs"), ("images",)), (("lab", "x"), ())]
    with pytest.raises(ConfigError) as caught:
        options(plane=["max", "1", "2"], rename=["x"], moved=["=y"], join=True, acquisition="a")
    assert [problem.where for problem in caught.value.problems] == [
        "--plane", "--plane", "--rename", "--moved", "--join-acquisitions",
    ]  # fmt: skip


def test_a_table_takes_what_the_instruments_index_beside_it_says(tmp_path):
    folder, _, _ = harmony(tmp_path / "P1")
    row = ["P1", "A01", "1", *(f"r01c01f01p01-ch{HARMONY[stain][0]}sk1fk1fl1.tiff" for stain in STAINS)]
    head = "Metadata_Plate,Metadata_Well,Metadata_Site," + ",".join(f"FileName_Orig{stain}" for stain in STAINS)
    put(folder, {"load_data.csv": f"{head}\n{','.join(row)}\n"})
    (plate,) = found("load_data", folder)
    assert not any("from the instrument" in note for note in plate.notes), (
        "a stack in the index: which plane, none says"
    )
    assert any("the phenix index beside the table was not used (DNA in the planes 1, 2, 3)" in n for n in plate.notes)
    index = (folder / "Index.XML").read_text()
    keep = index.replace("<PlaneID>2<", "<PlaneID>1<").replace("<PlaneID>3<", "<PlaneID>1<")
    (folder / "Index.XML").write_text(keep.replace("<ChannelID>5<", "<ChannelID>55<"))
    (plate,) = found("load_data", folder)
    assert (plate.wells, plate.modality, plate.bit_depth) == (384, "widefield", 16)
    (note,) = [note for note in plate.notes if "beside the table" in note]
    assert note.startswith(
        "plate format, pixel size, modality, objective, bit depth from the instrument's index (phenix)"
    )
