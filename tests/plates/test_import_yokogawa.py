"""Yokogawa CellVoyager: index, optics and settings; errors of the instrument, stacks, projections, broken files."""

import pytest
from instrument_trees import CV, cv_detail, cv_index, cv_name, cv_plate, cv_record, cv_setting, found, put

from coda.errors import ContractError

MAPPED = {f"C{number:02d}": stain for stain, number in CV.items()}


def measurement(folder, records, *, present=None, **files):
    """Write records (name, XML), and files with the names they should have."""
    names = present if present is not None else [name for name, _ in records if name]
    extra = {key.replace("_", "."): text for key, text in files.items()}
    return put(folder, {**dict.fromkeys(names, b""), "MeasurementData.mlf": cv_index(x for _, x in records), **extra})


def shot(channel, *, plate="BAR1", well="A01", **numbers):
    name = cv_name(plate, well, channel=channel, **{k: v for k, v in numbers.items() if k in {"site", "z", "time"}})
    return name, cv_record(name, channel=channel, **numbers)


def test_a_measurement_is_read_with_its_optics(tmp_path):
    (plate,) = found("yokogawa", cv_plate(tmp_path), channels=MAPPED)
    assert (plate.plate, plate.wells, plate.pixel_size_um, plate.bit_depth) == ("BAR1", 384, 0.65, 16)
    assert [(item.place, item.site) for item in plate.fields] == [((0, 0), 1), ((0, 0), 2), ((0, 1), 1), ((0, 1), 2)]
    assert plate.fields[2].files["Mito"].path == "BAR1_A02_T0001F001L01A01Z01C05.tif"


@pytest.mark.parametrize("name", ["C06", "C6", "6", "c06"])
def test_a_channel_goes_by_its_number_however_it_is_written(name, tmp_path):
    (plate,) = found("yokogawa", measurement(tmp_path, [shot(6)]), channels={name: "DNA"})
    assert list(plate.fields[0].files) == ["DNA"]


def test_no_number_means_a_stain_by_itself(tmp_path):
    (plate,) = found("yokogawa", measurement(tmp_path, [shot(n) for n in (1, 2, 3)]))
    assert plate.fields == ()
    assert plate.left_out == {"C01": 1, "C02": 1, "C03": 1}


def test_targets_and_light_sources_of_the_setting_name_channels(tmp_path):
    setting = cv_setting({
        1: ("Hoechst33342", "", "405nm", "ConfocalFluorescence"), 2: ("488", "", "488nm", "ConfocalFluorescence"),
        3: ("x", "MitoTracker DeepRed", "640nm", "ConfocalFluorescence"), 4: ("BF", "", "Lamp", "Brightfield"),
    })  # fmt: skip
    files = {"MeasurementDetail_mrf": cv_detail((1, 2, 3, 4)), "S_mes": setting}
    measurement(tmp_path, [shot(n) for n in (1, 2, 3, 4)], **files)
    (plate,) = found("yokogawa", tmp_path, channels={"488nm": "ER"})
    assert {stain: image.path[-6:-4] for stain, image in plate.fields[0].files.items()} == {
        "DNA": "01", "ER": "02", "Mito": "03",
    }  # fmt: skip
    assert plate.left_out == {"C04 (BF; Lamp)": 1}
    assert (plate.modality, plate.objective) == ("confocal", "20x")
    (other,) = found("yokogawa", tmp_path, channels={"488": "RNA", "C01": "none"})
    assert set(other.fields[0].files) == {"RNA", "Mito"}


def test_errors_of_the_instrument_are_told_with_well_field_and_reason(tmp_path):
    """An autofocus failure has no field, a lost image has one; neither may lose the other fields."""
    records = [
        shot(6),
        ("", cv_record("AF Error at C14 No. 0 (BAR1)", row=3, column=14, kind="ERR")),
        ("", cv_record("no image", row=1, column=2, kind="ERR", extra="bts:FieldIndex='4'")),
        ("", "<bts:MeasurementRecord bts:Type='ERR'/>"),
    ]
    (plate,) = found("yokogawa", measurement(tmp_path, records), channels=MAPPED)
    (note,) = [note for note in plate.notes if "errors that the instrument recorded" in note]
    assert note.startswith("3 errors")
    assert "well C14: AF Error at C14" in note
    assert "well A02 field 4: no image" in note
    assert "a well that is not said: no reason given" in note
    assert [(item.place, item.site, sorted(item.files)) for item in plate.fields] == [
        ((0, 0), 1, ["DNA"]), ((0, 1), 4, []),
    ]  # fmt: skip


