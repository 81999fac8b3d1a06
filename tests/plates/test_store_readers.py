"""A plate store in other people's hands: ome-zarr's reader, the OME models, zarr alone, a plain zip; pixel by pixel."""

import hashlib
import json
import zipfile

import numpy as np
import ome_zarr_models
import pandas as pd
import pytest
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.zip import ZipFileSystem
from ome_zarr.io import ZarrLocation, parse_url
from ome_zarr.reader import OMERO, Multiscales, Plate, Reader, Well
from ome_zarr_models.v05 import HCS, Image
from typer.testing import CliRunner
from zarr.storage import FsspecStore, ZipStore

from coda.cli.plates import app
from coda.contracts import STAINS
from coda.contracts.channels import PRESET_COLOURS, PRESET_ROLES
from coda.errors import IntegrityError
from coda.plates.inspection import check_fields, read_plate
from coda.plates.layout import FORMATS
from coda.plates.store import PlateStoreWriter, StoredField, encode

STORE = "b1_p1.ome.zarr.zip"


@pytest.fixture(scope="module")
def folder(dataset):
    return dataset / "lab_a" / "b1"


@pytest.fixture(scope="module")
def index(folder):
    table = pd.read_parquet(folder / "index.parquet")
    return table[table["store"] == STORE].reset_index(drop=True)


@pytest.fixture(scope="module")
def unpacked(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("unpacked") / "b1_p1.ome.zarr"
    with zipfile.ZipFile(folder / STORE) as store:
        store.extractall(out)
    return out


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def test_zarr_alone_opens_the_zip_and_gives_every_pixel(folder, index):
    group = zarr.open_group(ZipStore(folder / STORE, mode="r"), mode="r")
    for row in index.itertuples():
        array = group[row.array]
        assert digest(array[:]) == row.sha256
        # a part of one stain, as a viewer asks for it
        assert np.array_equal(array[2, 5:9, 7:11], array[:][2, 5:9, 7:11])
        assert next(codec.to_dict()["name"] for codec in array.metadata.codecs) == "bytes"


def test_the_zip_itself_is_plain(folder):
    """No compression twice, no absolute or climbing name, every entry once, root metadata where zarr looks for it."""
    with zipfile.ZipFile(folder / STORE) as store:
        names = store.namelist()
        assert store.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in store.infolist())
    assert len(names) == len(set(names))
    assert "zarr.json" in names
    assert not [name for name in names if name.startswith("/") or ".." in name or "\\" in name]


def test_the_models_of_ngff_05_accept_every_group(folder, index):
    group = zarr.open_group(ZipStore(folder / STORE, mode="r"), mode="r")
    plate = ome_zarr_models.open_ome_zarr(group)
    assert isinstance(plate, HCS)
    assert plate.attributes.ome.version == "0.5"
    described = plate.attributes.ome.plate
    assert (len(described.rows), len(described.columns)) == FORMATS[96]
    assert [row.name for row in described.rows] == list("ABCDEFGH")
    assert [column.name for column in described.columns] == [str(number) for number in range(1, 13)]
    assert described.field_count == 2
    for well in described.wells:
        assert (described.rows[well.rowIndex].name, described.columns[well.columnIndex].name) == tuple(
            well.path.split("/")
        )
        images = ome_zarr_models.open_ome_zarr(group[well.path]).attributes.ome.well.images
        assert [image.path for image in images] == ["1", "2"]
        for image in images:
            field = ome_zarr_models.open_ome_zarr(group[f"{well.path}/{image.path}"])
            assert isinstance(field, Image)
            (multiscale,) = field.attributes.ome.multiscales
            assert [(axis.name, axis.type) for axis in multiscale.axes] == [
                ("c", "channel"), ("y", "space"), ("x", "space"),
            ]  # fmt: skip
            assert {axis.unit for axis in multiscale.axes[1:]} == {"micrometer"}
            (scale,) = multiscale.datasets[0].coordinateTransformations
            assert scale.scale == [1.0, index["Metadata_PixelSize_um"][0], index["Metadata_PixelSize_um"][0]]


