"""OME-TIFF and OME-Zarr plates: written by other people's libraries, read here, and pixels compared."""

import contextlib
import io
import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrument_trees import found, grey, put

from coda.contracts import BatchManifest
from coda.errors import ContractError
from coda.plates.image_decoding import UnreadableImageError
from coda.plates.readers.deliver import Identity, import_plates
from coda.plates.readers.layouts import detect
from coda.plates.readers.listing import ImageRef
from coda.plates.readers.ome_xml import NotOmeError, parse_ome
from coda.plates.readers.planes import PlaneReader
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import LocalTree

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library warns of its own parts while it is imported
    import ome_zarr.format
    import ome_zarr.writer

NAMES = ("Hoechst 33342", "Brightfield", "MitoTracker")
WELLS = {"B02": (1, 1), "C11": (2, 10)}


def who(**changes):
    return Identity(**({"source": "lab", "batch": "b", "instrument": "x", "modality": "confocal"} | changes))


def value(well, site, channel, z=0, t=0):
    """Return a grey value that no other plane has."""
    return 1000 * (list(WELLS).index(well) + 1) + 100 * site + 10 * channel + 3 * z + t


# OME-TIFF


def pixels_xml(number, *, names=NAMES, z=1, t=1, data="", kind="uint16", order="XYCZT", samples=1):
    channels = "".join(f"<Channel ID='Channel:{number}:{k}' Name='{name}' SamplesPerPixel='{samples}'/>"
                       for k, name in enumerate(names))  # fmt: skip
    return (
        f"<Image ID='Image:{number}'><Pixels ID='Pixels:{number}' DimensionOrder='{order}' Type='{kind}' SizeX='32' "
        f"SizeY='32' SizeC='{len(names) * samples}' SizeZ='{z}' SizeT='{t}' PhysicalSizeX='650' "
        f"PhysicalSizeXUnit='nm'>{channels}{data}</Pixels></Image>"
    )


def plate_xml(samples, name="Plate A", rows=16, columns=24):
    """`samples`: (row, column) -> numbers of images."""
    wells = "".join(
        f"<Well ID='W:{row}:{column}' Row='{row}' Column='{column}'>"
        + "".join(f"<WellSample ID='S:{n}' Index='{n}'><ImageRef ID='Image:{n}'/></WellSample>" for n in numbers)
        + "</Well>"
        for (row, column), numbers in samples.items()
    )
    return f"<Plate ID='Plate:0' Name='{name}' Rows='{rows}' Columns='{columns}'>{wells}</Plate>"


def ome(*parts):
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f"<?xml version='1.0' encoding='UTF-8'?><OME xmlns='{space}'>{''.join(parts)}</OME>"


def stack(images, xml):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number, image in enumerate(images):
            writer.write(image, description=xml.encode() if number == 0 else None, metadata=None, contiguous=False)
    return buffer.getvalue()


def one_file_plate(folder, *, names=NAMES):
    """All fields of a plate in one file: planes one after the other, each image told where its planes begin."""
    samples, parts, images, number = {}, [], [], 0
    for well, place in WELLS.items():
        samples[place] = []
        for site in (1, 2):
            data = f"<TiffData IFD='{len(images)}' PlaneCount='{len(names)}'/>"
            parts.append(pixels_xml(number, names=names, data=data))
            images += [grey(value(well, site, channel)) for channel in range(len(names))]
            samples[place].append(number)
            number += 1
    return put(folder, {"plate.ome.tif": stack(images, ome(plate_xml(samples), *parts))})


