"""Plain folders: patterns that fit, that do not, that lack something, and that never end."""

import time
from io import BytesIO

import numpy as np
import pytest
import tifffile
from batches import tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from instrument_trees import found, put

from coda.errors import ConfigError, ContractError
from coda.plates.readers import match_names, pattern

NAMED = r"(?P<plate>[^/]+)/(?P<well>[A-P][0-9]{2})_s(?P<site>[0-9]+)_(?P<channel>[^_/.]+)\.tif"


def plain(folder, *paths):
    return put(folder, dict.fromkeys(paths, b""))


def test_names_are_read_as_the_pattern_says(tmp_path):
    plain(tmp_path, "deep/P1/B03_s0_dna.tif", "deep/P1/B03_s0_cy5.tif", "deep/P2/C04_s1_dna.tif", "deep/P1/notes.txt")
    one, two = found("pattern", tmp_path, pattern=NAMED, channels={"cy5": "Mito"})
    assert (one.plate, two.plate) == ("P1", "P2")
    assert [(item.place, item.site, sorted(item.files)) for item in one.fields] == [((1, 2), 0, ["DNA", "Mito"])]
    assert two.fields[0].files["DNA"].path == "deep/P2/C04_s1_dna.tif"


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("r02_c03_w1.tif", r"r(?P<row>\d+)_c(?P<col>\d+)_(?P<channel>w\d)\.tif", (1, 2)),
        ("B-3_w1.tif", r"(?P<row>[A-H])-(?P<col>\d+)_(?P<channel>w\d)\.tif", (1, 2)),
        ("b3_W1.TIF", r"(?i)(?P<well>[a-h]\d+)_(?P<channel>w\d)\.tif", (1, 2)),
    ],
)
def test_wells_may_be_two_numbers_and_a_plate_without_a_group_goes_by_the_folder(name, text, place, tmp_path):
    (plate,) = found("pattern", plain(tmp_path / "My plate", name), pattern=text, channels={"w1": "DNA"})
    assert plate.plate == "My-plate"
    assert [(item.place, item.site) for item in plate.fields] == [(place, 1)]


def test_images_that_do_not_fit_are_counted_and_stacks_are_chosen_from(tmp_path):
    names = [f"A01_dna_z{z}_t{t}.tif" for z in (0, 1) for t in (1, 2)]
    plain(tmp_path, *names, "overview.png", "x" * 240 + ".png")
    text = r"(?P<well>[A-P]\d\d)_(?P<channel>dna)_z(?P<plane>\d)_t(?P<time>\d)\.tif"
    with pytest.raises(ContractError, match="time points 1, 2") as caught:
        found("pattern", tmp_path, pattern=text)
    assert "--plane DNA=1, or --plane DNA=maximum" in str(caught.value)
    (plate,) = found("pattern", tmp_path, pattern=text, plane=0, time=2)
    assert plate.fields[0].files["DNA"].path == "A01_dna_z0_t2.tif"
    assert "2 images of the folder do not fit the pattern" in plate.notes
    assert "3 images of other planes or time points left out" in plate.notes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "nothing"),
        ("", "nothing"),
        ("(?P<well>[A-", "none"),
        ("(?P<channel>.)", "well"),
        ("(?P<row>.)(?P<channel>.)", "well"),
        ("(?P<well>.)(?P<channel>.)(?P<stain>.)", "stain"),
        ("(?P<well>.)(?P<channel>.)" + "a?" * 500, "characters"),
    ],
)
def test_a_pattern_that_cannot_do_is_refused_with_an_example(text, reason, tmp_path):
    with pytest.raises(ConfigError, match=reason) as caught:
        found("pattern", plain(tmp_path, "a.tif"), pattern=text)
    assert "--pattern" in str(caught.value)


