"""One table of what does not agree with a manifest."""

import copy
import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from batches import deliver, indexed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lying import drafted, lay, published

from coda.contracts import BatchManifest
from coda.contracts.manifest import FileEntry
from coda.plates.file_lists import written_list
from coda.plates.folders import folders_of
from coda.plates.manifests.check import check
from coda.plates.manifests.places import LocalPlace


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder of images with its manifest, and the same with manifest and tables elsewhere; not to be changed."""
    folder = tmp_path_factory.mktemp("scope") / "b1"
    lay(folder, sites=1, shape=(16, 16))
    place, out = LocalPlace(folder), LocalPlace(folder.parent / "out")
    published(drafted(place, folder, images_at=str(folder)), place, out, folder.parent / "work")
    published(drafted(place, folder), place, place, folder.parent / "work")
    (folder / "all_load_data.csv").unlink()
    return folder, out.folder


@pytest.fixture
def batch(built, tmp_path):
    """A copy to break: folder and manifest."""
    shutil.copytree(built[0], tmp_path / "b1")
    return tmp_path / "b1", BatchManifest.read(tmp_path / "b1" / "manifest.json")


def kinds(found):
    return [(item.kind, item.plate, item.path) for item in found.findings]


def images(manifest, plate=0):
    entry = manifest.plates[plate]
    return [file.path for file in entry.files if file.path not in entry.not_images]


def test_a_whole_batch_has_nothing_to_tell(batch):
    folder, manifest = batch
    found = check(manifest, LocalPlace(folder), None, digests=2)
    assert (found.findings, found.wrong, found.files, found.read) == ((), 0, 44, 44)
    assert found.size_bytes == sum(path.stat().st_size for path in folder.rglob("*")
                                   if path.is_file() and path.name != "manifest.json")  # fmt: skip


def test_each_kind_of_fault_is_told_once_and_the_gravest_first(batch):
    folder, manifest = batch
    gone, short, changed, copied, source = images(manifest)[:5]
    (folder / gone).unlink()
    (folder / short).write_bytes(b"x")
    body = bytearray((folder / changed).read_bytes())
    body[100] ^= 255
    (folder / changed).write_bytes(body)
    (folder / "notes.txt").write_text("x")
    for number in range(3):
        (folder / "images" / f"thumb{number}.jpg").write_text("x")
    plates = manifest.model_dump(mode="json")["plates"]
    entries = {file["path"]: file for file in plates[0]["files"]}
    entries[copied]["sha256"] = entries[source]["sha256"]
    manifest = BatchManifest.parse(json.dumps(manifest.model_dump(mode="json") | {"plates": plates}), "test")
    found = check(manifest, LocalPlace(folder), None)
    assert kinds(found) == [
        ("missing", "b1_p1", gone),
        ("wrong size", "b1_p1", short),
        ("duplicated", "b1_p1", max(copied, source)),
        ("extra", "", "images/*.jpg"),
        ("extra", "", "notes.txt"),
    ]
    assert (found.wrong, found.count("extra"), found.read) == (3, 4, 0)
    read = check(manifest, LocalPlace(folder), None, digests=2)
    contents = {item.path for item in read.findings if item.kind == "wrong content"}
    assert contents == {changed, copied}
    assert read.read == 42  # not the missing one, nor the one whose size says enough


def test_a_file_that_two_plates_list_is_told(batch):
    folder, manifest = batch
    first, second = manifest.plates
    shared = first.files[0]
    twice = manifest.model_copy(
        update={"plates": (first, second.model_copy(update={"files": (*second.files, shared)}))}
    )
    found = check(twice, LocalPlace(folder), None)
    assert [(item.kind, item.path, item.found) for item in found.findings] == [
        ("duplicated", shared.path, "listed by 2 plates")
    ]


def test_images_elsewhere_are_looked_for_there_and_tables_beside_the_manifest(built, tmp_path):
    folder, out = (shutil.copytree(place, tmp_path / place.name) for place in built)
    for name in ("load_data", "plate_map", "manifest.json"):
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    manifest = BatchManifest.read(out / "manifest.json")
    assert check(manifest, LocalPlace(out), LocalPlace(folder), digests=2).findings == ()
    (out / "plate_map" / "b1_p1.csv").unlink()
    (out / images(manifest)[0]).parent.mkdir(parents=True)
    (out / images(manifest)[0]).write_bytes((folder / images(manifest)[0]).read_bytes())
    (folder / images(manifest)[0]).unlink()
    (folder / "another_batch.tif").write_bytes(b"x")  # beside, not in the folders of this batch
    (folder / "images" / "b1_p2" / "brightfield.tif").write_bytes(b"x")
    found = check(manifest, LocalPlace(out), LocalPlace(folder))
    assert kinds(found) == [
        ("missing", "b1_p1", images(manifest)[0]),
        ("missing", "b1_p1", "plate_map/b1_p1.csv"),
        ("extra", "", "images/b1_p2/brightfield.tif"),
    ]  # fmt: skip


def findings_of(manifest, folder, elsewhere=None, digests=0):
    found = check(manifest, LocalPlace(folder), LocalPlace(elsewhere) if elsewhere else None, digests=digests)
    lists = sum(plate.file_list is not None for plate in manifest.plates)
    # a file list is a file, too
    return found.findings, found.files - lists, found.read - (lists if digests else 0)


FAULTS = ("gone", "short", "changed", "copied", "table", "extra", "odd", "twice")


def spoil(inline, small, kind, plate, number):
    """Break a delivery in one of the ways of `FAULTS`."""
    path = inline.images(plate)[number]
    place = inline.folder / path
    if kind == "gone":
        place.unlink(missing_ok=True)
    elif kind == "short":
        place.write_bytes(b"short")
    elif kind == "changed":
        place.write_bytes((place.read_bytes() if place.exists() else b"long")[:-4] + b"over")
    elif kind == "copied":
        inline.put(path, (small.folder / inline.images(0)[0]).read_bytes())
    elif kind == "table":
        (inline.folder / inline.manifest["plates"][plate]["plate_map"]).unlink(missing_ok=True)
    elif kind == "extra":
        (place.parent / f"thumb{number}.jpg").write_bytes(b"x")
    else:
        {"twice": list_twice, "odd": store_in_another_form}[kind](inline, path)


def list_twice(inline, path):
    first, second = (plate["files"] for plate in inline.manifest["plates"])
    entry = next(one for one in (*first, *second) if one["path"] == path)
    for files in (first, second):
        files[:0] = [] if entry in files else [dict(entry)]


def store_in_another_form(inline, path):
    """List a file in one normal form, and store it in the other."""
    stored, listed = (f"{Path(path).stem}{unicodedata.normalize(form, 'é')}.tiff" for form in ("NFD", "NFC"))
    place = inline.folder / path
    if place.exists():
        place.rename(place.with_name(stored))
    for one in (one for plate in inline.manifest["plates"] for one in plate["files"] if one["path"] == path):
        one["path"] = str(PurePosixPath(path).with_name(listed))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 1), st.integers(0, 9)), max_size=4), st.booleans())
def test_both_forms_of_a_batch_are_checked_alike(small, tmp_path_factory, faults, apart):
    folder = tmp_path_factory.mktemp("forms") / "b1"
    shutil.copytree(small.folder, folder)
    inline = type(small)(folder, copy.deepcopy(small.manifest))
    for fault in faults:
        spoil(inline, small, *fault)
    images_at = None
    if apart:
        images_at = folder.parent / "scope"
        images_at.mkdir()
        (folder / "images").rename(images_at / "images")
    before = BatchManifest.read(Path(inline.write()))
    expected = [findings_of(before, folder, images_at, digests) for digests in (0, 2)]
    after = BatchManifest.read(Path(indexed(inline).write()))
    assert [findings_of(after, folder, images_at, digests) for digests in (0, 2)] == expected


@pytest.fixture
def small(tmp_path_factory):
    return deliver(tmp_path_factory.mktemp("small") / "b1", plates=2, wells=("B02",), sites=2, shape=(8, 8))


def test_a_file_list_that_cannot_be_used_is_one_finding_of_its_plate(small):
    delivery = indexed(small)
    manifest = BatchManifest.read(Path(delivery.write()))
    place = delivery.folder / "file_list/b1_p1.parquet"
    body = place.read_bytes()
    spoilt = {"missing": None, "wrong size": body + b"x", "wrong content": body[:-1] + b"x"}
    for kind, data in spoilt.items():
        place.unlink() if data is None else place.write_bytes(data)
        for digests in (0, 2):
            found = check(manifest, LocalPlace(delivery.folder), None, digests=digests)
            wrong = [(item.kind, item.plate, item.path) for item in found.findings if item.kind != "extra"]
            assert wrong == [(kind, "b1_p1", "file_list/b1_p1.parquet")]


def test_a_list_whose_rows_break_a_rule_is_told_with_the_rule(small):
    delivery = indexed(small)
    images = [FileEntry(path=path, size_bytes=1, sha256="ab" * 32) for path in ("a", "a")]
    ref, data = written_list("file_list/b1_p1.parquet", images)
    delivery.put(ref.path, data, list_it=False)
    delivery.manifest["plates"][0]["file_list"] = ref.model_dump()
    found = check(BatchManifest.read(Path(delivery.write())), LocalPlace(delivery.folder), None)
    (finding,) = (item for item in found.findings if item.kind != "extra")
    assert (finding.kind, finding.path) == ("wrong content", ref.path)
    assert "more than once ('a')" in finding.found


class Counting(LocalPlace):
    """A place that counts what is read and listed."""

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = Counter()

    def read(self, path, *, at_most):
        self.asked[path] += 1
        return super().read(path, at_most=at_most)

    def files(self, under=""):
        raise AssertionError("a whole listing in memory")


def test_a_check_of_sizes_reads_lists_alone_and_keeps_no_listing(small):
    delivery = indexed(small)
    manifest = BatchManifest.read(Path(delivery.write()))
    place = Counting(delivery.folder)
    assert check(manifest, place, None).findings == ()
    assert place.asked == {f"file_list/b1_p{number}.parquet": 2 for number in (1, 2)}


def test_folders_of_a_plate_are_few_and_hold_everything():
    assert folders_of(["a/x.tif", "a/b/y.tif", "c/z.tif"]) == ("a", "c")
    assert folders_of(["x.tif", "a/y.tif"]) == ("",)
    assert folders_of([]) == ()
    assert folders_of([f"plate/well{k}/x.tif" for k in range(100)]) == ("plate",)
    assert folders_of([f"plate{k}/x.tif" for k in range(100)]) == ("",)


NAMES = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(NAMES, min_size=1, max_size=12), st.integers(1, 4))
def test_folders_hold_every_file_and_none_holds_another(paths, most):
    folders = folders_of(paths, most)
    assert 0 < len(folders) <= most
    for path in paths:
        assert sum(folder == "" or path.startswith(f"{folder}/") for folder in folders) == 1