def test_stacks_and_time_points_are_refused_until_one_is_chosen(tmp_path):
    measurement(tmp_path, [shot(6, z=z, time=t) for z in (1, 2) for t in (1, 2)])
    with pytest.raises(ContractError, match="time points 1, 2") as caught:
        found("yokogawa", tmp_path, channels=MAPPED)
    assert [problem.found for problem in caught.value.problems] == ["the time points 1, 2", "DNA in the planes 1, 2"]
    (plate,) = found("yokogawa", tmp_path, channels=MAPPED, plane=2, time=1)
    assert plate.fields[0].files["DNA"].path == "BAR1_A01_T0001F001L01A01Z02C06.tif"
    assert "3 images of other planes or time points left out" in plate.notes


def projection(channel):
    name = cv_name("BAR1", "A01", channel=channel).replace("A01Z", "A02Z")
    return name, cv_record(name, channel=channel, extra="bts:ZImageProcessing='Maximum'")


def test_a_projection_is_taken_where_it_is_all_there_is(tmp_path):
    (plate,) = found("yokogawa", measurement(tmp_path / "a", [projection(6)]), channels=MAPPED)
    assert plate.fields[0].files["DNA"].path == "BAR1_A01_T0001F001L01A02Z01C06.tif"
    assert "the images are projections over the planes, made by the instrument" in plate.notes
    (plate,) = found("yokogawa", measurement(tmp_path / "b", [projection(6), shot(6)]), channels=MAPPED)
    assert plate.fields[0].files["DNA"].path == "BAR1_A01_T0001F001L01A01Z01C06.tif"


def test_images_converted_to_png_are_found(tmp_path):
    name, record = shot(6)
    (plate,) = found("yokogawa", measurement(tmp_path, [(name, record)], present=[name[:-3] + "png"]), channels=MAPPED)
    assert plate.fields[0].files["DNA"].path.endswith(".png")


def test_plates_in_folders_of_their_own_go_by_the_names_of_their_files(tmp_path):
    for name in ("P01_ADM1", "CP-CC9-R1-01"):
        measurement(tmp_path / name, [shot(6, plate=name)])
    assert [plate.plate for plate in found("yokogawa", tmp_path, channels=MAPPED)] == ["CP-CC9-R1-01", "P01_ADM1"]


def test_images_without_an_index_are_read_by_their_names(tmp_path):
    names = [cv_name(plate, "B03", channel=n) for plate in ("P01_ADM1", "CP1-SC1-01") for n in (3, 6)]
    one, two = found("yokogawa", put(tmp_path, {f"run/{name}": b"" for name in names}), channels={"C06": "DNA"})
    assert (one.plate, two.plate) == ("CP1-SC1-01", "P01_ADM1")
    assert [(item.place, list(item.files)) for item in two.fields] == [((1, 2), ["DNA"])]
    assert two.left_out == {"C03": 1}


def test_channels_of_different_pixel_size_are_refused(tmp_path):
    detail = cv_detail((5,), pixel="0.3").replace("</bts:MeasurementDetail>", cv_detail((6,)).split("/>", 1)[1])
    measurement(tmp_path, [shot(5), shot(6)], MeasurementDetail_mrf=detail)
    with pytest.raises(ContractError, match="one pixel size"):
        found("yokogawa", tmp_path, channels=MAPPED)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (("x", cv_record("../../x.tif", channel=6)), "leads out"),
        (("x", cv_record("/etc/passwd", channel=6)), "leads out"),
        (shot(6, row=0), "no Row"),
        (shot(6, row=99999), "row 99999"),
        (("x", cv_record("x", channel="six")), "whole numbers"),
    ],
)
def test_an_impossible_record_is_refused_with_the_reason(record, reason, tmp_path):
    with pytest.raises(ContractError, match=reason):
        found("yokogawa", measurement(tmp_path, [record]), channels=MAPPED)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"MeasurementData.mlf": "<!DOCTYPE x [<!ENTITY a 'ha'>]><x>&a;</x>"}, "document type"),
        ({"MeasurementData.mlf": "<Other/>"}, "'Other'"),
        ({"MeasurementData.mlf": cv_index([])}, "no image"),
        ({"MeasurementData.mlf": cv_index([]), "MeasurementDetail.mrf": "<MeasurementDetail"}, "well-formed"),
        ({"a.tif": ""}, "no MeasurementData.mlf"),
    ],
)
def test_a_file_that_is_not_the_instruments_is_refused(files, reason, tmp_path):
    with pytest.raises(ContractError, match=reason):
        found("yokogawa", put(tmp_path, files), channels=MAPPED)


def test_a_setting_that_leads_out_of_the_folder_is_not_read(tmp_path):
    put(tmp_path, {"S.mes": cv_setting({6: ("Hoechst", "", "", "")})})
    measurement(tmp_path / "in", [shot(6)], MeasurementDetail_mrf=cv_detail((6,), setting="../S.mes"))
    (plate,) = found("yokogawa", tmp_path)
    assert plate.left_out == {"C06": 1}
