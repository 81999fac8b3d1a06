"""File lists of plates: what they may be, and that a batch with them gives what it gave without."""

import copy
import hashlib
import io
import shutil
import string

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import SETTINGS, deliver, indexed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.contracts import BatchManifest
from coda.contracts.manifest import MAX_FILE_BYTES, FileEntry, PlateEntry, confined
from coda.errors import ContractError
from coda.plates import file_lists
from coda.plates.batch_files import LocalFiles
from coda.plates.batch_ingest import ingest_batch
from coda.plates.file_list_rules import problems_of_rows
from coda.plates.file_lists import SCHEMA, FileListError, files_of_plate, read_file_list, written_list
from coda.plates.workers import Workers
from coda.steps.ingest import ingest

SHA = "ab" * 32
TABLES = tuple(FileEntry(path=path, size_bytes=1, sha256=SHA) for path in ("map.csv", "load_data/p1.csv"))
LIST = "file_list/p1.parquet"


def images(*paths):
    return [FileEntry(path=path, size_bytes=number, sha256=f"{number:064x}") for number, path in enumerate(paths)]


def entry(ref):
    return PlateEntry(plate="p1", plate_map="map.csv", load_data="load_data/p1.csv", files=TABLES, file_list=ref)


def placed(folder, data, rows):
    """Put bytes where a list belongs, and return the plate that names them truly."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / "file_list").mkdir(exist_ok=True)
    (folder / LIST).write_bytes(data)
    return entry(file_lists.FileListRef(path=LIST, size_bytes=len(data), sha256=digest, rows=rows))


def parquet(columns, **options):
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer, **options)
    return buffer.getvalue()


def columns(count=3, **changes):
    sound = {
        "path": [f"images/{number}.tiff" for number in range(count)],
        "size_bytes": list(range(count)),
        "sha256": [f"{number:064x}" for number in range(count)],
    }
    return {**sound, **changes}


def test_what_was_written_is_read_and_the_same_files_give_the_same_bytes(tmp_path):
    listed = images("images/a ä.tiff", "images/b.tiff", "z/c.png")
    ref, data = written_list(LIST, listed)
    assert (ref.rows, ref.size_bytes, ref.sha256) == (3, len(data), hashlib.sha256(data).hexdigest())
    plate = placed(tmp_path, data, 3)
    assert list(files_of_plate(LocalFiles(tmp_path), plate)) == [*listed, *TABLES]
    assert read_file_list(LocalFiles(tmp_path), plate).size_bytes == 3
    assert written_list(LIST, listed)[1] == data
    assert pd.read_parquet(tmp_path / LIST).columns.tolist() == ["path", "size_bytes", "sha256"]


@pytest.mark.parametrize(
    "made",
    [
        pa.table(columns(path=pa.array("abc", pa.large_string()), size_bytes=pa.array([0, 1, 2], pa.uint16()))),
        pa.Table.from_pandas(pd.DataFrame(columns()).astype({"path": "category"}), preserve_index=False),
        pa.table(dict(reversed(list(columns(size_bytes=pa.array([0, 1, 2], pa.int8())).items())))),
    ],
)  # fmt: skip
def test_lists_of_other_programs_are_read(tmp_path, made):
    plate = placed(tmp_path, parquet(made, row_group_size=2), 3)
    assert [file.size_bytes for file in read_file_list(LocalFiles(tmp_path), plate).entries()] == [0, 1, 2]


def nested():
    return parquet(columns(path=[["a"], ["b"], ["c"]]))


def bomb():
    """A few kilobytes that stand for 6 GB of text."""
    path, digest = (pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), [text]) for text in ("x" * 60_000, SHA))
    return parquet({"path": path, "size_bytes": np.zeros(100_000, np.int64), "sha256": digest}, compression="zstd")


HOSTILE = {
    "no parquet": (b"PAR1 and then nothing PAR1", 3, "cannot be read"),
    "text": (b"path,size_bytes,sha256\n", 3, "cannot be read"),
    "cut": (parquet(columns())[:-20], 3, "cannot be read"),
    "fewer rows": (parquet(columns(2)), 3, "2 rows; expected 3"),
    "more rows": (parquet(columns(5000)), 3, "5000 rows"),
    "a column too many": (parquet(columns(more=[1, 2, 3])), 3, "more"),
    "a column too few": (parquet({"path": ["a"]}), 1, "the columns path"),
    "a column twice": (parquet(pa.table([["a"], ["b"], [1], [SHA]], [*SCHEMA.names, "path"])), 1, "sha256, path"),
    "nested": (nested(), 3, "list<"),
    "paths as numbers": (parquet(columns(path=[1, 2, 3])), 3, "int64; expected text"),
    "sizes as text": (parquet(columns(size_bytes=["1", "2", "3"])), 3, "string; expected whole numbers"),
    "sizes with fractions": (parquet(columns(size_bytes=[1.0, 2.0, 3.0])), 3, "double"),
    "a gap": (parquet(columns(sha256=[SHA, None, SHA])), 3, "1 rows without a value"),
    "an endless size": (parquet(columns(size_bytes=pa.array([1, 2, 2**64 - 1], pa.uint64()))), 3, "cannot be read"),
    "a size below 0": (parquet(columns(size_bytes=[1, 2, -1])), 3, "sizes out of range"),
    "a size too large": (parquet(columns(size_bytes=[1, 2, MAX_FILE_BYTES + 1])), 3, "sizes out of range"),
    "no digest": (parquet(columns(sha256=[SHA, SHA, SHA.upper()])), 3, "no SHA-256"),
    "a digest and a line": (parquet(columns(sha256=[SHA, SHA, SHA + "\n"])), 3, "no SHA-256"),
    "outside": (parquet(columns(path=["a", "../b", "c"])), 3, "'../b'"),
    "twice": (parquet(columns(path=["a", "b", "a"])), 3, "more than once"),
    "a table": (parquet(columns(path=["a", "b", "map.csv"])), 3, "lists itself"),
    "itself": (parquet(columns(path=["a", "b", LIST])), 3, "lists itself"),
    "a folder": (parquet(columns(path=["a", "b/c", "b"])), 3, "files and folders"),
    "a folder of a table": (parquet(columns(path=["a", "b", "load_data"])), 3, "files and folders"),
    "below a table": (parquet(columns(path=["a", "b", "map.csv/x"])), 3, "files and folders"),
    "not UTF-8": (parquet(columns(path=pa.array([b"a", b"\xff", b"c"]).view("string"))), 3, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_list_is_refused_in_words(tmp_path, name):
    data, rows, told = HOSTILE[name]
    with pytest.raises(ContractError) as caught:
        list(files_of_plate(LocalFiles(tmp_path), placed(tmp_path, data, rows)))
    assert told in str(caught.value)
    assert all(problem.remedy and "plate p1" in problem.where for problem in caught.value.problems)
    assert len(str(caught.value)) < 3000
    assert not caught.value.delivery, "another upload of the same bytes changes nothing"


def test_text_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    data = bomb()
    assert len(data) < 20_000
    with pytest.raises(FileListError, match="6006400000 bytes of text"):
        read_file_list(LocalFiles(tmp_path), placed(tmp_path, data, 100_000))


def test_all_problems_of_a_list_come_together(tmp_path):
    wrong = columns(5, path=["a", "a", "/b", "map.csv", "c"], sha256=["x"] * 5, size_bytes=[1, 2, 3, 4, -5])
    with pytest.raises(FileListError) as caught:
        read_file_list(LocalFiles(tmp_path), placed(tmp_path, parquet(wrong), 5))
    assert len(caught.value.problems) == 5
    with pytest.raises(FileListError) as caught:
        read_file_list(LocalFiles(tmp_path), placed(tmp_path, parquet({"path": [1], "size_bytes": ["x"]}), 5))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "was not delivered"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes where the manifest says"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "SHA-256 is another"),
    ],
)
def test_a_list_that_is_not_the_manifests_is_a_fault_of_the_delivery(tmp_path, spoil, told):
    plate = placed(tmp_path, parquet(columns()), 3)
    spoil(tmp_path / LIST)
    with pytest.raises(FileListError, match=told) as caught:
        read_file_list(LocalFiles(tmp_path), plate)
    assert caught.value.delivery


def allowed(path):
    try:
        confined(path)
    except ValueError:
        return False
    return True


pieces = st.sampled_from([".", "..", "/", "\\", "a", "é", "\n", "\x7f", " ", "x" * 260, "ä" * 130, "//", "./"])


@given(st.lists(st.one_of(st.text(max_size=6), st.lists(pieces, max_size=6).map("".join)), min_size=1, unique=True))
def test_paths_follow_the_same_rule_as_in_a_manifest(paths):
    """One by one, since a wrong path among right ones must not change what is said of those."""
    paths = [path for path in paths if path.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in path)]
    table = pa.table([paths, [0] * len(paths), [SHA] * len(paths)], schema=file_lists.SCHEMA)
    plate = entry(file_lists.FileListRef(path=LIST, size_bytes=1, sha256=SHA, rows=1))
    refused = [path for path in paths if not allowed(path)]
    found = [problem for problem in problems_of_rows(table, plate, "w") if "shortest form" in problem.expected]
    assert [problem.found.split()[0] for problem in found] == ([str(len(refused))] if refused else [])


names = st.text(string.ascii_lowercase[:3], min_size=1, max_size=2)


@given(st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8))
def test_lists_are_refused_where_the_same_files_in_a_manifest_are(paths):
    def document(listed, ref=None):
        plate = {"plate": "p1", "plate_map": "map.csv", "load_data": "load_data/p1.csv", "files": (*listed, *TABLES)}
        return {
            "source": "s", "batch": "b", "created_at": pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime(),
            "instrument": {"name": "n", "modality": "confocal", "pixel_size_um": 1.0}, "channels": ("DNA",),
            "plate_wells": 96, "plates": (PlateEntry(**plate, file_list=ref),), "schema_version": 2 if ref else 1,
        }  # fmt: skip

    listed = images(*paths)
    try:
        BatchManifest(**document(listed))
    except ValueError:
        sound = False
    else:
        sound = True
    ref, data = written_list(LIST, listed)
    plate = BatchManifest(**document([], ref)).plates[0]
    table = pq.read_table(io.BytesIO(data))
    assert (problems_of_rows(table, plate, "w") == []) == sound


def told_of(report):
    """Return what a report says, but for digests of the manifest."""
    said = report.model_dump(mode="json", exclude={"manifest_digest"})
    for plate in said["plates"]:
        del plate["content_key"], plate["store_bytes"]
    return said


def tables_in(folder):
    return {name: (folder / name).read_bytes() for name in ("index.parquet", "wells.parquet", "illumination.npz")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A delivery of two small plates; to be copied before it is changed."""
    return deliver(tmp_path_factory.mktemp("small") / "b1", plates=2, wells=("B02", "B03"), sites=2, shape=(32, 32))


