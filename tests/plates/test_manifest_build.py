"""Manifests of plates that lie somewhere: what they say, what interrupts them, what they never replace."""

import hashlib
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from batches import SETTINGS
from lying import IDENTITY, drafted, image_entries, lay, published, rows_of

from coda.contracts import BatchManifest
from coda.errors import ConfigError, ContractError, TransientError
from coda.plates import file_lists
from coda.plates.batch_files import LocalFiles
from coda.plates.file_lists import files_of_plate
from coda.plates.manifests import draft as draft_module
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.places import LocalPlace
from coda.plates.readers import assemble
from coda.plates.readers.listing import FieldListing, ImageRef, PlateListing
from coda.plates.tree import TreeFile
from coda.steps.ingest import ingest


@pytest.fixture
def lying(tmp_path):
    folder = tmp_path / "scope" / "b1"
    delivery = lay(folder)
    return delivery, folder, LocalPlace(folder)


class Counting(LocalPlace):
    """A place that counts what is read of it, and goes away after so many files."""

    def __init__(self, folder, until=10**9):
        super().__init__(folder)
        self.read_files, self.until = [], until

    def blocks(self, path):
        if len(self.read_files) >= self.until:
            raise TransientError("The storage is away.")
        self.read_files.append(path)
        yield from super().blocks(path)


def test_the_manifest_says_what_the_producer_of_the_same_plates_says(lying, tmp_path):
    delivery, folder, place = lying
    made = drafted(place, folder)
    manifest, written, told = published(made, place, place, tmp_path / "work")
    assert written
    assert image_entries(manifest) == image_entries(delivery.manifest)
    assert BatchManifest.read(folder / "manifest.json") == manifest
    assert (manifest.batch_id, manifest.plate_wells, manifest.images_at) == ("lab_a/b1", 96, None)
    assert [plate.sites_per_well for plate in manifest.plates] == [2, 2]
    assert sum(size for _, size in told) == made.size_bytes
    for plate in manifest.plates:
        for file in plate.files:
            body = (folder / file.path).read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (file.size_bytes, file.sha256)
        assert rows_of(folder / plate.plate_map)[0]["Metadata_Compound"] == "DMSO"


def test_the_built_batch_gives_the_stores_that_the_delivered_one_gives(lying, dataset, small_params, tmp_path):
    _, folder, place = lying
    out = LocalPlace(tmp_path / "landing")
    published(drafted(place, folder, images_at=str(folder)), place, out, tmp_path / "work")
    settings = SETTINGS.model_copy(update={"image_roots": str(tmp_path / "scope")})
    (report,) = ingest([str(out.folder / "manifest.json")], tmp_path / "ds", params=small_params(), settings=settings)
    assert (report.fields_accepted, report.delivered, report.problems) == (16, True, ())
    same = list((dataset / "lab_a" / "b1").glob("*.parquet"))
    assert len(same) == 2
    for path in same:
        assert (tmp_path / "ds" / "lab_a" / "b1" / path.name).read_bytes() == path.read_bytes()


def test_an_interrupted_build_goes_on_where_it_stopped(lying, tmp_path):
    _, folder, _ = lying
    away = Counting(folder, until=30)
    with pytest.raises(TransientError):
        published(drafted(away, folder), away, away, tmp_path / "work", workers=1)
    assert not (folder / "manifest.json").exists()
    kept = next((tmp_path / "work").iterdir())
    kept.write_text(kept.read_text()[:-25])  # the last line was being written when the process died
    back = Counting(folder)
    manifest, _, told = published(drafted(back, folder), back, back, tmp_path / "work", workers=1)
    assert len(back.read_files) == 80 - 29
    assert len(told) == 80
    assert all(
        hashlib.sha256((folder / file.path).read_bytes()).hexdigest() == file.sha256
        for plate in manifest.plates
        for file in plate.files
    )
    again = Counting(folder)
    assert not published(drafted(again, folder), again, again, tmp_path / "work")[1]
    assert again.read_files == []