def test_a_plate_in_one_file_is_taken_apart(tmp_path):
    folder = one_file_plate(tmp_path / "in")
    assert detect(LocalTree(folder)) == "ome-tiff"
    (plate,) = found("ome-tiff", folder)
    assert (plate.plate, plate.wells, plate.pixel_size_um, plate.left_out) == ("Plate-A", 384, 0.65, {"Brightfield": 4})
    manifest, _ = import_plates("ome-tiff", LocalTree(folder), tmp_path / "out", who())
    assert BatchManifest.read(manifest).channels == ("DNA", "Mito")
    for well in WELLS:
        for site in (1, 2):
            for stain, channel in (("DNA", 0), ("Mito", 2)):
                written = tifffile.imread(manifest.parent / f"images/Plate-A/{well}_s{site}_{stain}.tif")
                assert np.array_equal(written, grey(value(well, site, channel)))


def tiff_data(channel, name):
    return f"<TiffData FirstC='{channel}' IFD='0'><UUID FileName='{name}'>urn:uuid:{channel}</UUID></TiffData>"


def many_files_plate(folder, *, companion=False):
    """A file for each plane, each naming all others (or a companion file that does)."""
    samples, parts, files = {}, [], {}
    for number, (well, place) in enumerate(WELLS.items()):
        names = [f"{well}_c{channel}.ome.tiff" for channel in range(3)]
        data = "".join(tiff_data(channel, name) for channel, name in enumerate(names))
        parts.append(pixels_xml(number, data=data))
        samples[place] = [number]
        files |= {name: grey(value(well, 1, channel)) for channel, name in enumerate(names)}
    whole = ome(plate_xml(samples), *parts)
    each = ome("<BinaryOnly MetadataFile='p.companion.ome' UUID='urn:uuid:0'/>") if companion else whole
    put(folder, {f"sub/{name}": stack([image], each) for name, image in files.items()})
    return put(folder, {"sub/p.companion.ome": whole}) if companion else folder


@pytest.mark.parametrize("companion", [False, True])
def test_a_plate_of_many_files_is_used_as_it_is(companion, tmp_path):
    (plate,) = found("ome-tiff", many_files_plate(tmp_path, companion=companion))
    assert [(item.place, item.files) for item in plate.fields] == [
        (place, {"DNA": ImageRef(f"sub/{well}_c0.ome.tiff"), "Mito": ImageRef(f"sub/{well}_c2.ome.tiff")})
        for well, place in WELLS.items()
    ]


def test_files_without_a_plate_are_placed_by_their_names(tmp_path):
    for well in WELLS:
        for site in (1, 2):
            images = np.stack([grey(value(well, site, channel)) for channel in range(3)])
            (tmp_path / "in").mkdir(exist_ok=True)
            tifffile.imwrite(
                tmp_path / f"in/P7_{well}_f{site}.ome.tif", images, ome=True, photometric="minisblack",
                metadata={"axes": "CYX", "Channel": {"Name": list(NAMES)}, "PhysicalSizeX": 0.65},
            )  # fmt: skip
    with pytest.raises(ContractError, match="--pattern"):
        found("ome-tiff", tmp_path / "in")
    pattern = r"(?P<plate>[^_/]+)_(?P<well>[A-P]\d\d)_f(?P<site>\d)\.ome\.tif"
    options = ReadOptions(pattern=pattern, channels={"2": "ER"})
    manifest, _ = import_plates("ome-tiff", LocalTree(tmp_path / "in"), tmp_path / "out", who(), options)
    parsed = BatchManifest.read(manifest)
    assert (parsed.plates[0].plate, parsed.channels) == ("P7", ("DNA", "ER", "Mito"))
    assert parsed.instrument.pixel_size_um == pytest.approx(0.65)
    written = tifffile.imread(manifest.parent / "images/P7/C11_s2_ER.tif")
    assert np.array_equal(written, grey(value("C11", 2, 1)))
    put(tmp_path / "in", {"odd.ome.tif": (tmp_path / "in/P7_B02_f1.ome.tif").read_bytes()})
    with pytest.raises(ContractError, match=r"the first: odd\.ome\.tif"):
        found("ome-tiff", tmp_path / "in", pattern=pattern)


