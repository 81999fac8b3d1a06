"""One file never serves two fields or stains."""

from coda.plates.readers.deduplicate import each_image_once
from coda.plates.readers.listing import FieldListing, ImageRef, PlateListing


def test_a_file_given_twice_is_used_for_none_and_told():
    def plate(name, *paths):
        fields = tuple(FieldListing((0, 0), site, {"DNA": ImageRef(path)}) for site, path in enumerate(paths))
        return PlateListing(name, fields)

    first, second = each_image_once([plate("p1", "a", "b"), plate("p2", "b", "c")])
    assert [dict(item.files) for item in first.fields] == [{"DNA": ImageRef("a")}, {}]
    assert [dict(item.files) for item in second.fields] == [{}, {"DNA": ImageRef("c")}]
    assert "(the first: b)" in first.notes[0]
    planes = [PlateListing("p", tuple(FieldListing((0, 0), k, {"DNA": ImageRef("stack.tif", k)}) for k in range(3)))]
    assert each_image_once(planes) == planes