DAMAGE = ("gone", "cut", "changed", "copied", "table")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(DAMAGE), st.integers(0, 1), st.integers(0, 19)), max_size=4))
def test_both_forms_of_a_batch_are_ingested_alike(small, small_params, tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(small.folder, folder / "b1")
    inline = type(small)(folder / "b1", copy.deepcopy(small.manifest))
    for kind, plate, number in damage:
        path = inline.images(plate)[number]
        place = inline.folder / path
        if kind == "gone":
            place.unlink(missing_ok=True)
        elif kind == "copied":
            inline.put(path, (small.folder / inline.images(0)[0]).read_bytes())
        elif kind == "table":
            inline.put(inline.manifest["plates"][plate]["load_data"], b"no table")
        elif place.exists():
            body = place.read_bytes()
            place.write_bytes(body[:-9] if kind == "cut" else body[:-9] + bytes(9))
    params = small_params("quality.plate_quorum=0.5")
    reports = [
        ingest([form.write()], folder / out, params=params, settings=SETTINGS)[0]
        for form, out in ((inline, "inline"), (indexed(inline), "indexed"))
    ]
    assert told_of(reports[0]) == told_of(reports[1])
    assert tables_in(folder / "inline/lab_a/b1") == tables_in(folder / "indexed/lab_a/b1")
    if not damage:
        assert [plate.fields_accepted for plate in reports[1].plates] == [4, 4]


def test_functions_that_are_delivered_are_found_beside_the_list(run, tmp_path):
    delivery = deliver(tmp_path / "in", wells=("B02", "B03"), shape=(32, 32))
    plate = delivery.manifest["plates"][0]
    plate["illumination"] = {}
    for stain in delivery.manifest["channels"]:
        path = f"illum/{stain}.npy"
        buffer = io.BytesIO()
        np.save(buffer, np.ones((32, 32), np.float32))
        plate["files"].append({"path": path, "size_bytes": 0, "sha256": SHA})
        plate["illumination"][stain] = path
        delivery.put(path, buffer.getvalue())
    listed = indexed(delivery)
    assert len(listed.manifest["plates"][0]["files"]) == 7
    listed.write()
    assert run(listed).plates[0].illumination == "given"


def test_a_list_that_changed_after_the_claim_refuses_its_plate_alone_until_it_is_back(run, small, tmp_path):
    shutil.copytree(small.folder, tmp_path / "in")
    delivery = indexed(type(small)(tmp_path / "in", small.manifest))
    delivery.write()
    place = tmp_path / "in" / "file_list/b1_p1.parquet"
    body = place.read_bytes()
    other = written_list("x", images("images/b1_p1/other.tiff"))[1]
    for late in (b"", other, body[:-1] + b"!"):
        place.write_bytes(late)
        report = run(delivery)
        assert [plate.outcome for plate in report.plates] == ["refused", "accepted"]
        assert "file_list/b1_p1.parquet" in report.plates[0].reason
        assert (report.plates[0].fields_expected, report.delivered) == (4, False)
    place.write_bytes(body)
    report = run(delivery)
    assert [plate.fields_accepted for plate in report.plates] == [4, 4]
    assert report.delivered


class Recording(LocalFiles):
    """Files of a folder that remember what was read."""

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = []

    def read(self, path, *, at_most):
        self.asked.append(path)
        return super().read(path, at_most=at_most)


def test_a_list_is_read_when_its_plate_is(small, small_params, tmp_path):
    shutil.copytree(small.folder, tmp_path / "in")
    delivery = indexed(type(small)(tmp_path / "in", small.manifest))
    text = (tmp_path / "in" / "manifest.json", delivery.write())[0].read_bytes()
    files = Recording(tmp_path / "in")
    with Workers(1) as workers:
        ingest_batch(text, files, tmp_path / "out", where="m", params=small_params(), workers=workers)
    second = files.asked.index("file_list/b1_p2.parquet")
    assert files.asked[0] == "file_list/b1_p1.parquet"
    assert not any("b1_p2" in path for path in files.asked[:second])
    assert any("images/b1_p1" in path for path in files.asked[:second])
