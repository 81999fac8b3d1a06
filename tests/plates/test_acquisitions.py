"""OME plates with several acquisitions, several images of a field, lost chunks; and channels that are pages."""

import shutil
import uuid
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr
from instrument_trees import found, grey, put

from coda.contracts import STAINS
from coda.errors import ContractError
from coda.plates.image_decoding import UnreadableImageError
from coda.plates.load_data import FieldRow
from coda.plates.plate_map import WellRow, expected_sites
from coda.plates.readers.deliver import Identity, import_plates
from coda.plates.readers.planes import PlaneReader
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import LocalTree
from coda.storage.trees import ObjectTree

LISTED = [{"id": 0, "name": "before"}, {"id": 7, "name": "24 h"}]


def plate(folder, images, *, version=2, channels=STAINS, acquisitions=None, chunks=(1, 16, 16), shards=None):
    """Write a plate of one well; `images`: path -> id of its acquisition, or None. Returns path -> its pixels."""
    root = zarr.open_group(str(folder), mode="w", zarr_format=version)

    def put_attributes(group, name, value):
        attributes = group.attrs.asdict()
        if version == 2:
            group.attrs.put({**attributes, name: value})
        else:
            group.attrs.put({"ome": {**attributes.get("ome", {}), "version": "0.5", name: value}})

    about = {"wells": [{"path": "B/2", "rowIndex": 1, "columnIndex": 1}], "name": "P"}
    put_attributes(root, "plate", about | ({"acquisitions": acquisitions} if acquisitions else {}))
    well = root.require_group("B/2")
    entries = [{"path": name, **({} if item is None else {"acquisition": item})} for name, item in images.items()]
    put_attributes(well, "well", {"images": entries})
    pixels = {}
    for number, (name, item) in enumerate(images.items()):
        labels = channels[item] if isinstance(channels, dict) else channels
        image = well.require_group(name)
        data = np.stack([grey(100 + 10 * number + k) + 1 for k in range(len(labels))]).astype(np.uint16)
        scales = {"axes": [{"name": axis} for axis in "cyx"], "datasets": [{"path": "0"}]}
        put_attributes(image, "multiscales", [scales])
        put_attributes(image, "omero", {"channels": [{"label": label} for label in labels]})
        more = {"shards": shards} if shards else {}
        if version == 2:
            more["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        array = image.create_array(name="0", shape=data.shape, dtype=data.dtype, chunks=chunks, **more)
        array[:] = data
        pixels[name] = dict(zip(labels, data, strict=True))
    return pixels


def read(folder, field, stain):
    with closing(PlaneReader(LocalTree(folder))) as reader:
        return reader.read(field.files[stain])


@pytest.mark.parametrize("version", [2, 3])
def test_an_acquisition_is_chosen_by_id_or_name(version, tmp_path):
    images = {"0": 0, "1": 0, "2": 7, "3": 7}
    pixels = plate(tmp_path / "P.zarr", images, version=version, acquisitions=LISTED)
    with pytest.raises(ContractError, match=r"the acquisitions 0 \(before\), 7 \(24 h\).*--acquisition 'before'"):
        found("ome-zarr", tmp_path)
    for choice in ("7", "24 h"):
        (one,) = found("ome-zarr", tmp_path, acquisition=choice)
        assert [item.site for item in one.fields] == [2, 3]
        assert np.array_equal(read(tmp_path, one.fields[0], "ER"), pixels["2"]["ER"])
    with pytest.raises(ContractError, match="'48 h' among the acquisitions 0"):
        found("ome-zarr", tmp_path, acquisition="48 h")


def test_stainings_of_the_same_fields_are_put_together(tmp_path):
    channels = {0: ("DAPI", "ER", "RNA"), 1: ("DAPI", "AGP", "Mito")}
    pixels = plate(tmp_path / "P.zarr", {"0": 0, "1": 0, "2": 1, "3": 1}, channels=channels)
    (one,) = found("ome-zarr", tmp_path, join=True)
    assert [(item.site, sorted(item.files)) for item in one.fields] == [(1, sorted(STAINS)), (2, sorted(STAINS))]
    for site, paths in ((1, "02"), (2, "13")):
        field = one.fields[site - 1]
        for stain, (path, label) in {
            "DNA": (paths[0], "DAPI"),
            "ER": (paths[0], "ER"),
            "AGP": (paths[1], "AGP"),
        }.items():
            assert np.array_equal(read(tmp_path, field, stain), pixels[path][label])
    assert any("DNA was imaged in several acquisitions" in note for note in one.notes)


@pytest.mark.parametrize("names", [("0", "0_illumcorr"), ("raw", "corrected"), ("raw_0", "corr_0")])
def test_one_of_several_images_of_a_field_is_chosen(names, tmp_path):
    pixels = plate(tmp_path / "P.zarr", dict.fromkeys(names))
    with pytest.raises(ContractError, match=f"such as {names[0]}, {names[1]}.*--image '{names[0]}'"):
        found("ome-zarr", tmp_path)
    (one,) = found("ome-zarr", tmp_path, image=names[1])
    assert len(one.fields) == 1
    assert np.array_equal(read(tmp_path, one.fields[0], "DNA"), pixels[names[1]]["DNA"])
    (both,) = found("ome-zarr", tmp_path, image="all")
    assert [item.site for item in both.fields] == [1, 2]
    with pytest.raises(ContractError, match="no image like 'x'"):
        found("ome-zarr", tmp_path, image="x")


def test_an_ome_tiff_plate_lists_acquisitions_too(tmp_path):
    spaces = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    samples = "".join(f'<WellSample ID="S:{k}" Index="{k}"><ImageRef ID="Image:{k}"/></WellSample>' for k in range(2))
    told = "".join(f'<PlateAcquisition ID="PA:{k}" Name="{name}"><WellSampleRef ID="S:{k}"/></PlateAcquisition>'
                   for k, name in enumerate(("before", "after")))  # fmt: skip
    images = "".join(
        f'<Image ID="Image:{k}"><Pixels DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="32" SizeC="1" SizeZ="1" '
        f'SizeT="1"><Channel Name="DNA"/><TiffData IFD="{k}" PlaneCount="1"/></Pixels></Image>' for k in range(2)
    )  # fmt: skip
    well = f'<Well Row="1" Column="1">{samples}</Well>'
    xml = f'<OME {spaces}>{images}<Plate ID="Plate:0" Name="P">{well}{told}</Plate></OME>'
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as file:
        for k in range(2):
            about = xml.encode() if k == 0 else None
            file.write(grey(k + 1), photometric="minisblack", description=about, metadata=None, contiguous=False)
    with pytest.raises(ContractError, match=r"PA:0 \(before\), PA:1 \(after\)"):
        found("ome-tiff", tmp_path)
    (one,) = found("ome-tiff", tmp_path, acquisition="after")
    assert np.array_equal(read(tmp_path, one.fields[0], "DNA"), grey(2))


@pytest.mark.parametrize(
    ("version", "shards", "lost"),
    [(2, None, "B/2/0/0/1/1/1"), (3, None, "B/2/0/0/c/1/1/1"), (3, (1, 32, 16), "B/2/0/0/c/1/0/1")],
)
@pytest.mark.parametrize("where", ["folder", "zip", "s3"])
def test_a_chunk_that_did_not_arrive_is_no_zeros(version, shards, lost, where, tmp_path, moto_server):
    pixels = plate(tmp_path / "in/P.zarr", {"0": None}, version=version, shards=shards, chunks=(1, 16, 16))
    (tmp_path / "in/P.zarr" / lost).unlink()
    tree = LocalTree(tmp_path / "in")
    if where == "zip":
        shutil.make_archive(str(tmp_path / "packed/P.zarr"), "zip", tmp_path / "in/P.zarr")
        tree = LocalTree(tmp_path / "packed")
    elif where == "s3":
        store = moto_server.bucket()
        for file in tree.files():
            store.put(file.path, (tmp_path / "in" / file.path).read_bytes())
        tree = ObjectTree(store)
    who = Identity("s", "b", "x", modality="confocal", pixel_size_um=0.6)
    manifest, remarks = import_plates("ome-zarr", tree, tmp_path / "out", who)
    images = {path.stem.rpartition("_")[2] for path in manifest.parent.glob("images/*/*.tif")}
    assert images == set(STAINS) - {"ER"}
    assert any("lacks the chunk" in remark and "--sparse" in remark for remark in remarks)
    manifest, remarks = import_plates("ome-zarr", tree, tmp_path / "sparse", who, ReadOptions(sparse=True))
    filled = tifffile.imread(manifest.parent / "images/P/B02_s0_ER.tif")
    wanted = pixels["0"]["ER"].copy()
    wanted[slice(None) if shards else slice(16, 32), 16:] = 0
    assert np.array_equal(filled, wanted)


def test_an_empty_chunk_that_a_shards_own_index_says_is_empty_was_not_lost(tmp_path):
    plate(tmp_path / "P.zarr", {"0": None}, version=3, shards=(1, 32, 32))
    array = zarr.open_array(str(tmp_path / "P.zarr/B/2/0/0"), mode="r+")
    array[1, 16:, 16:] = 0
    (one,) = found("ome-zarr", tmp_path)
    assert not read(tmp_path, one.fields[0], "ER")[16:, 16:].any()


def test_positions_of_micro_manager_need_no_pattern(tmp_path):
    spots = [("B2", 0), ("B2", 1), ("C11", 0)]
    names = [f"scan_1_MMStack_{well}-Site_{site}.ome.tif" for well, site in spots]
    ids = [f"urn:uuid:{uuid.UUID(int=k + 1)}" for k in range(3)]
    spaces = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    images = "".join(
        f'<Image ID="Image:{k}" Name="{well}-Site_{site}"><Pixels DimensionOrder="XYCZT" Type="uint16" SizeX="32" '
        f'SizeY="32" SizeC="2" SizeZ="1" SizeT="1"><Channel Name="DAPI"/><Channel Name="ER"/>'
        + "".join(f'<TiffData FirstC="{c}" IFD="{c}" PlaneCount="1"><UUID FileName="{names[k]}">{ids[k]}</UUID>'
                  "</TiffData>"
                  for c in range(2)) + "</Pixels></Image>" for k, (well, site) in enumerate(spots)
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    for k, name in enumerate(names):
        own = f'<OME {spaces} UUID="{ids[k]}"><BinaryOnly MetadataFile="{names[0]}" UUID="{ids[0]}"/></OME>'
        xml = f'<OME {spaces} UUID="{ids[0]}">{images}</OME>' if k == 0 else own
        with tifffile.TiffWriter(tmp_path / "run" / name) as file:
            for c in range(2):
                file.write(grey(10 * k + c + 1), photometric="minisblack", metadata=None, contiguous=False,
                           description=xml.encode() if c == 0 else None)  # fmt: skip
    (one,) = found("ome-tiff", tmp_path)
    assert one.plate == "scan_1"
    assert [(item.place, item.site) for item in one.fields] == [((1, 1), 0), ((1, 1), 1), ((2, 10), 0)]
    for k, item in enumerate(one.fields):
        assert np.array_equal(read(tmp_path, item, "DNA"), grey(10 * k + 1))
        assert np.array_equal(read(tmp_path, item, "ER"), grey(10 * k + 2))


CHANNELS = ("DAPI", "ER", "RNA", "AGP", "Cy5")
IN_NAME = r"(?P<well>[A-P]\d\d)_Channel(?P<channel>.+)\.tif"


@pytest.mark.parametrize("pattern", [IN_NAME, r"(?P<well>[A-P]\d\d)_.*\.tif"])
@pytest.mark.parametrize("planes", [1, 2])
def test_pages_of_a_tiff_are_channels(pattern, planes, tmp_path):
    data = np.stack([[grey(10 * z + c + 1) for c in range(5)] for z in range(planes)])
    labels = [name for _ in range(planes) for name in CHANNELS]
    name = tmp_path / f"B02_Channel{','.join(CHANNELS)}.tif"
    tifffile.imwrite(name, data[None] if planes > 1 else data[0], imagej=True,
                     metadata={"axes": "TZCYX" if planes > 1 else "CYX", "Labels": labels})  # fmt: skip
    asked = {"pattern": pattern, "channels": {"Cy5": "Mito"}} | ({"plane": 1} if planes > 1 else {})
    (one,) = found("pattern", tmp_path, **asked)
    assert set(one.fields[0].files) == set(STAINS)
    for c, stain in enumerate(STAINS):
        assert np.array_equal(read(tmp_path, one.fields[0], stain), grey(10 * (planes - 1) + c + 1))


def test_names_and_pages_that_disagree_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "B02_ChannelDAPI,ER.tif", np.stack([grey(k) for k in (1, 2, 3)]),
                     photometric="minisblack")  # fmt: skip
    with pytest.raises(ContractError, match="3 channels, but its name says DAPI, ER"):
        found("pattern", tmp_path, pattern=IN_NAME)
    put(tmp_path / "b", {"B02_ChannelDAPI,ER.tif": b"no tiff"})
    with pytest.raises(ContractError, match="is no TIFF"):
        found("pattern", tmp_path / "b", pattern=IN_NAME)


def test_a_damaged_reference_is_told_by_the_reader(tmp_path):
    plate(tmp_path / "P.zarr", {"0": None})
    (one,) = found("ome-zarr", tmp_path)
    (tmp_path / "P.zarr/B/2/0/0/1/0/0").write_bytes(b"damaged")
    with pytest.raises(UnreadableImageError):
        read(tmp_path, one.fields[0], "ER")


def test_a_well_is_expected_to_have_what_was_delivered_of_it_where_nobody_says():
    fields = [
        FieldRow(well, site, {}, {}) for well, count in {"A01": 9, "A02": 2, "A03": 2}.items() for site in range(count)
    ]
    wells = [WellRow(name, "c", "c", "trt", None) for name in ("A01", "A02", "A03", "A04")]
    wells.append(WellRow("A05", "", "", "empty", None))
    assert expected_sites(fields, wells, None) == {"A01": 9, "A02": 2, "A03": 2, "A04": 2}
    assert expected_sites(fields, wells, 9) == dict.fromkeys(("A01", "A02", "A03", "A04"), 9)
    assert expected_sites([], wells[:1], None) == {"A01": 0}