@settings(deadline=None, max_examples=60)
@given(st.permutations("CZT"), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_planes_are_counted_in_any_order_of_dimensions(order, c, z, t):
    """The oracle is numpy: planes in a row are an array whose fastest axis is the first of the order."""
    text = pixels_xml(0, names=["x"] * c, z=z, t=t, order="XY" + "".join(order))
    (image,) = parse_ome(ome(text).encode()).images.values()
    sizes = {"C": c, "Z": z, "T": t}
    numbers = np.arange(c * z * t).reshape([sizes[axis] for axis in reversed(order)])
    numbers = np.transpose(numbers, [list(reversed(order)).index(axis) for axis in "CZT"])
    assert {place: ifd for place, (_, ifd) in image.planes.items()} == {
        tuple(place): int(numbers[tuple(place)]) for place in np.argwhere(numbers >= 0).tolist()
    }


def test_a_stack_is_chosen_from(tmp_path):
    images = [grey(10 * z + c) for z in range(3) for c in range(3)]
    put(tmp_path, {"a.ome.tif": stack(images, ome(plate_xml({(0, 0): [0]}), pixels_xml(0, z=3)))})
    with pytest.raises(ContractError, match="--plane"):
        found("ome-tiff", tmp_path)
    (plate,) = found("ome-tiff", tmp_path, plane=2)
    with contextlib.closing(PlaneReader(LocalTree(tmp_path))) as reader:
        pixels = reader.read(plate.fields[0].files["Mito"])
    assert pixels[0, 0] == 22


HOSTILE_OME = {
    "entities": "<!DOCTYPE x [<!ENTITY a 'ha'>]><OME>&a;</OME>",
    "another document": "<HTML/>",
    "no pixels": ome("<Image ID='Image:0'/>"),
    "absurd sizes": ome(pixels_xml(0, z=999_999_999)),
    "numbers that are none": ome(pixels_xml(0).replace("SizeC='3'", "SizeC='-3'")),
    "an order of nothing": ome(pixels_xml(0, order="XYCCC")),
    "data of no plane": ome(pixels_xml(0, data="<TiffData FirstC='7'/>")),
}


@pytest.mark.parametrize("case", HOSTILE_OME)
def test_impossible_ome_xml_is_refused(case, tmp_path):
    with pytest.raises(NotOmeError):
        parse_ome(HOSTILE_OME[case].encode())
    put(tmp_path, {"a.ome.tif": stack([grey(1)], HOSTILE_OME[case]), "b.ome.tif": b"II*\0garbage"})
    with pytest.raises(ContractError) as caught:
        found("ome-tiff", tmp_path)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ome(plate_xml({(0, 0): [5]}), pixels_xml(0)), "not described"),
        (ome(plate_xml({(0, 0): [0]}), pixels_xml(0, kind="float")), "float"),
        (ome(plate_xml({(0, 0): [0]}), pixels_xml(0, samples=3)), "3 sample"),
        (ome(plate_xml({(999, 0): [0]}), pixels_xml(0)), "row 1000"),
        (ome("<BinaryOnly MetadataFile='../x.companion.ome'/>"), "points to"),
        (ome(plate_xml({(0, 0): [0]}), pixels_xml(0, data=tiff_data(0, "../../x.tif"))), "leads out"),
    ],
)  # fmt: skip
def test_a_plate_that_cannot_be_is_refused(text, reason, tmp_path):
    put(tmp_path, {"a.ome.tif": stack([grey(1)] * 3, text), "x.companion.ome": ome()})
    with pytest.raises(ContractError, match=reason):
        found("ome-tiff", tmp_path)


# OME-Zarr