def test_a_file_that_was_written_again_is_read_again(lying, tmp_path):
    _, folder, place = lying
    manifest, *_ = published(drafted(place, folder), place, place, tmp_path / "work")
    victim = folder / next(iter(image_entries(manifest)))
    body = bytearray(victim.read_bytes())
    body[-1] ^= 1
    victim.write_bytes(body)  # the same size, another time
    with pytest.raises(ConfigError, match="a manifest with other digests"):
        published(drafted(place, folder), place, place, tmp_path / "work")
    changed, *_ = published(drafted(place, folder), place, place, tmp_path / "work", replacing=True)
    assert image_entries(changed)[str(victim.relative_to(folder))][1] == hashlib.sha256(body).hexdigest()


def test_digests_of_damaged_lines_and_of_other_marks_are_never_used(tmp_path):
    with KeptDigests(tmp_path, "s3://x") as kept:
        kept.keep(TreeFile("a", 1), "m", "d" * 64)
        kept.keep(TreeFile("b", 1), "", "e" * 64)  # without a mark nobody knows whether it changed
    text = kept.path.read_text()
    kept.path.write_text(
        text + '["a", 1, "m"]\n[1, 2, 3, 4]\nnull\n{"a": 1}\n\xff\n["c", 1, "m", "' + "f" * 64 + '"]\n["d", 1,'
    )
    with KeptDigests(tmp_path, "s3://x") as again:
        found = {name: again.find(TreeFile(name, 1), "m") for name in "abcd"}
        assert found == {"a": "d" * 64, "b": None, "c": "f" * 64, "d": None}
        assert again.find(TreeFile("a", 2), "m") is again.find(TreeFile("a", 1), "n") is None
        again.keep(TreeFile("d", 1), "m", "a" * 64)
    with KeptDigests(tmp_path, "s3://x") as last:
        assert last.find(TreeFile("d", 1), "m") == "a" * 64
    with KeptDigests(tmp_path, "s3://y") as other:
        assert other.find(TreeFile("a", 1), "m") is None


def test_absent_images_are_named_and_left_out(tmp_path):
    folder = tmp_path / "scope" / "b1"
    delivery = lay(folder, plates=1)
    place = LocalPlace(folder)
    gone = delivery.images()[3]
    (folder / gone).unlink()
    made = drafted(place, folder)
    (item,) = made.absent
    assert (item.plate, item.well, item.site, item.stain) == ("b1_p1", "B02", 1, "AGP")
    manifest, *_ = published(made, place, place, tmp_path / "work")
    assert image_entries(manifest).keys() == image_entries(delivery.manifest).keys() - {gone}


def test_the_image_of_another_plate_never_stands_for_a_lost_one(lying):
    delivery, folder, place = lying
    lost, same_name = delivery.images(0)[3], delivery.images(1)[3]
    assert lost.rpartition("/")[2] == same_name.rpartition("/")[2]
    (folder / lost).unlink()
    made = drafted(place, folder)
    assert ("b1_p1", "B02", 1, "AGP") in {(item.plate, item.well, item.site, item.stain) for item in made.absent}
    first = made.plates[0]
    assert "AGP" not in next(item for item in first.fields if (item.place, item.site) == ((1, 1), 1)).files


def test_a_file_named_for_two_images_is_neither(lying):
    delivery, folder, place = lying
    table = folder / "all_load_data.csv"
    one, other = (name.rpartition("/")[2] for name in (delivery.images()[0], delivery.images()[5]))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1].replace(one, other), *lines[2:]]))
    made = drafted(place, folder)
    assert {(item.site, item.stain) for item in made.absent} == {(1, "DNA"), (2, "DNA")}
    assert delivery.images()[5] not in {file.path for file in made.files}


def test_another_manifest_is_only_replaced_when_asked_for_and_before_anything_is_read(lying, tmp_path):
    _, folder, place = lying
    published(drafted(place, folder), place, place, tmp_path / "work")
    first = (folder / "manifest.json").read_bytes()
    other = replace(IDENTITY, instrument="another")
    counting = Counting(folder)
    with pytest.raises(ConfigError, match=r"the manifest of lab_a/b1 with other contents"):
        published(drafted(counting, folder, identity=other), counting, counting, tmp_path / "elsewhere")
    assert counting.read_files == []
    assert (folder / "manifest.json").read_bytes() == first
    assert published(drafted(place, folder, identity=other), place, place, tmp_path / "work", replacing=True)[1]
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="a file that is no manifest"):
        published(drafted(place, folder), place, place, tmp_path / "work")