def test_a_pattern_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(pattern, "TIME_LIMIT_S", 1.0)
    plain(tmp_path, "a" * 60 + ".tif")
    began = time.monotonic()
    with pytest.raises(ConfigError, match="does not come to an end"):
        found("pattern", tmp_path, pattern=r"(?P<well>(a+)+)(?P<channel>b)\.tif")
    assert time.monotonic() - began < 20


def test_all_wells_that_are_none_are_listed(tmp_path):
    plain(tmp_path, *(f"{name}_dna.tif" for name in ("Z99", "A00", "AAA1", "A01", "A99")))
    with pytest.raises(ContractError) as caught:
        found("pattern", tmp_path, pattern=r"(?P<well>[^_]+)_(?P<channel>dna)\.tif")
    assert len(caught.value.problems) == 2, "A00 and AAA1 are no wells"
    plain(tmp_path / "in", "Z99_dna.tif", "A01_dna.tif")
    with pytest.raises(ContractError, match="column 99"):
        found("pattern", tmp_path / "in", pattern=r"(?P<well>[^_]+)_(?P<channel>dna)\.tif")


def test_a_pattern_that_fits_nothing_shows_a_name(tmp_path):
    with pytest.raises(ContractError, match=r"among them A01_dna\.tif"):
        found("pattern", plain(tmp_path, "A01_dna.tif"), pattern=NAMED)
    with pytest.raises(ContractError, match="no image"):
        found("pattern", plain(tmp_path / "none", "a.txt"), pattern=NAMED)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("ab/_1", min_size=1, max_size=8), max_size=4))
def test_matching_begins_at_a_folder_and_goes_to_the_end(parts):
    path = "/".join([*parts, "A01_x.tif"])
    (groups,) = match_names.match(r"(?P<well>A\d\d)_(?P<channel>x)\.tif", [path])
    assert groups == {"well": "A01", "channel": "x"}
    assert match_names.match(r"(?P<well>A\d\d)_(?P<channel>x)\.ti", [path]) == [None]
    assert match_names.match(r"(?P<well>01)_(?P<channel>x)\.tif", [path]) == [None]


@pytest.mark.parametrize("group", ["plane", "time"])
def test_planes_and_time_points_that_are_no_numbers_are_refused_and_not_mixed(group, tmp_path):
    plain(tmp_path, "B02_x1_DNA.tif", "B03_x2_DNA.tif")  # no field has two: nothing else would tell
    text = rf"(?P<well>[A-P]\d\d)_(?P<{group}>x\d)_(?P<channel>DNA)\.tif"
    with pytest.raises(ContractError, match="a number") as caught:
        found("pattern", tmp_path, pattern=text)
    assert len(caught.value.problems) == 2
    assert "Leave letters out" in str(caught.value)


@pytest.mark.parametrize("group", ["plane", "time"])
def test_a_name_says_the_plane_and_time_point_of_files_whose_pages_are_channels(group, tmp_path):
    page = tiff(np.zeros((8, 8), np.uint16))
    put(tmp_path, {"B02_1.tif": page, "B03_2.tif": page})
    text = rf"(?P<well>[A-P]\d\d)_(?P<{group}>\d)\.tif"
    with pytest.raises(ContractError, match="1, 2"):
        found("pattern", tmp_path, pattern=text, channels={"1": "DNA"})
    (plate,) = found("pattern", tmp_path, pattern=text, channels={"1": "DNA"}, **{group: 2})
    assert [item.files["DNA"].path for item in plate.fields if item.files] == ["B03_2.tif"]


def test_planes_of_the_pages_and_of_the_name_are_not_guessed_at(tmp_path):
    stack = BytesIO()
    tifffile.imwrite(stack, np.zeros((3, 8, 8), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    put(tmp_path, {"B02_z1.tif": stack.getvalue()})
    with pytest.raises(ContractError, match="a pattern without the group plane"):
        found("pattern", tmp_path, pattern=r"(?P<well>[A-P]\d\d)_z(?P<plane>\d)\.tif", channels={"1": "DNA"})
