"""What counts as a file of a tree: links, and what systems leave beside data; and names of plates."""

import pytest
from batches import tiff
from instrument_trees import found, grey, put

from coda.errors import ConfigError, ContractError
from coda.plates.junk import is_junk
from coda.plates.readers.read_options import links_told
from coda.plates.tree import LocalTree
from coda.storage.trees import ObjectTree

PATTERN = r"(?P<plate>[^/]+)/(?P<well>[A-P]\d\d)_(?P<channel>[^_/.]+)\.tif"
JUNK = ["._a.tif", "b/._x", ".DS_Store", "b/Thumbs.db", "@eaDir/a.tif/x", "b/@eaDir/y", "__MACOSX/a.tif", "b/.nfs0001"]


def listed(tree):
    return [file.path for file in tree.files()]


def test_what_systems_leave_is_no_file_anywhere(tmp_path, moto_server):
    put(tmp_path, dict.fromkeys([*JUNK, "a.tif", "b/e.tif"], "x"))
    assert listed(LocalTree(tmp_path)) == ["a.tif", "b/e.tif"]
    store = moto_server.bucket()
    for name in [*JUNK, "a.tif", "b/e.tif"]:
        store.put(name, b"x")
    assert listed(ObjectTree(store)) == ["a.tif", "b/e.tif"]
    assert not any(map(is_junk, ["a._b.tif", "DS_Store.tif", "eaDir/x", "my@eaDir.tif", "Thumbs/x.tif"]))


def test_links_inside_are_followed_and_others_told(tmp_path):
    put(tmp_path, {"in/real/B02/1.tif": "x", "out/2.tif": "y"})
    base = tmp_path / "in"
    (base / "file.tif").symlink_to(base / "real/B02/1.tif")
    (base / "B03").symlink_to(base / "real/B02")
    (base / "far.tif").symlink_to(tmp_path / "out/2.tif")
    (base / "far").symlink_to(tmp_path / "out")
    (base / "broken.tif").symlink_to(base / "nothing")
    (base / "real/up").symlink_to(base)
    (base / "self").symlink_to(base / "self")
    tree = LocalTree(base)
    assert listed(tree) == ["B03/1.tif", "file.tif", "real/B02/1.tif"]
    assert set(tree.not_followed) == {"far.tif", "far", "broken.tif", "real/up", "self"}
    (remark,) = links_told(tree)
    assert remark.startswith("5 link(s) were not followed (the first: broken.tif, which leads nowhere")


def test_folders_linked_into_each_other_come_to_an_end(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
        put(tmp_path, {f"{name}/x.tif": "x"})
    for one in "abcd":
        for two in "abcd":
            if one != two:
                (tmp_path / one / two).symlink_to(tmp_path / two)
    paths = listed(LocalTree(tmp_path))
    assert len(paths) == len(set(paths)) == 4 + 4 * 3 + 4 * 3 * 2 + 4 * 3 * 2


def test_a_tree_of_links_alone_says_so_beside_what_it_lacks(tmp_path):
    put(tmp_path, {"store/P/A01_DNA.tif": "x"})
    (tmp_path / "in").mkdir()
    (tmp_path / "in/P").symlink_to(tmp_path / "store/P")
    with pytest.raises(ContractError, match=r"1 link\(s\) were not followed"):
        found("pattern", tmp_path / "in", pattern=PATTERN)


@pytest.mark.parametrize("names", [("HeLa+", "HeLa-"), ("α", "β"), ("Plate 1", "Plate-1")])
def test_plates_whose_safe_names_meet_are_refused_until_they_are_renamed(names, tmp_path):
    put(tmp_path, {f"{name}/A0{k}_DNA.tif": tiff(grey(k)) for k, name in enumerate(names, start=1)})
    with pytest.raises(ContractError) as caught:
        found("pattern", tmp_path, pattern=PATTERN)
    assert all(repr(name) in str(caught.value) for name in names)
    assert f"--rename '{names[0]}=" in str(caught.value)
    plates = found("pattern", tmp_path, pattern=PATTERN, renames={names[0]: "one", names[1]: "two"})
    assert {(plate.plate, plate.raw, plate.fields[0].place) for plate in plates} == {
        ("one", names[0], (0, 0)), ("two", names[1], (0, 1)),
    }  # fmt: skip
    (alone,) = found("pattern", tmp_path, pattern=PATTERN, plates={names[0]})
    assert alone.raw == names[0]
    for wrong in ({"Hela+": "x"}, {names[0]: "a b"}):
        with pytest.raises(ConfigError, match="--rename"):
            found("pattern", tmp_path, pattern=PATTERN, renames=wrong)
