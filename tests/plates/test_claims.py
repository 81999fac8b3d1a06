"""One file never serves two fields or stains."""

from coda.plates.readers.claims import each_image_once
from coda.plates.readers.found import FoundField, FoundPlate, ImageRef


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
