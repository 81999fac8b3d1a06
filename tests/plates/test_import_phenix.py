"""Opera Phenix and Operetta: indexes of both generations, stacks, several measurements, and broken indexes."""

import csv
import time

import pytest
from instrument_trees import HARMONY, found, harmony_image, harmony_index, harmony_plate, harmony_settings, put

from coda.errors import ConfigError, ContractError
from coda.plates.readers.deliver import Identity, remarks_on

CHANNELS = {number: harmony_settings(name) for number, name in HARMONY.values()}


def measurement(folder, images, *, index="Index.xml", present=None, **settings):
    """Write an index and empty files with the names it should have."""
    names = present if present is not None else [text.split("<URL>")[1].split("</URL>")[0] for text in images]
    settings = {"channels": CHANNELS} | settings
    return put(folder, {**dict.fromkeys(names, b""), index: harmony_index(images, **settings)})


def test_an_index_of_the_seventh_generation_gives_what_the_fields_own_tool_makes_of_it(shared_data, tmp_path):
    """The golden table was made of a real V7 index; the index here states the same facts where a V7 index has them."""
    text = (shared_data / "jump/load_data/pe2loaddata_version7.csv").read_text()
    (golden,) = csv.DictReader(text.splitlines())
    channels = {
        golden[f"Metadata_ChannelID_Orig{name}"]: (golden[f"Metadata_ChannelName_Orig{name}"], name)
        for name in ("DNA", "ER", "RNA", "AGP", "Mito", "Brightfield", "Actin")
    }
    pixel, largest = golden["Metadata_ImageResolutionX"], golden["Metadata_MaxIntensity"]
    maps = {number: harmony_settings(name, pixel=pixel, largest=largest) for number, (name, _) in channels.items()}
    images = [
        harmony_image(int(number), "", row=int(golden["Metadata_Row"]), column=int(golden["Metadata_Col"]),
                      site=int(golden["Metadata_FieldID"]), url=golden[f"FileName_Orig{stain}"])
        for number, (_, stain) in channels.items()
    ]  # fmt: skip
    measurement(tmp_path, images, channels=maps, plate=golden["Metadata_Plate"], rows=8, columns=12)
    (plate,) = found("phenix", tmp_path)
    (item,) = plate.fields
    assert plate.plate == golden["Metadata_Plate"]
    assert {stain: image.path for stain, image in item.files.items()} == {
        stain: golden[f"FileName_Orig{stain}"] for stain in ("DNA", "ER", "RNA", "AGP", "Mito")
    }
    assert (item.place, item.site, plate.wells) == ((0, 0), int(golden["Metadata_Site"]), 96)
    assert plate.bit_depth == 16
    assert plate.left_out == {"Brightfield": 1, "405ex, 570-630-em)": 1}


@pytest.mark.parametrize("generation", [5, 7])
def test_both_generations_say_the_same(generation, tmp_path):
    images = [harmony_image(number, name, generation=generation) for number, name in HARMONY.values()]
    measurement(tmp_path, images, channels=CHANNELS if generation > 5 else {}, generation=generation)
    (plate,) = found("phenix", tmp_path)
    assert {stain: image.path for stain, image in plate.fields[0].files.items()} == {
        stain: f"r01c01f01p01-ch{number}sk1fk1fl1.tiff" for stain, (number, _) in HARMONY.items()
    }
    assert plate.pixel_size_um == pytest.approx(0.598)
    assert (plate.modality, plate.objective, plate.bit_depth, plate.wells) == ("widefield", "20x/1", 16, 384)
    assert any("flatfield" in note for note in plate.notes) == (generation > 5)


def stack(folder, *, planes=(1, 2), times=(1,)):
    images = [harmony_image(6, "Brightfield", plane=plane) for plane in (1, 2, 3)]
    images += [
        harmony_image(number, name, plane=plane, time=time)
        for number, name in HARMONY.values() for plane in planes for time in times
    ]  # fmt: skip
    return measurement(folder, images, channels={**CHANNELS, 6: harmony_settings("Brightfield")})


def test_planes_of_brightfield_do_not_disturb(tmp_path):
    (plate,) = found("phenix", stack(tmp_path, planes=(2,)))
    assert plate.left_out == {"Brightfield": 3}
    assert plate.fields[0].files["DNA"].path == "r01c01f01p02-ch5sk1fk1fl1.tiff"


def test_a_stack_of_stains_is_refused_until_a_plane_is_chosen(tmp_path):
    stack(tmp_path)
    with pytest.raises(ContractError, match="--plane") as caught:
        found("phenix", tmp_path)
    assert len(caught.value.problems) == 5
    (plate,) = found("phenix", tmp_path, plane=2)
    assert {image.path[9:12] for image in plate.fields[0].files.values()} == {"p02"}
    assert "5 images of other planes or time points left out" in plate.notes