def test_a_table_of_somebody_else_is_not_overwritten(lying, tmp_path):
    _, folder, place = lying
    out = LocalPlace(tmp_path / "out")
    (out.folder / "plate_map").mkdir(parents=True)
    (out.folder / "plate_map" / "b1_p2.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"plate_map/b1_p2\.csv: found another file"):
        published(drafted(place, folder), place, out, tmp_path / "work")
    assert [path.name for path in out.folder.rglob("*.csv")] == ["b1_p2.csv"]
    published(drafted(place, folder), place, out, tmp_path / "work", replacing=True)


def test_a_manifest_that_came_meanwhile_is_left(lying, tmp_path):
    _, folder, place = lying

    class Raced(LocalPlace):
        def create(self, path, data, content_type):
            super().create(path, b"theirs", content_type)
            return super().create(path, data, content_type)

    out = Raced(tmp_path / "out")
    with pytest.raises(ConfigError, match="came meanwhile"):
        published(drafted(place, folder), place, out, tmp_path / "work")
    assert (out.folder / "manifest.json").read_bytes() == b"theirs"
    assert not list(out.folder.rglob("*.part"))


def test_files_that_change_or_vanish_while_they_are_read_are_told_together(lying, tmp_path):
    delivery, folder, place = lying
    made = drafted(place, folder)
    grown, gone = (folder / delivery.images()[k] for k in (0, 1))
    grown.write_bytes(grown.read_bytes() + b"x")
    gone.unlink()
    with pytest.raises(ContractError) as caught:
        published(made, place, place, tmp_path / "work")
    text = str(caught.value)
    assert "another time of writing" in text
    assert "no such file" in text
    assert len(caught.value.problems) == 2
    assert not (folder / "manifest.json").exists()


def test_planes_of_larger_files_are_no_files(lying, monkeypatch):
    _, folder, place = lying
    plate = PlateListing("p1", (FieldListing((0, 0), 1, {"DNA": ImageRef("all.ome.tiff", 3)}),))
    monkeypatch.setattr(draft_module, "find_plates", lambda *_: [plate])
    with pytest.raises(ContractError, match=r"planes of larger files .*coda plates import"):
        drafted(place, folder)


def listed_in(folder):
    """Return plate -> path, size and digest of the images in its file list."""
    manifest = BatchManifest.read(folder / "manifest.json")
    return {
        plate.plate: list(files_of_plate(LocalFiles(folder), plate))[: plate.file_list.rows]
        for plate in manifest.plates
    }


def test_a_large_batch_gets_a_file_list_for_each_plate(lying, tmp_path, monkeypatch):
    """The same images as in the manifest that lists them itself, and nothing is written again when nothing changed."""
    _, folder, place = lying
    inline, _, _ = published(drafted(place, folder), place, LocalPlace(tmp_path / "inline"), tmp_path / "work")
    monkeypatch.setattr(file_lists, "MOST_INLINE", 10)
    out = LocalPlace(tmp_path / "out")
    manifest, written, _ = published(drafted(place, folder), place, out, tmp_path / "work")
    assert written
    assert (inline.schema_version, manifest.schema_version) == (1, 2)
    assert BatchManifest.read(out.folder / "manifest.json") == manifest
    assert listed_in(out.folder) == {
        plate.plate: [file for file in plate.files if file.path not in plate.not_images] for plate in inline.plates
    }
    assert [plate.files for plate in manifest.plates] == [
        tuple(file for file in plate.files if file.path in plate.not_images) for plate in inline.plates
    ]
    times = {path: path.stat().st_mtime_ns for path in out.folder.rglob("*")}
    again, written, _ = published(drafted(place, folder), place, out, tmp_path / "work")
    assert (again, written) == (manifest, False)
    assert {path: path.stat().st_mtime_ns for path in out.folder.rglob("*")} == times


def test_lists_that_another_release_wrote_say_the_same(lying, tmp_path, monkeypatch):
    """Their bytes may differ (another version of parquet's writer); what they list counts, and they are left alone."""
    _, folder, place = lying
    monkeypatch.setattr(file_lists, "MOST_INLINE", 10)
    out = LocalPlace(tmp_path / "out")
    write = pq.write_table
    with monkeypatch.context() as other:
        other.setattr(
            file_lists.pq, "write_table", lambda *words, **how: write(*words, **{**how, "compression": "gzip"})
        )
        old, _, _ = published(drafted(place, folder), place, out, tmp_path / "work")
    manifest, written, _ = published(drafted(place, folder), place, out, tmp_path / "work")
    assert (manifest, written) == (old, False)
    assert listed_in(out.folder)


def test_a_file_list_replaces_no_other_file_unless_it_is_asked_to(lying, tmp_path, monkeypatch):
    _, folder, place = lying
    monkeypatch.setattr(file_lists, "MOST_INLINE", 10)
    out = LocalPlace(tmp_path / "out")
    out.put("file_list/b1_p1.parquet", b"something else", "")
    with pytest.raises(ConfigError, match=r"file_list/b1_p1.parquet: found another file.*--replace"):
        published(drafted(place, folder), place, out, tmp_path / "work")
    assert not (out.folder / "manifest.json").exists()
    manifest, _, _ = published(drafted(place, folder), place, out, tmp_path / "work", replacing=True)
    # a list that was changed is not the one of this build
    (out.folder / "file_list/b1_p1.parquet").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="There is another manifest"):
        published(drafted(place, folder), place, out, tmp_path / "work")
    again, written, _ = published(drafted(place, folder), place, out, tmp_path / "work", replacing=True)
    assert written
    assert again.plates == manifest.plates
    assert listed_in(out.folder)