def test_the_reader_of_ome_zarr_shows_fields_wells_and_the_plate(unpacked, index):
    nodes = list(Reader(parse_url(unpacked))())
    assert any(isinstance(spec, Plate) for spec in nodes[0].specs)
    assert nodes[0].metadata["channel_names"] == list(STAINS)
    whole = nodes[0].data[0]
    first = index.iloc[0]
    assert whole.shape == (5, 8 * first["height"], 12 * first["width"])
    for row in index[index["Metadata_Site"] == 1].itertuples():
        line, column = ord(row.Metadata_Well[0]) - 65, int(row.Metadata_Well[1:]) - 1
        top, left = line * row.height, column * row.width
        tile = whole[:, top : top + row.height, left : left + row.width]
        assert digest(np.asarray(tile)) == row.sha256, "the well lies where its name says"
    field = next(iter(Reader(parse_url(unpacked / first["array"].rsplit("/", 1)[0]))()))
    kinds = {type(spec) for spec in field.specs}
    assert {Multiscales, OMERO} <= kinds
    assert field.metadata["channel_names"] == list(STAINS)
    assert digest(np.asarray(field.data[0])) == first["sha256"]
    well = next(iter(Reader(parse_url(unpacked / "B" / "2"))()))
    assert any(isinstance(spec, Well) for spec in well.specs)


def test_the_reader_of_ome_zarr_opens_a_field_inside_the_zip(folder, index):
    """A plate it only opens unpacked: its reader builds the paths of wells from the name of a folder."""
    files = AsyncFileSystemWrapper(ZipFileSystem(folder / STORE), asynchronous=True)
    for row in index.itertuples():
        store = FsspecStore(files, path=row.array.rsplit("/", 1)[0], read_only=True)
        (field,) = Reader(ZarrLocation(store))()
        assert field.metadata["channel_names"] == list(STAINS)
        assert digest(np.asarray(field.data[0])) == row.sha256


def test_a_zarr_reader_notices_a_damaged_chunk(folder, index, tmp_path):
    """The checksum in each chunk is zarr's own, so not only our reader refuses other pixels."""
    data = bytearray((folder / STORE).read_bytes())
    with zipfile.ZipFile(folder / STORE) as store:
        entry = store.getinfo(f"{index['array'][3]}/c/0/0/0")
    data[entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2] ^= 4
    (tmp_path / STORE).write_bytes(data)
    group = zarr.open_group(ZipStore(tmp_path / STORE, mode="r"), mode="r")
    assert digest(group[index["array"][2]][:]) == index["sha256"][2]
    with pytest.raises((ValueError, RuntimeError, zipfile.BadZipFile)):
        group[index["array"][3]][:]
    found = check_fields(read_plate(tmp_path / STORE))
    assert [problem.where.split(", ")[1].split(" ")[0] for problem in found.problems] == [index["array"][3]]
    assert len(found.fields) == len(index) - 1


def test_what_the_store_says_of_itself_is_what_the_manifest_said(folder, index):
    store = read_plate(folder / STORE)
    assert (store.plate, store.wells, store.stains) == ("b1_p1", 96, STAINS)
    assert store.pixel_size_um == (1.2, 1.2)
    assert store.fields["array"].tolist() == index["array"].tolist()
    assert store.fields["Metadata_Well"].tolist() == index["Metadata_Well"].tolist()
    report = json.loads((folder / "ingest.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert store.provenance["manifest_digest"] == report["manifest_digest"]
    assert store.provenance["instrument"]["name"] == manifest["instrument"]["name"]
    assert store.provenance["illumination"]["fields"] == len(index)
    checked = check_fields(store, index)
    assert (checked.problems, checked.recorded) == ((), len(index))
    assert {"QC_focus_DNA", "Metadata_Treatment"} <= set(checked.fields)


def test_fields_that_index_and_store_do_not_share_are_told(folder, index):
    store = read_plate(folder / STORE)
    other = index.iloc[1:].copy()
    other.loc[2, "sha256"] = "0" * 64
    other.loc[3, "array"] = "H/12/1/0"
    problems = {
        problem.where.split(", ")[1].split(" ")[0]: problem.found for problem in check_fields(store, other).problems
    }
    assert problems == {
        index["array"][0]: "a field that the field index does not list",
        index["array"][3]: "a field that the field index does not list",
        "H/12/1/0": "nothing",
        index["array"][2]: "other pixels",
    }


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("zarr.json", lambda text: text.replace(b'"rows"', b'"lines"')),
        ("zarr.json", lambda text: b"[" * 5000),
        ("zarr.json", lambda text: text.replace(b'"rowIndex":1', b'"rowIndex":1e400')),
        ("B/2/1/zarr.json", lambda text: text.replace(b'"scale":[1.0', b'"scale":["x"')),
        ("B/2/1/0/zarr.json", lambda text: text.replace(b'"shape":[5', b'"shape":[5000000000')),
        ("B/2/zarr.json", lambda text: b"null"),
    ],
)
def test_metadata_that_is_none_is_told_in_words(name, change, folder, tmp_path):
    path = tmp_path / STORE
    with zipfile.ZipFile(folder / STORE) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry, change(data) if entry.filename == name else data)
    with pytest.raises(IntegrityError) as caught:
        read_plate(path)
    assert str(path) in caught.value.problems[0].where


