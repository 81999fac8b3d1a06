"""An image of another plate never stands for one that was lost, and one file never for two images."""

import pytest

from coda.plates.adopt.claims import NearestFiles, each_image_once, without_strays
from coda.plates.adopt.found import FoundField, FoundPlate, ImageRef
from coda.plates.load_data import FieldRow
from coda.plates.tables import FileResolver


def fields_of(paths, references):
    files = NearestFiles(FileResolver(paths))
    rows = [FieldRow("A01", site, {"DNA": files.resolve(text)}, {}) for site, text in enumerate(references)]
    return [row.files.get("DNA") for row in without_strays(rows, files)]


@pytest.mark.parametrize(
    "folder", ["images/p1/Images/", "/mnt/scope/p1/Images/", "s3://bucket/a%20b/p1/Images/", "D:\\run\\p1\\Images\\"]
)
def test_a_lost_image_is_not_taken_from_another_plate(folder):
    paths = ["images/p1/Images/1.tif", "images/p1/Images/3.tif", *(f"images/p2/Images/{k}.tif" for k in (1, 2, 3))]
    found = fields_of(paths, [f"{folder}{name}.tif" for name in (1, 2, 3)])
    assert found == ["images/p1/Images/1.tif", None, "images/p1/Images/3.tif"]


def test_files_that_were_moved_all_together_are_found():
    paths = ["new/1.tif", "new/2.tif"]
    assert fields_of(paths, ["/old/place/1.tif", "/old/place/2.tif"]) == paths
    sorted_by_well = ["A01/1.tif", "A02/2.tif"]
    assert fields_of(sorted_by_well, ["/old/1.tif", "/old/2.tif"]) == sorted_by_well
    assert fields_of(paths, ["1.tif", "2.tif"]) == paths
    assert fields_of(["x/A/1.tif", "x/B/1.tif"], ["y/A/1.tif", "y/B/1.tif"]) == ["x/A/1.tif", "x/B/1.tif"]


def test_a_file_given_twice_is_used_for_none_and_told():
    def plate(name, *paths):
        fields = tuple(FoundField((0, 0), site, {"DNA": ImageRef(path)}) for site, path in enumerate(paths))
        return FoundPlate(name, fields)

    first, second = each_image_once([plate("p1", "a", "b"), plate("p2", "b", "c")])
    assert [dict(item.files) for item in first.fields] == [{"DNA": ImageRef("a")}, {}]
    assert [dict(item.files) for item in second.fields] == [{}, {"DNA": ImageRef("c")}]
    assert "(the first: b)" in first.notes[0]
    planes = [FoundPlate("p", tuple(FoundField((0, 0), k, {"DNA": ImageRef("stack.tif", k)}) for k in range(3)))]
    assert each_image_once(planes) == planes