def write_plate(folder, version, *, names=NAMES, z=1, sites=(0, 1)):
    """Write a plate with the OME-Zarr project's own library."""
    form = {"0.4": ome_zarr.format.FormatV04(), "0.5": ome_zarr.format.FormatV05()}[version]
    root = zarr.open_group(folder, mode="w", zarr_format=form.zarr_format)
    paths = [f"{well[0]}/{int(well[1:])}" for well in WELLS]
    rows, columns = sorted({p[0] for p in paths}), sorted({p[2:] for p in paths})
    ome_zarr.writer.write_plate_metadata(root, rows, columns, paths, name="Z 1", fmt=form)
    for well, path in zip(WELLS, paths, strict=True):
        group = root.require_group(path)
        ome_zarr.writer.write_well_metadata(group, [str(site) for site in sites], fmt=form)
        for site in sites:
            data = np.stack([np.stack([grey(value(well, site, c, k)) for k in range(z)]) for c in range(len(names))])
            kinds = [{"name": "c", "type": "channel"}]
            kinds += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
            image = group.require_group(str(site))
            ome_zarr.writer.write_multiscale(
                [data], image, axes=kinds, scale={"c": 1.0, "z": 1.0, "y": 0.65, "x": 0.65}, fmt=form,
                storage_options={"chunks": (1, 1, 16, 32)},
            )  # fmt: skip
            omero = {"channels": [{"label": name, "color": "FFFFFF", "active": True} for name in names]}
            if version == "0.4":
                image.attrs["omero"] = omero
            else:
                image.attrs["ome"] = dict(image.attrs["ome"]) | {"omero": omero}
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    base = tmp_path_factory.mktemp("zarr")
    return {version: write_plate(base / f"p{version}.ome.zarr", version) for version in ("0.4", "0.5")}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_of_the_projects_own_library_is_read_with_its_pixels(version, packed, written, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    if packed:
        zipped(written[version], folder / "p.ome.zarr.zip")
    else:
        shutil.copytree(written[version], folder / "p.ome.zarr")
    assert detect(LocalTree(folder)) == "ome-zarr"
    (plate,) = found("ome-zarr", folder)
    assert plate.pixel_size_um == pytest.approx(0.65)
    assert plate.left_out == {"Brightfield": 4}
    assert [(item.place, item.site) for item in plate.fields] == [
        (place, site) for place in WELLS.values() for site in (0, 1)
    ]
    manifest, _ = import_plates("ome-zarr", LocalTree(folder), tmp_path / "out", who())
    for well in WELLS:
        for site in (0, 1):
            for stain, channel in (("DNA", 0), ("Mito", 2)):
                pixels = tifffile.imread(manifest.parent / f"images/Z-1/{well}_s{site}_{stain}.tif")
                assert np.array_equal(pixels, grey(value(well, site, channel)))


def test_a_store_of_our_own_can_be_imported(dataset, tmp_path):
    """A plate store is an OME-Zarr plate like others; its pixels come out as they lie in it."""
    batch = dataset / "lab_a" / "b1"
    (tmp_path / "in").mkdir()
    shutil.copy(next(batch.glob("*.ome.zarr.zip")), tmp_path / "in")
    (plate,) = found("ome-zarr", tmp_path / "in")
    assert len(plate.fields) == 8
    manifest, remarks = import_plates("ome-zarr", LocalTree(tmp_path / "in"), tmp_path / "out", who())
    assert BatchManifest.read(manifest).channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert not [remark for remark in remarks if "could not be read" in remark]


def test_a_stack_of_planes_is_chosen_from(tmp_path):
    write_plate(tmp_path / "p.zarr", "0.4", z=3, sites=(1,))
    with pytest.raises(ContractError, match="--plane"):
        found("ome-zarr", tmp_path)
    (plate,) = found("ome-zarr", tmp_path, plane=2)
    with contextlib.closing(PlaneReader(LocalTree(tmp_path))) as reader:
        pixels = reader.read(plate.fields[0].files["Mito"])
    assert pixels[0, 0] == value("B02", 1, 2, 2)


def edited(written, tmp_path, path, change):
    """Copy a plate and change one of its JSON documents."""
    folder = tmp_path / "p.zarr"
    shutil.copytree(written["0.4"], folder)
    document = json.loads((folder / path).read_text())
    change(document)
    (folder / path).write_text(json.dumps(document))
    return tmp_path


def test_arrays_of_absurd_size_or_type_are_left_out_before_anything_is_read(written, tmp_path):
    for number, change in enumerate((
        {"shape": [3, 1, 10**12, 32]}, {"chunks": [1, 1, 10**6, 10**6]}, {"dtype": "<f4"}, {"shape": [3, 1]},
        {"shape": "many"}, {"chunks": [1, 1, 1, 1], "shape": [3, 1, 30000, 30000]}, {"shape": [3, 1, -5, 32]},
    )):  # fmt: skip
        base = edited(written, tmp_path / str(number), "B/2/0/s0/.zarray", lambda d, c=change: d.update(c))
        (plate,) = found("ome-zarr", base)
        assert [len(item.files) for item in plate.fields] == [0, 2, 2, 2]
        assert any("1 wells or fields cannot be read" in note for note in plate.notes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wells": []}, "0 wells"),
        ({"wells": "all"}, "no list"),
        ({"wells": [{"path": "../../etc"}]}, "the well"),
        ({"wells": [{"path": "/etc"}]}, "the well"),
        ({"wells": [7]}, "the well"),
        ({"wells": [{"path": "x/y", "rowIndex": -1, "columnIndex": 0}]}, "the well"),
    ],
)
def test_a_plate_with_impossible_wells_is_refused(change, reason, written, tmp_path):
    base = edited(written, tmp_path, ".zattrs", lambda document: document["plate"].update(change))
    with pytest.raises(ContractError, match=reason):
        found("ome-zarr", base)


