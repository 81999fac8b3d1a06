"""A reference means the true image or none: never another plate's, another well's, or one that serves twice."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instrument_trees import found, put

from coda.contracts import STAINS
from coda.errors import ContractError
from coda.plates.addresses import spellings
from coda.plates.file_references import FileResolver, Moved
from coda.plates.readers.layouts import ReadOptions, find_plates
from coda.plates.tree import TreeFile


class MemoryTree:
    """A tree that is never written."""

    where = "/somewhere"

    def __init__(self, files):
        self._files = files

    def files(self, under=""):
        return [TreeFile(path, len(text)) for path, text in sorted(self._files.items()) if path.startswith(under)]

    def read(self, path, *, at_most):
        return self._files[path].encode()[:at_most]


HEAD = "Metadata_Plate,Metadata_Well,Metadata_Site," + ",".join(f"FileName_Orig{s},PathName_Orig{s}" for s in STAINS)


def learned(paths, references, plate="P2", **options):
    resolver = FileResolver(paths, **({"own": False, "others": {plate}} | options))
    result = resolver.learn(plate, {"DNA": references})
    return [result.paths.get(text) for text in references]


@pytest.mark.parametrize(
    "folder", ["images/P2/Images/", "/mnt/scope/P2/Images/", "s3://bucket/a%20b/P2/Images/", "D:\\run\\P2\\Images\\"]
)
def test_a_lost_image_is_not_taken_from_another_plate(folder):
    paths = ["images/P2/Images/1.tif", "images/P2/Images/3.tif", *(f"images/P1/Images/{k}.tif" for k in (1, 2, 3))]
    assert learned(paths, [f"{folder}{name}.tif" for name in (1, 2, 3)]) == [paths[0], None, paths[1]]


@pytest.mark.parametrize("beside", ["images/P1", "images/P1/Images", "P1", "other", "images/run 2"])
def test_a_plate_that_is_lost_as_a_whole_is_not_taken_from_the_only_other_one(beside):
    names = ["B02/s1.tif", "B03/s1.tif"]
    assert learned([f"{beside}/{name}" for name in names], [f"/lab/P2/{name}" for name in names]) == [None, None]


def test_a_lost_well_is_not_taken_from_another_well():
    references = ["/lab/P2/B02/s1.tif", "/lab/P2/B03/s1.tif"]
    for root in ("images/P2/", "P2/", ""):
        for own in (False, True):
            assert learned([f"{root}B03/s1.tif"], references, own=own)[0] is None
    assert learned(["images/P2/s1.tif"], references) == [None, None], "one file of two wells"


def test_files_that_were_moved_all_together_are_found():
    assert learned(["new/1.tif", "new/2.tif"], ["/old/place/1.tif", "/old/place/2.tif"]) == ["new/1.tif", "new/2.tif"]
    assert learned(["1.tif"], ["/old/P2__2020-Measurement1/Images/1.tif"]) == ["1.tif"]
    assert learned(["1.tif"], ["/old/P2/1.tif", "/old/P2/2.tif"]) == [None, None], "a nameless folder is no proof"
    assert learned(["1.tif", "more/x.tif"], ["/old/P2/1.tif"]) == ["1.tif"]
    assert learned(["images/1.tif", "more/x.tif"], ["/old/P2/1.tif"]) == [None], "there may be other plates"
    assert learned(["a/P2/Images/1.tif"], ["/old/P2__2020-Measurement1/Images/1.tif"]) == ["a/P2/Images/1.tif"]
    assert learned(["x9/run/P2/A/1.tif"], ["/y/P2/A/1.tif"]) == ["x9/run/P2/A/1.tif"]
    assert learned(["sorted/A01/BR00123_1.tif"], ["/old/BR00123_1.tif"], "BR00123") == ["sorted/A01/BR00123_1.tif"]
    assert learned(["A01/1.tif", "A02/2.tif"], ["/old/1.tif", "/old/2.tif"], own=True) == ["A01/1.tif", "A02/2.tif"]


def test_two_places_that_fit_equally_are_none_until_the_user_decides():
    paths = ["disk1/P2/1.tif", "disk2/P2/1.tif"]
    result = FileResolver(paths, own=False, others={"P2"}).learn("P2", {"DNA": ["/lab/P2/1.tif"]})
    assert not result.paths
    assert "may be any of 2 files of the manifest (in disk1/P2, disk2/P2); --moved OLD=NEW decides" in str(
        result.reasons
    )
    moved = (Moved(("lab",), ("disk2",)),)
    assert learned(paths, ["/lab/P2/1.tif"], moved=moved) == ["disk2/P2/1.tif"]
    assert learned(paths[:1], ["/lab/P2/1.tif"], moved=moved) == [None], "what the user says is not guessed around"


def test_channels_that_share_a_folder_share_the_mapping():
    """ER lies elsewhere under the same name: whatever it is, it is not what stood beside the DNA."""
    paths = ["images/P2/1_DNA.tif", "processed/more/P2/1_ER.tif"]
    refs = {"DNA": ["/lab/P2/1_DNA.tif"], "ER": ["/lab/P2/1_ER.tif"]}
    apart = {"DNA": ["/lab/images/P2/1_DNA.tif"], "ER": ["/raid/processed/more/P2/1_ER.tif"]}
    files = FileResolver(paths, own=False, others={"P2"})
    assert files.learn("P2", refs).paths == {}
    assert sorted(files.learn("P2", apart).paths.values()) == paths


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("s3://b/proj/P2#1/x.tif", "P2#1/x.tif"), ("s3://b/P2/x#1.tif", "P2/x#1.tif"),
        ("s3://b/P2/a+b.tif", "P2/a+b.tif"), ("s3://b/P2/a+b.tif", "P2/a b.tif"),
        ("s3://b/P2/50%25 a.tif", "P2/50%25 a.tif"), ("s3://b/P2/a%20b.tif", "P2/a b.tif"),
        ("file:/home/u/P2%20rep/x.tif", "P2 rep/x.tif"), ("file:///home/u/P2%20rep/x%231.tif", "P2 rep/x#1.tif"),
        ("file://host/u/P2/x.tif", "P2/x.tif"), ("https://h/b/P2/x.tif?versionId=1", "P2/x.tif"),
        ("D:\\P2\\x.tif", "P2/x.tif"), ("\\\\server\\share\\P2\\x.tif", "P2/x.tif"),
        ("s3://b/P2/a?b.tif", "P2/a?b.tif"), ("s3://b/P2/X.TIF", "P2/x.tif"),
    ],
)  # fmt: skip
def test_an_address_is_read_by_one_parser(address, path):
    assert learned([path], [address]) == [path]


def test_a_key_is_literal_before_it_is_decoded():
    paths = ["P2/a%20b.tif", "P2/a b.tif"]
    assert learned(paths, ["s3://b/P2/a%20b.tif"]) == ["P2/a%20b.tif"]
    assert list(spellings("s3://b/a%20b+c")) == ["literal", "decoded", "form"]
    assert spellings("C:\\a\\.\\b.tif") == {"literal": ("C:", "a", "b.tif")}


def table(plate, rows):
    lines = [",".join([plate, well, str(site), *(part for ref in refs for part in ref)]) for well, site, refs in rows]
    return "\n".join([HEAD, *lines]) + "\n"


def test_a_well_of_the_plate_s_name_does_not_make_a_folder_its_own():
    """Plate P1 is lost, and plate P2, renamed, has a well P1: its image was taken for that of plate P1."""
    files = {"images/renamed/P1/Mito_2.tif": "P2"}
    for plate in ("P1", "P2"):
        refs = [(f"{stain}_2.tif", f"/lab/share/{plate}/P1/") for stain in STAINS]
        files[f"tables/{plate}/load_data.csv"] = table(plate, [("P1", 2, refs)])
    try:
        plates = find_plates("load_data", MemoryTree(files), ReadOptions())
    except ContractError:
        plates = []
    assert not [item for plate in plates if plate.plate == "P1" for item in plate.fields if item.files]


NAMES = ["P1", "P2", "P10", "BR0007", "HeLa-1"]


@st.composite
def trees(draw):
    """Draw plates with shared image names as a laboratory may deliver them; returns files, and what was planted."""
    plates = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=3, unique=True))
    wells = draw(st.lists(st.sampled_from(["B02", "B03", "P1", "C11"]), min_size=1, max_size=3, unique=True))
    by_well = draw(st.booleans())
    flat = draw(st.sampled_from(["", "Images/"]))
    tabled = draw(st.lists(st.sampled_from(plates), min_size=1, unique=True))
    name = "{stain}_{site}.tif" if by_well else draw(st.sampled_from(["{well}_{site}_{stain}.tif"]))
    files, counts = {}, {"lost": 0, "duplicates": 0, "renamed": 0, "trees": 1}
    whole = draw(st.lists(st.sampled_from(plates), max_size=1))
    for plate in plates:
        old = draw(st.sampled_from(["/lab/share", "s3://bucket/run 1", "file:/data", "D:\\hcs"])) + f"/{plate}"
        new = draw(st.sampled_from(["images/", "", "archive 7/", "moved/here/"]))
        # a folder without any name is believed to be the plate of the only table; then it must be that plate's
        nameless = ["Images"] if plate in tabled else []
        folder = draw(st.sampled_from([plate, plate, plate, "renamed", f"{plate}_copy", *nameless]))
        counts["renamed"] += folder != plate
        lost_wells = draw(st.lists(st.sampled_from(wells), max_size=1))
        rows = []
        for well in wells:
            for site in (1, 2):
                refs = []
                for stain in STAINS:
                    inner = flat + (f"{well}/" if by_well else "")
                    own = name.format(well=well, site=site, stain=stain)
                    refs.append((own, f"{old}/{inner}"))
                    lost = plate in whole or well in lost_wells or draw(st.integers(0, 9)) == 0
                    path = f"{new}{folder}/{inner}{own}"
                    if lost or path in files:
                        counts["lost"] += 1
                    else:
                        files[path] = f"{plate}|{well}|{site}|{stain}"
                    if not lost and draw(st.integers(0, 29)) == 0:
                        counts["duplicates"] += 1
                        files.setdefault(f"backup/{plate}/{inner}{own}", f"a copy of {plate}|{well}|{site}|{stain}")
                rows.append((well, site, refs))
        if plate in tabled:
            files[f"tables/{plate}/load_data.csv"] = table(plate, rows)
    return files, counts


TALLY = dict.fromkeys(("trees", "lost", "duplicates", "renamed", "right", "missing", "wrong"), 0)


@settings(max_examples=int(os.environ.get("CODA_TEST_TREES", "60")), deadline=None)
@given(trees())
def test_random_trees_give_the_true_image_or_none(drawn):
    files, counts = drawn
    try:
        plates = find_plates("load_data", MemoryTree(files), ReadOptions())
    except ContractError:
        plates = []
    wrong = []
    for plate in plates:
        for item in plate.fields:
            for stain in STAINS:
                image = item.files.get(stain)
                well = {(1, 1): "B02", (1, 2): "B03", (15, 0): "P1", (2, 10): "C11"}[item.place]
                truth = f"{plate.plate}|{well}|{item.site}|{stain}"
                said = files[image.path].removeprefix("a copy of ") if image else None
                TALLY["missing" if said is None else "right" if said == truth else "wrong"] += 1
                if said not in {None, truth}:
                    wrong.append((truth, image.path))
    for key, count in counts.items():
        TALLY[key] += count
    assert not wrong
    if os.environ.get("CODA_TEST_TREES"):
        print(TALLY)


def test_losses_of_a_plate_leave_its_other_images_found(tmp_path):
    """The property above could be met by finding nothing."""
    rows = [
        (well, site, [(f"{s}_{site}.tif", f"/lab/P2/{well}") for s in STAINS])
        for well in ("B02", "B03")
        for site in (1, 2)
    ]
    files = {f"images/{plate}/{well}/{s}_{site}.tif": plate for plate in ("P1", "P2") for well in ("B02", "B03")
             for site in (1, 2) for s in STAINS if (plate, well) != ("P2", "B02")}  # fmt: skip
    put(tmp_path, files | {"tables/P2/load_data.csv": table("P2", rows)})
    (plate,) = found("load_data", tmp_path)
    assert [len(item.files) for item in plate.fields] == [0, 0, 5, 5]
    assert {image.path.split("/")[1] for item in plate.fields for image in item.files.values()} == {"P2"}


def test_the_move_that_a_reason_names_can_be_typed_and_is_followed():
    result = FileResolver(["a.tif", "b.tif"], own=False, others={"P1", "P2"}).learn("P1", {"DNA": ["a.tif"]})
    assert "lies in the folder itself" in result.reasons["a.tif"]
    assert "--moved '.=.')" in result.reasons["a.tif"]
    assert learned(["a.tif", "b.tif"], ["a.tif"], moved=(Moved((), ()),)) == ["a.tif"]