def test_a_time_point_is_chosen_likewise(tmp_path):
    stack(tmp_path, planes=(1,), times=(0, 1))
    with pytest.raises(ContractError, match="--time"):
        found("phenix", tmp_path)
    (plate,) = found("phenix", tmp_path, time=0)
    assert plate.fields[0].files["Mito"].path == "r01c01f01p01-ch1sk0fk1fl1.tiff"


def test_a_folder_of_several_measurements_gives_several_plates(tmp_path):
    one = harmony_image(5, "DAPI")
    for name in ("BR1__2021-05-02T16_02_51-Measurement1", "BR2__2021-05-03T16_02_51-Measurement 1"):
        measurement(tmp_path / name / "Images", [one], plate=name[:3])
    assert [plate.plate for plate in found("phenix", tmp_path)] == ["BR1", "BR2"]
    (plate,) = found("phenix", tmp_path, plates=["BR2"])
    assert plate.fields[0].files["DNA"].path.startswith("BR2__2021-05-03T16_02_51-Measurement 1/Images/r01")
    with pytest.raises(ConfigError, match="plates among BR1, BR2"):
        found("phenix", tmp_path, plates=["BR3"])
    measurement(tmp_path / "again", [one], plate="BR1")
    with pytest.raises(ContractError, match="2 plates of the name BR1"):
        found("phenix", tmp_path)


def test_of_two_indexes_in_a_folder_that_of_the_export_is_read(tmp_path):
    measurement(tmp_path, [harmony_image(5, "DAPI")], plate="old")
    measurement(tmp_path, [harmony_image(5, "DAPI")], plate="export", index="Index.idx.xml")
    assert [plate.plate for plate in found("phenix", tmp_path)] == ["export"]


def test_channels_are_mapped_by_name_or_number_and_a_given_stain_is_not_given_twice(tmp_path):
    measurement(tmp_path, [harmony_image(number, name) for number, name in HARMONY.values()])
    (plate,) = found("phenix", tmp_path, channels={"ch3": "ER", "alexa 568": "none"})
    files = {stain: image.path[12:15] for stain, image in plate.fields[0].files.items()}
    assert files == {"DNA": "-ch", "ER": "-ch", "Mito": "-ch"}
    assert plate.fields[0].files["ER"].path == "r01c01f01p01-ch3sk1fk1fl1.tiff"
    assert plate.left_out == {"Alexa 488": 1, "Alexa 568": 1}


def test_what_is_not_there_or_not_ok_is_told_and_its_field_stays(tmp_path):
    images = [harmony_image(5, "DAPI"), harmony_image(4, "Alexa 488"), harmony_image(5, "DAPI", site=2, state="Error")]
    measurement(tmp_path, images, present=["r01c01f01p01-ch5sk1fk1fl1.tiff"])
    (plate,) = found("phenix", tmp_path)
    assert [(item.site, sorted(item.files)) for item in plate.fields] == [(1, ["DNA"]), (2, [])]
    assert "1 images the instrument itself marks as not Ok (1 Error)" in plate.notes
    assert any("1 image(s) named by the index are not there" in note for note in plate.notes)


def test_images_are_found_beside_the_index_when_it_names_another_folder(tmp_path):
    measurement(tmp_path, [harmony_image(5, "DAPI", url="Other\\a.tiff")], present=["a.tiff"])
    assert found("phenix", tmp_path)[0].fields[0].files["DNA"].path == "a.tiff"


def test_stains_of_different_pixel_size_are_refused_and_mixed_modality_is_asked_for(tmp_path):
    images = [harmony_image(number, name) for number, name in HARMONY.values()]
    measurement(tmp_path, images, channels={**CHANNELS, 5: harmony_settings("DAPI", kind="NipkowConfocal")})
    assert found("phenix", tmp_path)[0].modality is None
    measurement(tmp_path, images, channels={**CHANNELS, 5: harmony_settings("DAPI", pixel=3e-07)})
    with pytest.raises(ContractError, match="one pixel size"):
        found("phenix", tmp_path)


def test_images_without_an_index_are_read_by_their_names_with_numbers_that_the_user_explains(tmp_path):
    put(tmp_path / "BR1__2021-Measurement1", {f"Images/r02c03f04p01-ch{n}sk1fk1fl1.tiff": b"" for n in (1, 5)})
    (plate,) = found("phenix", tmp_path, channels={"ch5": "DNA"})
    assert plate.plate == "BR1"
    assert plate.left_out == {"ch1": 1}
    (item,) = plate.fields
    assert (item.place, item.site) == ((1, 2), 4)
    assert item.files["DNA"].path == "BR1__2021-Measurement1/Images/r02c03f04p01-ch5sk1fk1fl1.tiff"
    assert "no index; the images were read by their names" in plate.notes
    put(tmp_path, {"BR1__2021-Measurement1/Images/r02c03f04p02-ch5sk1fk1fl1.tiff": b""})
    with pytest.raises(ContractError, match="--plane"):
        found("phenix", tmp_path, channels={"ch5": "DNA"})


