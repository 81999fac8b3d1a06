"""ImageXpress: names with GUIDs, thumbnails, HTD files, folders of steps and time points."""

import pytest
from instrument_trees import GUID, WAVES, found, htd, imagexpress_plate, put

from coda.errors import ContractError
from coda.plates.readers.layouts import detect
from coda.plates.tree import LocalTree

MAPPED = {"w1": "DNA", "w2": "ER"}


def empty(folder, *names, **texts):
    return put(folder, {**dict.fromkeys(names, b""), **{key.replace("_", "."): text for key, text in texts.items()}})


def test_a_plate_is_read_by_its_names_and_the_htd_names_the_wavelengths(tmp_path):
    channels = {"FITC": "ER", "TexasRed": "AGP", "w5": "Mito"}
    (plate,) = found("imagexpress", imagexpress_plate(tmp_path / "A1170383"), channels=channels)
    assert (plate.plate, plate.wells) == ("A1170383", 96)
    assert [(item.place, item.site) for item in plate.fields] == [((0, 0), 1), ((0, 0), 2), ((0, 1), 1), ((0, 1), 2)]
    assert {stain: image.path for stain, image in plate.fields[0].files.items()} == {
        stain: f"TimePoint_1/HTS_A01_s1_w{number}{GUID}.tif" for number, stain in enumerate(WAVES, start=1)
    }
    assert "20 thumbnails left out" in plate.notes


def test_the_digit_behind_the_w_is_the_channel_and_the_rest_the_guid(tmp_path):
    """`w33EFC51B3-...`: channel 3, GUID 3EFC51B3-...; `w113EFC51B3-...`: channel 11."""
    empty(tmp_path, f"HTS_A01_s1_w3{GUID}.tif", f"HTS_A01_s1_w11{GUID}.tif")
    assert detect(LocalTree(tmp_path)) == "imagexpress"
    (plate,) = found("imagexpress", tmp_path, channels={"3": "DNA", "11": "Mito"})
    assert set(plate.fields[0].files) == {"DNA", "Mito"}


def test_names_without_site_and_wavelength_are_the_first_of_each(tmp_path):
    (plate,) = found("imagexpress", empty(tmp_path, "P_B03.tif", f"P_B04{GUID}.TIF"), channels=MAPPED)
    assert [(item.place, item.site, list(item.files)) for item in plate.fields] == [
        ((1, 2), 1, ["DNA"]), ((1, 3), 1, ["DNA"]),
    ]  # fmt: skip


def test_a_folder_of_several_prefixes_holds_several_plates(tmp_path):
    empty(tmp_path, "P1_A01_s1_w1.tif", "P2_A01_s1_w1.tif", P1_HTD=htd(waves=("Mito",)), P2_HTD=htd(waves=("ER",)))
    plates = found("imagexpress", tmp_path)
    assert [(plate.plate, set(plate.fields[0].files)) for plate in plates] == [("P1", {"Mito"}), ("P2", {"ER"})]


def test_wells_that_were_to_be_imaged_and_were_not_are_told(tmp_path):
    empty(tmp_path, "P_A01_s1_w1.tif", P_HTD=htd(wells=("A01", "A02", "H12")))
    (plate,) = found("imagexpress", tmp_path)
    assert plate.wells == 96
    assert "2 wells that the HTD selects have no image (A02, H12)" in plate.notes
    (other,) = found("imagexpress", empty(tmp_path / "plain", "P_A01_s1_w1.tif"), channels=MAPPED)
    assert "no HTD file; wavelengths go by their numbers" in other.notes


def test_steps_and_time_points_are_chosen_by_number(tmp_path):
    names = [f"TimePoint_{t}/ZStep_{z}/P_A01_s1_w1.tif" for t in (1, 2) for z in (1, 2, 3)]
    empty(tmp_path, *names)
    with pytest.raises(ContractError, match=r"--time 1[^|]*--plane DNA=2"):
        found("imagexpress", tmp_path, channels=MAPPED)
    (plate,) = found("imagexpress", tmp_path, channels=MAPPED, plane=3, time=2)
    assert plate.fields[0].files["DNA"].path == "TimePoint_2/ZStep_3/P_A01_s1_w1.tif"
    assert "5 images of other planes or time points left out" in plate.notes


def test_what_lies_above_the_steps_is_taken_unless_a_step_is_chosen(tmp_path):
    empty(tmp_path, "TimePoint_1/P_A01_w1.tif", "TimePoint_1/ZStep_1/P_A01_w1.tif", "TimePoint_1/ZStep_2/P_A01_w1.tif")
    (plate,) = found("imagexpress", tmp_path, channels=MAPPED)
    assert plate.fields[0].files["DNA"].path == "TimePoint_1/P_A01_w1.tif"
    (plate,) = found("imagexpress", tmp_path, channels=MAPPED, plane=2)
    assert plate.fields[0].files["DNA"].path == "TimePoint_1/ZStep_2/P_A01_w1.tif"


def test_a_wavelength_twice_is_refused(tmp_path):
    other = GUID.replace("3", "4")
    with pytest.raises(ContractError, match="a second time"):
        found("imagexpress", empty(tmp_path, f"P_A01_w1{GUID}.tif", f"P_A01_w1{other}.tif"), channels=MAPPED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "HTSInfoFile"), ("<xml/>", "HTSInfoFile"), ('"HTSInfoFile", 1\n' + '"a", 1\n' * 20_000, "HTSInfoFile")],
)
def test_a_file_that_is_no_htd_is_refused(text, reason, tmp_path):
    with pytest.raises(ContractError, match=reason):
        found("imagexpress", empty(tmp_path, "P_A01_w1.tif", P_HTD=text), channels=MAPPED)


def test_absurd_numbers_of_an_htd_do_no_harm(tmp_path):
    text = htd().replace('"XWells", 12', '"XWells", 99999999').replace('"YWells", 8', '"YWells", 9999')
    (plate,) = found("imagexpress", empty(tmp_path, "P_A01_s1_w1.tif", P_HTD=text + '"WellsSelection1"'))
    assert plate.wells is None


def test_a_folder_without_such_images_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no such image"):
        found("imagexpress", empty(tmp_path, "a.tif", "P_A01.jpg"))