def test_a_plate_with_more_files_than_any_is_refused_before_hours_of_reading(lying, monkeypatch):
    _, folder, place = lying
    monkeypatch.setattr(assemble, "MAX_FILES_OF_A_PLATE", 20)
    with pytest.raises(ContractError, match=r"plate b1_p1: found 42 files; expected at most 20.*--channel"):
        drafted(place, folder)


def test_the_plate_map_tells_the_format_of_a_plate_that_was_imaged_in_part(lying):
    _, folder, place = lying
    table = folder.parent / "wells.csv"
    unsaid = replace(IDENTITY, plate_wells=None)
    assert drafted(place, folder, identity=unsaid).described()[0].plate_wells == 96
    table.write_text(table.read_text() + "\nb1_p1,P24,,,empty,\n")
    made = drafted(place, folder, identity=unsaid)
    assert made.described()[0].plate_wells == 384
    assert [remark for remark in made.remarks if remark.startswith("Plate format")] == [
        "Plate format: 384 wells, the smallest that holds the wells of the plate maps; if wrong, --plate-wells."
    ]


def test_only_the_plates_that_are_named(lying):
    _, folder, place = lying
    assert [plate.plate for plate in drafted(place, folder, plates=frozenset({"b1_p2"})).plates] == ["b1_p2"]


def test_names_that_no_manifest_may_hold_are_refused_before_anything_is_read(lying, monkeypatch):
    _, folder, _ = lying
    (folder / "images" / "back\\slash.tiff").write_bytes(b"x")
    plate = PlateListing("p1", (FieldListing((0, 0), 1, {"DNA": ImageRef("images/back\\slash.tiff")}),))
    monkeypatch.setattr(draft_module, "find_plates", lambda *_: [plate])
    monkeypatch.setattr(draft_module, "plate_maps", lambda *_: ({"p1": "x"}, []))
    counting = Counting(folder)
    with pytest.raises(ContractError, match=r"slash\.tiff.*expected a relative path below the batch"):
        drafted(counting, folder)
    assert counting.read_files == []


def test_a_killed_write_leaves_no_half_manifest(tmp_path, monkeypatch):
    place = LocalPlace(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coda.plates.manifests.places.os.link", full)
    assert place.create("manifest.json", json.dumps({}).encode(), "application/json")  # a disk without links
    assert not place.create("manifest.json", b"other", "application/json")
    assert (tmp_path / "manifest.json").read_bytes() == b"{}"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
