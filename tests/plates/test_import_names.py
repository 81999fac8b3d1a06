"""Names of files and keys: every real key, names made at random, and names that are none."""

import csv
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.plates.layout import well_name
from coda.plates.readers.channel_names import Channels, named
from coda.plates.readers.image_names import parse_image, parse_key
from coda.plates.readers.read_options import child


def test_every_real_key_of_the_gallery_is_parsed_as_it_should(shared_data):
    rows = list(csv.DictReader((shared_data / "jump/s3_keys.csv").read_text().splitlines()))
    assert len({row["source"] for row in rows}) == 13
    for row in rows:
        key = parse_key(row["s3_uri"])
        assert key is not None, row
        assert (key.source, key.kind) == (row["source"], {"image": "images"}.get(row["kind"], row["kind"]))
        assert f"/{key.batch}/" in row["s3_uri"]
        assert row["s3_uri"].endswith(key.name)
        assert (key.image is not None) == (row["kind"] == "image")
        if key.image is not None:
            assert (key.image.family, key.image.fields) == (row["family"], json.loads(row["parsed"]))


PLATES = {
    "source_1": "UL000109", "source_3": "BR5867a3", "source_5": "P01_ADMJUM001", "source_7": "CP1-SC1-01",
    "source_8": "A1170383", "source_11": "EC000001", "source_13": "CP-CC9-R1-01",
}  # fmt: skip


def test_a_folder_of_images_is_cut_where_the_measurement_begins(shared_data):
    rows = list(csv.DictReader((shared_data / "jump/s3_keys.csv").read_text().splitlines()))
    keys = [parse_key(row["s3_uri"]) for row in rows if row["family"]]
    assert {key.source: key.plate for key in keys if key.source in PLATES} == PLATES
    assert any(" " in key.folder for key in keys), "one laboratory's folders have spaces"


def test_illumination_and_tables_say_their_plate():
    illum = parse_key("cpg0016-jump/source_5/images/Run01/illum/ADMJUM001/ADMJUM001_IllumAGP.npy")
    assert (illum.kind, illum.plate, illum.stain, illum.batch) == ("illum", "ADMJUM001", "AGP", "Run01")
    table = parse_key("source_4/workspace/load_data_csv/B1/BR1/load_data.csv.gz")
    assert (table.kind, table.under, table.batch, table.plate) == ("workspace", "load_data_csv", "B1", "BR1")
    spaced = parse_key("s3://b/source_3/images/B/images/P__x-Measurement%201/Images/r01c01f01p01-ch3sk1fk1fl1.tiff")
    assert spaced.folder == "P__x-Measurement 1"


@pytest.mark.parametrize("key", ["", "a/b", "source_1/images/x.tif", "source_x/images/b/images/p/f.tif", "s3://b"])
def test_a_key_built_otherwise_is_none(key):
    assert parse_key(key) is None


places = st.tuples(st.integers(0, 31), st.integers(0, 47))
prefixes = st.text(string.ascii_letters + string.digits + "-_ ", min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(places, st.integers(1, 99), st.integers(1, 9), st.integers(1, 20))
def test_a_phenix_name_says_what_it_was_made_of(place, site, channel, plane):
    row, column = place
    name = parse_image(f"r{row + 1:02d}c{column + 1:02d}f{site:02d}p{plane:02d}-ch{channel}sk2fk1fl1.tiff")
    assert (name.place, name.site, name.channel, name.plane, name.time) == (place, site, channel, plane, 2)
    assert f"ch{channel}" in name.labels


@settings(deadline=None, max_examples=60)
@given(prefixes, places, st.integers(0, 999), st.integers(1, 99))
def test_a_cellvoyager_name_says_what_it_was_made_of(prefix, place, site, channel):
    name = parse_image(f"{prefix}_{well_name(*place)}_T0003F{site:03d}L01A02Z04C{channel:02d}.tif")
    assert (name.fields["plate"], name.place, name.site, name.channel) == (prefix, place, site, channel)
    assert (name.plane, name.time, name.family) == (4, 3, "cellvoyager")


@settings(deadline=None, max_examples=60)
@given(prefixes, places, st.integers(0, 99), st.integers(1, 9), st.uuids(), st.booleans())
def test_an_imagexpress_name_says_what_it_was_made_of(prefix, place, site, channel, guid, thumb):
    mark = "_thumb" if thumb else ""
    name = parse_image(f"{prefix}_{well_name(*place)}_s{site}_w{channel}{mark}{str(guid).upper()}.tif")
    assert (name.fields["plate"], name.place, name.site, name.channel) == (prefix, place, site, channel)
    assert name.fields["guid"] == str(guid).upper()
    assert name.thumbnail == thumb


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_any_text_is_a_name_or_none(text):
    name = parse_image(text)
    assert name is None or name.site >= 0
    assert parse_key(text) is None or "source_" in text


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["a", "..", ".", "", "b c", "é"]), max_size=6).map("/".join), st.sampled_from(["", "x/y"])
)
def test_no_name_in_an_index_leads_out_of_its_folder(name, folder):
    path = child(folder, name)
    if path is not None:
        assert ".." not in path.split("/")
        assert path == folder or path.startswith(f"{folder}/" if folder else "")
        assert not path.startswith("/")


@pytest.mark.parametrize("name", ["/a", "\\a", "C:/a", "c:a", "a\0b", "a\nb", "", "a/../../b", "..\\a"])
def test_such_names_are_refused(name):
    assert child("x", name) is None


DYES = {
    "Hoechst 33342": "DNA", "DAPI": "DNA", "Concanavalin A": "ER", "SYTO 14": "RNA", "Phalloidin/WGA": "AGP",
    "MitoTracker": "Mito", "dna": "DNA", "Er": "ER", "RNA": "RNA", "AGP": "AGP", "mito": "Mito",
}  # fmt: skip


def test_dyes_and_stains_are_known_and_filters_are_not():
    assert {name: named(name) for name in DYES} == DYES
    filters = ("FITC", "Cy5", "TexasRed", "Alexa 568", "", "SYTO14 + phalloidin", "C01", "488")
    assert [named(name) for name in filters] == [None] * len(filters)


def test_a_channel_of_two_stains_stands_for_the_first_and_says_so():
    channels = Channels({})
    assert channels.stain("RNA_ER") == "ER"
    assert channels.remarks == {
        "RNA_ER": "ER and RNA share the channel 'RNA_ER'; it stands for ER, and there is no separate RNA stain"
    }
    assert Channels({"ERRNA": "RNA"}).stain("ERRNA") == "RNA"


def test_what_the_user_says_is_stronger_and_takes_the_stain_away_from_what_is_known():
    channels = Channels({"Cy3": "AGP", "DAPI": "none"}, {"Alexa 568": "AGP", "Alexa 488": "ER"})
    assert [channels.stain(name) for name in ("cy3", "Alexa 568", "alexa 488", "DAPI", "Phalloidin")] == [
        "AGP", None, "ER", None, None,
    ]  # fmt: skip
