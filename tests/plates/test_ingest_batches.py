"""Ingest of whole deliveries: sound, broken, interrupted, repeated."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from batches import SETTINGS, deliver, tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.contracts import STAINS, IngestReport
from coda.errors import CodaError, ConfigError, ContractError, TransientError
from coda.plates import batch_ingest as batch_module
from coda.plates.batch_files import LocalFiles, OutsideBatchError
from coda.plates.batch_ingest import ingest_batch
from coda.plates.dataset import open_batches
from coda.plates.index import record_of
from coda.plates.outputs import forget_unseen_examples
from coda.plates.workers import Workers
from coda.steps.ingest import ingest


def everything_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sound_batch_is_read_whole(dataset, delivered):
    folder = dataset / "lab_a" / "b1"
    report = IngestReport.read(folder / "ingest.json")
    assert (report.fields_expected, report.fields_accepted) == (16, 16)
    assert report.problems == report.quarantined == ()
    assert report.channels == STAINS
    assert [plate.illumination for plate in report.plates] == ["estimated"] * 2
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "manifest.json", "ingest.json", "index.parquet", "wells.parquet", "illumination.npz",
        "b1_p1.ome.zarr.zip", "b1_p2.ome.zarr.zip", "examples/b1_p1.npz", "examples/b1_p2.npz",
    }  # fmt: skip
    assert (folder / "manifest.json").read_bytes() == Path(delivered.uri).read_bytes()


def test_the_index_holds_a_valid_record_for_each_field_and_its_statistics(dataset):
    index = pd.read_parquet(dataset / "lab_a" / "b1" / "index.parquet")
    assert index["image_id"].is_unique
    for row in index.to_dict("records"):
        assert record_of(row).image_id == row["image_id"]
    assert {f"QC_focus_{stain}" for stain in STAINS} <= set(index.columns)
    assert index.filter(like="QC_").notna().all().all()
    assert (index["Metadata_PixelSize_um"] == 1.2).all()
    assert not any("moa" in column.lower() for column in index.columns)
    order = index[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]]
    assert order.equals(order.sort_values(list(order.columns)).reset_index(drop=True))


def test_wells_examples_and_illumination_lie_beside_it(dataset):
    folder = dataset / "lab_a" / "b1"
    wells = pd.read_parquet(folder / "wells.parquet")
    assert len(wells) == 8
    assert wells["fields_accepted"].tolist() == [2] * 8
    assert wells["Metadata_Dose_uM"].isna().sum() == 2
    with np.load(folder / "examples" / "b1_p1.npz") as shown:
        assert shown["raw"].shape == shown["corrected"].shape == (2, 5, 32, 40)
        assert len(set(shown["image_id"].tolist())) == 2
    with np.load(folder / "illumination.npz") as stored:
        assert stored["b1_p2/function"].shape == (5, 16, 20)
        assert stored["b1_p2/high"].shape == (5,)


def test_only_plates_that_a_report_shows_keep_their_pictures(tmp_path):
    (tmp_path / "examples").mkdir()
    for number in range(12):
        (tmp_path / "examples" / f"p{number:02d}.npz").write_bytes(b"")
    forget_unseen_examples(tmp_path)
    assert sorted(path.stem for path in (tmp_path / "examples").iterdir()) == [f"p{n:02d}" for n in range(8)]
    forget_unseen_examples(tmp_path / "nothing")


def test_results_do_not_depend_on_the_number_of_workers(dataset, delivered, run, tmp_path, monkeypatch):
    monkeypatch.setattr("coda.steps.ingest.SMALL_CALL", 1)
    run(delivered, "ingest.workers=2", out=tmp_path / "two")
    assert everything_in(tmp_path / "two") == everything_in(dataset)


BREAKAGES = {
    "is neither TIFF nor PNG": lambda d, path: d.put(path, b"hello"),
    "truncated": lambda d, path: d.put(path, (d.folder / path).read_bytes()[:-300]),
    "all zero": lambda d, path: d.put(path, tiff(np.zeros((64, 80), np.uint16))),
    "the value 77": lambda d, path: d.put(path, tiff(np.full((64, 80), 77, np.uint16))),
    "64 x 64 pixels; the plate's fields are 64 x 80": lambda d, path: d.put(path, tiff(np.eye(64, dtype=np.uint16))),
    "floating-point": lambda d, path: d.put(path, tiff(np.eye(64, 80, dtype=np.float32))),
    "not delivered": lambda d, path: (d.folder / path).unlink(),
    "broken or repeated upload": lambda d, path: d.put(path, (d.folder / path).read_bytes()[:-1], list_it=False),
    "SHA-256": lambda d, path: d.put(path, (d.folder / path).read_bytes()[:-1] + b"?", list_it=False),
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_a_bad_file_sets_its_field_aside_and_the_plate_goes_on(reason, run, tmp_path):
    delivery = deliver(tmp_path / "in", sites=3)
    path = delivery.images()[7]
    BREAKAGES[reason](delivery, path)
    delivery.write()
    report = run(delivery)
    assert report.fields_accepted == 11
    (aside,) = report.quarantined
    assert reason in aside.reason
    assert (aside.path, aside.plate, aside.well, aside.site, aside.channel) == (path, "b1_p1", "B02", 2, "RNA")
    assert report.problems == ()
    assert report.plates[0].outcome == "accepted"


def test_a_bad_field_has_no_part_in_the_illumination_of_its_plate(run, tmp_path):
    bright = deliver(tmp_path / "bright", sites=3)
    bright.put(bright.images()[0], tiff(np.full((64, 80), 60000, np.uint16)))
    bright.write()
    absent = deliver(tmp_path / "absent", sites=3)
    (absent.folder / absent.images()[0]).unlink()
    run(bright, out=tmp_path / "one")
    run(absent, out=tmp_path / "two")
    with (
        np.load(tmp_path / "one/lab_a/b1/illumination.npz") as one,
        np.load(tmp_path / "two/lab_a/b1/illumination.npz") as two,
    ):
        for name in one.files:
            assert np.array_equal(one[name], two[name]), name


def test_a_plate_below_its_quorum_is_refused_alone(run, tmp_path):
    delivery = deliver(tmp_path / "in", plates=2)
    for path in delivery.images(plate=0)[:6]:
        (delivery.folder / path).unlink()
    report = run(delivery)
    assert [plate.outcome for plate in report.plates] == ["refused", "accepted"]
    assert "Only 6 of 8 expected fields can be read; at least 90% are needed" in report.plates[0].reason
    assert report.fields_accepted == 8
    assert len(report.quarantined) == 2
    folder = tmp_path / "out/lab_a/b1"
    assert [path.name for path in folder.glob("*.zip")] == ["b1_p2.ome.zarr.zip"]
    wells = pd.read_parquet(folder / "wells.parquet")
    assert wells.groupby("Metadata_Plate")["fields_accepted"].sum().to_dict() == {"b1_p1": 0, "b1_p2": 8}


def test_a_plate_that_is_not_there_at_all_is_refused_with_every_reason(run, tmp_path):
    delivery = deliver(tmp_path / "in", plates=2)
    for path in [*delivery.images(0), "load_data/b1_p1.csv", "platemaps/b1_p1.csv"]:
        (delivery.folder / path).unlink()
    report = run(delivery)
    assert [plate.outcome for plate in report.plates] == ["refused", "accepted"]
    assert {problem.plate for problem in report.problems} == {"b1_p1"}
    assert len(report.problems) == 2
    assert report.plates[0].fields_expected == 8
    assert report.batch_problems == ()


def test_only_the_stains_asked_for_are_stored(run, delivered):
    report = run(delivered, "ingest.channels=[DNA, ER]", "extractor.channels=[DNA]")
    assert report.channels == ("DNA", "ER")
    assert report.fields_accepted == 16


def test_a_batch_without_a_required_stain_reads_nothing(run, tmp_path):
    delivery = deliver(tmp_path / "in")
    delivery.manifest["channels"] = ["DNA", "ER", "RNA", "AGP"]
    delivery.write()
    report = run(delivery)
    assert report.fields_accepted == 0
    (problem,) = report.batch_problems
    assert "missing: Mito" in problem.expected
    assert report.plates[0].outcome == "refused"
    assert len(pd.read_parquet(tmp_path / "out/lab_a/b1/index.parquet")) == 0
    assert open_batches(tmp_path / "out")[0].ingest == report


def replace_text(delivery, path, old, new):
    text = (delivery.folder / path).read_text()
    assert old in text
    delivery.put(path, text.replace(old, new).encode())


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("load_data/b1_p1.csv", "OrigMito", "OrigActin", "unknown channel 'Actin'"),
        ("load_data/b1_p1.csv", "b1_p1,C03,1", "b1_p1,C09,1", "C09"),
        ("load_data/b1_p1.csv", "b1_p1,C03,1", "b1_p1,C03,9", None),
        ("platemaps/b1_p1.csv", "trt,5", "cure,5", "pert_type 'cure'"),
        ("platemaps/b1_p1.csv", "C03,cpd3", "Z03,cpd3", "Z03"),
        ("platemaps/b1_p1.csv", "Metadata_Treatment", "Treatment", "Metadata_Treatment"),
        ("load_data/b1_p1.csv", "Metadata_Well", "\xff", "Metadata_Well"),
    ],
)
def test_tables_that_do_not_fit_refuse_their_plate(path, old, new, told, run, tmp_path):
    delivery = deliver(tmp_path / "in")
    replace_text(delivery, path, old, new)
    delivery.write()
    report = run(delivery)
    if told is None:
        assert report.fields_accepted == 8, "sites may have any numbers"
        return
    assert report.plates[0].outcome == "refused"
    assert told in " ".join(str(problem) for problem in report.problems)
    assert all(problem.plate == "b1_p1" and problem.remedy for problem in report.problems)


def test_fields_that_load_data_leaves_out_count_as_missing(run, tmp_path):
    delivery = deliver(tmp_path / "in")
    text = (delivery.folder / "load_data/b1_p1.csv").read_text().splitlines()
    delivery.put("load_data/b1_p1.csv", "\n".join(text[:-1]).encode())
    delivery.write()
    report = run(delivery, "quality.plate_quorum=0.5")
    assert (report.fields_expected, report.fields_accepted) == (8, 7)
    assert "1 of 2 fields of this well are not in load_data" in report.quarantined[0].reason


def test_one_file_given_for_two_stains_is_set_aside(run, tmp_path):
    delivery = deliver(tmp_path / "in")
    replace_text(delivery, "load_data/b1_p1.csv", "B02_s1_ER.tiff", "B02_s1_DNA.tiff")
    delivery.write()
    report = run(delivery, "quality.plate_quorum=0.5")
    assert report.fields_accepted == 7
    assert "several fields or stains" in report.quarantined[0].reason


@pytest.mark.parametrize("path", ["../secret.tiff", "/etc/passwd", "images/../../x.tiff", "a\\b.tiff", ""])
def test_a_manifest_whose_paths_lead_outside_is_refused(path, run, tmp_path):
    delivery = deliver(tmp_path / "in")
    delivery.manifest["plates"][0]["files"][0]["path"] = path
    delivery.write()
    with pytest.raises(ContractError, match="relative path below the batch"):
        run(delivery)


def test_a_link_that_leads_outside_is_not_followed(run, tmp_path):
    delivery = deliver(tmp_path / "in")
    path = delivery.folder / delivery.images()[0]
    secret = tmp_path / "secret.tiff"
    path.replace(secret)
    path.symlink_to(secret)
    report = run(delivery, "quality.plate_quorum=0.5")
    assert "leads out of the folder" in report.quarantined[0].reason
    with pytest.raises(OutsideBatchError):
        LocalFiles(delivery.folder).read("../secret.tiff", at_most=100)


def test_every_bad_manifest_of_a_call_is_told_at_once(small_params, tmp_path, delivered):
    (tmp_path / "broken.json").write_text("{")
    uris = [str(tmp_path / "broken.json"), str(tmp_path / "none" / "manifest.json"), delivered.uri, delivered.uri]
    with pytest.raises(ContractError) as caught:
        ingest(uris, tmp_path / "out", params=small_params(), settings=SETTINGS)
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError):
        ingest([], tmp_path / "out", params=small_params(), settings=SETTINGS)


class Faulty(LocalFiles):
    """Files that stop being available after some reads."""

    def __init__(self, folder, reads):
        super().__init__(folder)
        self.reads = reads

    def read(self, path, *, at_most):
        self.reads -= 1
        if self.reads < 0:
            message = "the storage is away"
            raise TransientError(message)
        return super().read(path, at_most=at_most)


def ingest_from(files, delivery, out, params):
    with Workers(1) as workers:
        return ingest_batch(Path(delivery.uri).read_bytes(), files, out, where="m", params=params, workers=workers)


def test_wherever_the_storage_goes_away_a_second_call_gives_the_same_result(dataset, delivered, small_params, tmp_path):
    whole = everything_in(dataset)
    counting = Faulty(delivered.folder, 10**9)
    ingest_from(counting, delivered, tmp_path / "count", small_params())
    total = 10**9 - counting.reads
    for reads in (1, 30, total // 2 + 1, total - 1):
        out = tmp_path / f"after{reads}"
        with pytest.raises(TransientError):
            ingest_from(Faulty(delivered.folder, reads), delivered, out, small_params())
        folder = out / "lab_a" / "b1"
        assert not list(folder.rglob("*.part"))
        assert not (folder / "ingest.json").exists()
        assert open_batches(out) == []
        resumed = Faulty(delivered.folder, 10**9)
        ingest_from(resumed, delivered, out, small_params())
        assert everything_in(out) == whole
        if reads > total // 2:
            assert 10**9 - resumed.reads < total * 0.6, "the finished plate was not read again"


def test_a_finished_batch_is_not_read_again_unless_something_changed(delivered, small_params, tmp_path):
    out = tmp_path / "out"
    first = ingest_from(LocalFiles(delivered.folder), delivered, out, small_params())
    assert ingest_from(Faulty(delivered.folder, 0), delivered, out, small_params()) == first
    with pytest.raises(TransientError):
        ingest_from(Faulty(delivered.folder, 0), delivered, out, small_params("ingest.high_percentile=99.0"))


def test_a_repeated_upload_is_taken_although_the_manifest_is_the_same(run, tmp_path):
    delivery = deliver(tmp_path / "in", sites=3)
    path = delivery.folder / delivery.images()[0]
    data = path.read_bytes()
    path.unlink()
    assert run(delivery).fields_accepted == 11
    path.write_bytes(data)
    assert run(delivery).fields_accepted == 12


def test_a_store_that_was_lost_is_made_again(run, tmp_path):
    delivery = deliver(tmp_path / "in")
    run(delivery)
    store = tmp_path / "out/lab_a/b1/b1_p1.ome.zarr.zip"
    data = store.read_bytes()
    store.write_bytes(data[:-1])
    run(delivery)
    assert store.read_bytes() == data


@pytest.mark.parametrize("name", ["write_parquet", "_replace", "_join_illumination"])
def test_a_full_disk_is_told_with_its_place_and_leaves_no_report(name, run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "out"))

    delivery = deliver(tmp_path / "in")
    monkeypatch.setattr(batch_module, name, full)
    with pytest.raises(CodaError, match="No space left") as caught:
        run(delivery)
    assert str(tmp_path) in caught.value.problems[0].where
    assert "Free space" in caught.value.problems[0].remedy
    assert not (tmp_path / "out/lab_a/b1/ingest.json").exists()
    monkeypatch.undo()
    assert run(delivery).fields_accepted == 8


def test_a_disk_that_fills_while_a_store_is_written_leaves_no_store(run, tmp_path, monkeypatch):
    from coda.plates.store import PlateStoreWriter

    put = PlateStoreWriter._put

    def fill(self, name, data):
        if name.startswith("C/"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, name, data)

    delivery = deliver(tmp_path / "in")
    monkeypatch.setattr(PlateStoreWriter, "_put", fill)
    with pytest.raises(CodaError, match="No space left"):
        run(delivery)
    assert not list((tmp_path / "out").rglob("*.zip*"))


def test_progress_reaches_its_end(delivered, small_params, tmp_path):
    told = []
    text = Path(delivered.uri).read_bytes()
    ingest_batch(text, LocalFiles(delivered.folder), tmp_path, where="manifest", params=small_params(),
                 workers=Workers(1), progress=lambda done, total, text: told.append((done, total, text)))  # fmt: skip
    assert told[-1][0] == told[-1][1] == 32
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert "b1_p2" in told[-1][2]


def test_a_fault_of_the_storage_comes_back_from_a_worker_process(delivered, small_params, tmp_path):
    text = Path(delivered.uri).read_bytes()
    files = Faulty(delivered.folder, 4)
    with Workers(2) as workers, pytest.raises(TransientError, match="storage is away"):
        ingest_batch(text, files, tmp_path, where="m", params=small_params("ingest.workers=2"), workers=workers)
    assert not list(tmp_path.rglob("*.part"))


def test_files_of_a_folder_are_read_and_measured(delivered):
    files = LocalFiles(delivered.folder)
    assert (
        files.size("manifest.json")
        == Path(delivered.uri).stat().st_size
        == len(files.read("manifest.json", at_most=10**6))
    )
    assert files.size("none") is None
    assert files.size("images") is None
    for absent in ("none", "images", "manifest.json/x"):
        with pytest.raises(FileNotFoundError):
            files.read(absent, at_most=100)


def test_a_dead_worker_is_told_in_words(tmp_path):
    with Workers(2) as workers, pytest.raises(CodaError, match="memory"):
        list(workers.map(os._exit, [9]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(
        st.tuples(st.integers(0, 41), st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.booleans()),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_corruption_ends_in_quarantine_or_refusal(damage, small_params, tmp_path_factory):
    base = tmp_path_factory.mktemp("damage")
    delivery = deliver(base / "in", wells=("B02", "C03"), sites=4, shape=(20, 24))
    paths = [entry["path"] for entry in delivery.manifest["plates"][0]["files"]]
    for number, place, data, told in damage:
        path = paths[number % len(paths)]
        old = (delivery.folder / path).read_bytes()
        at = int(place * len(old))
        delivery.put(path, old[:at] + data + (old[at + len(data) :] if told else b""), list_it=told)
    delivery.write()
    report = ingest([delivery.uri], base / "out", params=small_params(), settings=SETTINGS)[0]
    whole = report.fields_accepted == 8
    assert whole or report.quarantined or report.problems
    assert all(item.reason for item in report.quarantined)
    index = pd.read_parquet(base / "out/lab_a/b1/index.parquet")
    assert len(index) == report.fields_accepted
    assert json.loads((base / "out/lab_a/b1/ingest.json").read_text())["fields_accepted"] == report.fields_accepted