def test_show_prints_one_store_by_itself_and_draws_it(folder, index, tmp_path):
    alone = tmp_path / "elsewhere" / STORE
    alone.parent.mkdir()
    alone.write_bytes((folder / STORE).read_bytes())
    shown = CliRunner().invoke(app, ["show", str(alone), "--out", str(tmp_path / "p")], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for words in ("Plate b1_p1", "DNA (nuclei), ER (cytoplasm), RNA (cytoplasm), AGP (cytoplasm), Mito (cytoplasm)",
                  "1.2 um", "96 wells, 4 of them with fields", "8 of 32 x 40 pixels, 2 to 2 a well", "lab_a/b1",
                  "scope, widefield", "each with its CRC-32C; no field index"):  # fmt: skip
        assert words in shown.output, words
    for name in ("wells", "contact_sheet", "heat_maps"):
        assert (tmp_path / "p" / f"b1_p1_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_show_of_a_damaged_store_names_the_field_after_drawing_the_rest(folder, index, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("coda.cli.plates_show.draw_plate", lambda plate, _: drawn.append(plate.rows) or [])
    data = bytearray((folder / STORE).read_bytes())
    with zipfile.ZipFile(folder / STORE) as store:
        entry = store.getinfo(f"{index['array'][1]}/c/0/0/0")
    data[entry.header_offset + 30 + len(entry.filename) + 40] ^= 1
    (tmp_path / STORE).write_bytes(data)
    shown = CliRunner().invoke(app, ["show", str(tmp_path / STORE), "--out", str(tmp_path / "p")])
    assert shown.exit_code != 0
    assert isinstance(shown.exception, IntegrityError)
    assert f"{index['array'][1]} (well B02, site 2)" in shown.exception.problems[0].where
    assert [len(rows) for rows in drawn] == [len(index) - 1]


def test_show_of_a_store_in_its_batch_holds_it_against_the_index(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("coda.cli.plates_show.draw_plate", lambda *_: [])
    shown = CliRunner().invoke(app, ["show", str(folder / STORE)], env={"COLUMNS": "200"})
    assert "8 fields read, each with the SHA-256 of the field index" in shown.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wells", [96, 384, 1536])
def test_every_format_is_drawn_in_its_layout(wells, tmp_path):
    rows, columns = FORMATS[wells]
    rng = np.random.default_rng(wells)
    path = tmp_path / f"plate{wells}.ome.zarr.zip"
    with PlateStoreWriter(path, f"plate{wells}", wells, ("DNA", "ER"), (1.0, 1.0), {}) as writer:
        for place in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
            pixels = rng.integers(0, 200, (2, 24, 24)).astype(np.uint8)
            writer.add(StoredField(place, 1, pixels.shape, encode(pixels)))
    checked = check_fields(read_plate(path))
    assert checked.fields["Metadata_Well"].tolist()[0] == "A01"
    assert {96: "H12", 384: "P24", 1536: "AF48"}[wells] == checked.fields["Metadata_Well"].tolist()[-1]
    assert checked.problems == ()
    group = zarr.open_group(ZipStore(path, mode="r"), mode="r")
    assert isinstance(ome_zarr_models.open_ome_zarr(group), HCS)


def test_heat_maps_hold_one_map_for_each_statistic_of_each_stain(folder, index):
    from coda.plates.plate_pictures import HEAT_MAPS, PlateToDraw, _heat_figure

    figure = _heat_figure(PlateToDraw(folder / STORE, index, 96, "b1_p1", "a plate", PRESET_ROLES, PRESET_COLOURS))
    maps = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images and axes.get_title()}
    assert set(maps) == {f"{stain}: {words}" for words in HEAT_MAPS.values() for stain in STAINS} | {
        "nuclei a field (DNA)", "stored fields",
    }  # fmt: skip
    for stain in STAINS:
        shown = np.ma.filled(maps[f"{stain}: focus (power slope)"].get_array(), np.nan)
        assert shown.shape == FORMATS[96]
        expected = index.groupby("Metadata_Well")[f"QC_focus_{stain}"].mean()
        assert shown[1, 1] == pytest.approx(expected["B02"])
        assert shown[2, 2] == pytest.approx(expected["C03"])
        assert np.isnan(shown[0, 0])