HOSTILE = {
    "an absolute name": ([harmony_image(5, "DAPI", url="/etc/passwd")], {}, "leads out"),
    "a name of a drive": ([harmony_image(5, "DAPI", url="C:\\x.tiff")], {}, "leads out"),
    "a name that climbs": ([harmony_image(5, "DAPI", url="a/../../x.tiff")], {}, "leads out"),
    "a row beyond all plates": ([harmony_image(5, "DAPI", row=99999)], {}, "row 99999"),
    "a row of zero": ([harmony_image(5, "DAPI", row=0)], {}, "row 0"),
    "a row that is no number": ([harmony_image(5, "DAPI", row=1).replace("<Row>1<", "<Row>one<")], {}, "three whole"),
    "a well beyond this plate": ([harmony_image(5, "DAPI", row=9)], {"rows": 8, "columns": 12}, "rows 1 to 8"),
    "no image": ([], {}, "no image"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_impossible_index_is_refused_with_the_reason(case, tmp_path):
    images, settings, reason = HOSTILE[case]
    with pytest.raises(ContractError, match=reason):
        found("phenix", measurement(tmp_path, images, present=["x.tiff"], **settings))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<!DOCTYPE x [<!ENTITY a 'ha'>]><x>&a;</x>", "document type"),
        ("<x>" * 100 + "</x>" * 100, "deep"),
        ("<EvaluationInputData><Plates><Plate/><Plate/></Plates></EvaluationInputData>", "2 plates"),
        ("<EvaluationInputData><Images>", "well-formed"),
        ("", "well-formed"),
        ("<?xml version='1.0' encoding='klingon'?><x/>", "well-formed"),
    ],
)
def test_a_file_that_is_no_index_is_refused(text, reason, tmp_path):
    put(tmp_path, {"Index.xml": text})
    with pytest.raises(ContractError, match=reason):
        found("phenix", tmp_path)


def test_thousands_of_the_same_fault_are_told_in_twenty_lines(tmp_path):
    images = [harmony_image(5, "DAPI", row=99, site=site) for site in range(3000)]
    with pytest.raises(ContractError) as caught:
        found("phenix", measurement(tmp_path, images, present=["x.tiff"]))
    assert len(caught.value.problems) == 21
    assert "2980 more" in str(caught.value)


def test_a_text_of_many_megabytes_is_cut_and_costs_no_time(tmp_path):
    """Pieces of a text are joined once: joined one by one, 40 MB would take minutes."""
    endless = harmony_image(5, "x").replace("<ChannelID>", f"<Comment>{'y' * 40_000_000}</Comment><ChannelID>")
    named = harmony_image(9, "z" * 3_000_000, generation=5)
    began = time.monotonic()
    (plate,) = found("phenix", measurement(tmp_path, [endless, named], present=["r01c01f01p01-ch5sk1fk1fl1.tiff"]))
    assert time.monotonic() - began < 10
    assert list(plate.fields[0].files) == ["DNA"]
    assert plate.left_out == {"z" * 100 + "...": 1}


def test_an_option_that_contradicts_the_index_is_told(tmp_path):
    harmony_plate(tmp_path, wells=((1, 1),), sites=(1,))
    (plate,) = plates = found("phenix", tmp_path)

    def said(**given):
        return [text for text in remarks_on(plates, Identity("s", "b", "x", **given)) if " is taken, though" in text]

    assert plate.pixel_size_um
    assert plate.modality
    own = {"pixel_size_um": plate.pixel_size_um * 1.004, "modality": plate.modality, "plate_wells": plate.wells}
    assert said(**own) == []
    other = "confocal" if plate.modality == "widefield" else "widefield"
    (size,) = said(pixel_size_um=3.3)
    assert size == f"--pixel-size 3.3 is taken, though the files of {plate.plate} say {plate.pixel_size_um:.4g}."
    (kind,) = said(modality=other)
    assert f"--modality {other} is taken" in kind
    assert plate.modality in kind


def test_the_option_that_keeps_a_channel_names_that_channel_and_no_number_in_its_name(tmp_path):
    harmony_plate(tmp_path, wells=((1, 1),), sites=(1,))
    plates = found("phenix", tmp_path, channels={"Alexa 647": "none"})
    said = " ".join(remarks_on(plates, Identity("s", "b", "x")))
    assert "--channel 'Alexa 647=Alexa-647'" in said, "4 is the number of another channel"