def test_damaged_chunks_are_told_and_absent(written, tmp_path):
    folder = tmp_path / "in/p.zarr"
    shutil.copytree(written["0.5"], folder)
    chunks = [path for path in (folder / "B/2/0").rglob("*") if path.is_file() and path.name != "zarr.json"]
    chunks[0].write_bytes(b"\xff" * 40)
    manifest, remarks = import_plates("ome-zarr", LocalTree(tmp_path / "in"), tmp_path / "out", who())
    assert any("1 image(s) could not be read" in remark for remark in remarks)
    assert len(BatchManifest.read(manifest).plates[0].files) == 7 + 2


@pytest.mark.parametrize("name", ["x.zarr.zip", "p.zarr/.zattrs", "p.zarr/zarr.json"])
def test_what_is_no_plate_is_refused(name, tmp_path):
    with pytest.raises(ContractError):
        found("ome-zarr", put(tmp_path, {name: b"{nonsense"}))
    with pytest.raises(ContractError, match="no OME-Zarr plate"):
        found("ome-zarr", put(tmp_path / "none", {"p.zarr/.zattrs": b"{}"}))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_metadata_damaged_at_random_ends_in_a_refusal_or_a_remark(data, written, tmp_path_factory):
    """A value somewhere in the documents is replaced by something else; nothing but our own errors may come out."""
    base = tmp_path_factory.mktemp("damaged")
    folder = base / "p.zarr"
    version = data.draw(st.sampled_from(["0.4", "0.5"]))
    shutil.copytree(written[version], folder)
    group = data.draw(st.sampled_from(["", "B/2/", "B/2/0/", "B/2/0/s0/"]))
    path = group + ("zarr.json" if version == "0.5" else ".zarray" if "s0" in group else ".zattrs")
    document = json.loads((folder / path).read_text())
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(st.sampled_from([None, -1, 10**9, "x", "../..", [], {}, [[]], True, 1.5]))
    (folder / path).write_text(json.dumps(document))
    try:
        plates = found("ome-zarr", base)
    except ContractError:
        return
    with contextlib.closing(PlaneReader(LocalTree(base))) as reader:
        for item in plates[0].fields[:1]:
            for image in item.files.values():
                with contextlib.suppress(UnreadableImageError):
                    assert reader.read(image).ndim == 2
