"""The table of batches: what each end of a batch writes, how it is read, put together and made again."""

import io
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_inputs import digest, manifest, write_batch, write_run
from servers import moto_server
from typer.testing import CliRunner

from coda.cli.monitoring import app
from coda.config import params_digest
from coda.errors import IntegrityError
from coda.monitoring import history
from coda.monitoring.batch_numbers import Number
from coda.monitoring.batch_row import SCHEMA, VERSION, VERSION_KEY, Facts, decode, encode, table_of
from coda.monitoring.batch_table import compact, key_of
from coda.monitoring.batch_table import write_batch as write_rows
from coda.monitoring.frames import batches_of
from coda.steps.conclude import Ended, conclude
from coda.steps.finish import finish
from coda.steps.report import report
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.rows_without_report import note_end, rebuild

__all__ = ["moto_server"]

NOW = datetime(2026, 11, 3, 8, tzinfo=UTC)


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def store(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


def run_adaptation(folder, settings, params, **kind):
    run = write_run(folder, params_digest=params_digest(params), **kind)
    report(run.dataset, folder / "r.html", params=params, settings=settings, run_id="run-1", **run.arguments())
    finish(
        run.dataset, pipeline="adaptation", params=params, settings=settings, run_id="run-1", gate=run.gate,
        release=run.release,
    )  # fmt: skip
    return run


def facts(batch="b1", source="lab_b", hours=0, **known):
    at = NOW + timedelta(hours=hours)
    return Facts(source, batch, digest(f"{source}/{batch}"), known.pop("state", "released"), at, **known)


def one(frame, measure, subject="", plate=""):
    found = frame[(frame["measure"] == measure) & (frame["subject"] == subject) & (frame["plate"] == plate)]
    assert len(found) == 1, f"{measure} of {subject!r} on {plate!r}: {len(found)} rows"
    return found.iloc[0]


def test_every_number_of_a_batch_is_kept_by_plate_and_stain(settings, tmp_path, demo_params):
    run_adaptation(tmp_path, settings, demo_params)
    frame = history(settings)
    index = pd.read_parquet(tmp_path / "dataset/lab_b/b3/index.parquet")
    for plate in ("p1", "p2", "p3"):
        mine = index[index["Metadata_Plate"] == plate]
        assert one(frame, "focus", "ER", plate)["value"] == np.median(mine["QC_focus_ER"])
        controls = mine[mine["Metadata_pert_type"] == "negcon"]
        assert one(frame, "negcon_p95", "DNA", plate)["value"] == np.median(controls["QC_p95_DNA"])
        assert one(frame, "cells", "", plate)["value"] == np.median(mine["QC_cells_DNA"])
    assert one(frame, "robust_z_prime", "", "p1")["value"] == 0.67
    gain = one(frame, "gate_gain", "coda+aligned")
    assert (gain["value"], gain["low"], gain["high"], gain["n"]) == (0.27, 0.23, 0.31, 10)
    assert one(frame, "drift_before/frechet_to_source")["value"] == 2.5
    shares = frame[frame["measure"] == "class_share"]
    assert shares["value"].sum() == pytest.approx(1)
    row = frame.iloc[0]
    assert (row["state"], row["verdict"], row["release_id"]) == ("released", "accepted_with_warnings", "lab_b-0007")
    assert (row["extractor"], row["head"]) == ("coda-extractor/4", "coda-head/2")
    assert row["acquired_at"] == manifest().created_at
    assert row["processed_at"] > row["acquired_at"]
    assert row["page"] == f"reports/lab_b/b3/{manifest().digest()}/report.html"
    assert batches_of(frame)["gain"].tolist() == [0.27]


def test_a_refused_batch_and_one_that_failed_are_rows(settings, store, tmp_path, demo_params):
    write_batch(tmp_path / "d", manifest(batch="b1"), verdict="refused")
    report(tmp_path / "d", tmp_path / "r.html", params=demo_params, settings=settings, run_id="r")
    finish(tmp_path / "d", pipeline="adaptation", params=demo_params, settings=settings, run_id="r")
    landing = ObjectStore(settings.landing, settings.s3_endpoint)
    document = manifest(batch="b2")
    landing.put("lab_b/b2/manifest.json", document.to_json().encode())
    ledger = Ledger(store)
    version = BatchVersion("lab_b", "b2", document.digest(), "lab_b/b2/manifest.json")
    state = ledger.append(version, "failed", after=None, reasons=("the disk was full",))
    note_end(store, landing, state, None)
    frame = history(settings)
    ends = batches_of(frame).set_index("batch")
    assert ends["state"].to_dict() == {"b1": "refused", "b2": "failed"}
    assert ends.loc["b2", "reason"] == "the disk was full"
    assert ends.loc["b2", "acquired_at"] == document.created_at
    assert ends.loc["b2", "instrument"] == "Opera Phenix"
    assert ends.loc["b2", "page"].endswith("/failure.html")


def test_rows_that_are_made_again_are_the_same_bytes(settings, store, tmp_path, demo_params):
    run_adaptation(tmp_path, settings, demo_params)
    landing, ledger = ObjectStore(settings.landing, settings.s3_endpoint), Ledger(store)
    version = BatchVersion("lab_c", "b1", digest("c"), "lab_c/b1/manifest.json")
    note_end(store, landing, ledger.append(version, "failed", after=None, reasons=("why",)), None)
    before = {item.key: store.get(item.key) for item in store.list("history/")}
    frame = history(settings)
    assert len(before) == 2
    for key in before:
        store.delete(key)
    assert rebuild(ledger, landing) == 2
    assert {item.key: store.get(item.key) for item in store.list("history/")} == before
    pd.testing.assert_frame_equal(history(settings), frame)


def test_a_run_that_no_trigger_started_and_that_failed_is_a_row(settings, store, demo_params):
    def fail(run_id, batch, pipeline="adaptation"):
        uri = f"s3://landing/lab_b/{batch}/manifest.json"
        conclude(Ended(run_id, pipeline, [uri], digest(f"lab_b/{batch}")), params=demo_params, settings=settings)

    write_rows(store, facts("b1"), [Number(measure="plates", value=1)])
    fail("r1", "b1")  # a second run of a batch that went through
    fail("r2", "b2")
    fail("r3", "b3", "training")
    frame = history(settings)
    assert batches_of(frame).set_index("batch")["state"].to_dict() == {"b1": "released", "b2": "failed"}
    row = batches_of(frame).set_index("batch").loc["b2"]
    assert store.exists(row["page"])
    key = key_of("lab_b", "b2", digest("lab_b/b2"))
    before = store.get(key)
    store.delete(key)
    rebuild(Ledger(store), ObjectStore(settings.landing, settings.s3_endpoint))
    assert store.get(key) == before


def test_a_report_from_before_the_table_has_its_rows_too(settings, store, tmp_path, demo_params):
    run_adaptation(tmp_path, settings, demo_params)
    store.delete(f"reports/lab_b/b3/{manifest().digest()}/numbers.json")
    rebuild(Ledger(store), ObjectStore(settings.landing, settings.s3_endpoint))
    frame = history(settings)
    assert one(frame, "drift_after/frechet_to_source")["value"] == 0.4
    assert one(frame, "focus", "ER")["value"] < 0
    assert frame["state"].unique().tolist() == ["released"]


def test_a_run_that_was_killed_before_its_rows_gets_them_from_the_trigger(settings, store, tmp_path, demo_params):
    run_adaptation(tmp_path, settings, demo_params)
    landing, ledger = ObjectStore(settings.landing, settings.s3_endpoint), Ledger(store)
    key = key_of("lab_b", "b3", manifest().digest())
    before = store.get(key)
    store.delete(key)
    from coda.steps.record import read_run

    state = ledger.append(BatchVersion("lab_b", "b3", manifest().digest(), "k"), "released", after=None)
    note_end(store, landing, state, read_run("run-1", settings))
    assert store.get(key) == before


def test_months_put_together_change_no_row(settings, store):
    for k in range(5):
        write_rows(
            store,
            facts(f"b{k}", hours=k),
            [Number(measure="plates", value=k), Number(measure="focus", plate="p", value=1)],
        )
    write_rows(store, facts("b0", source="lab_c"), [])
    before = history(settings)
    done = compact(store)
    assert (done.months, done.batches) == (1, 5), "one batch of lab_c is left as it is"
    pd.testing.assert_frame_equal(history(settings), before)
    assert compact(store).months == 0, "nothing is new"
    # a batch that ends again, and one that is new, count before the month is put together again
    write_rows(store, facts("b1", hours=1, state="failed"), [Number(measure="plates", value=7)])
    write_rows(store, facts("b9", hours=9), [])
    frame = history(settings)
    assert batches_of(frame).set_index("batch").loc["b1", "state"] == "failed"
    assert frame[(frame["batch"] == "b1") & (frame["source"] == "lab_b")]["value"].tolist() == [7]
    assert "b9" in set(frame["batch"])
    assert compact(store).batches == 6
    pd.testing.assert_frame_equal(history(settings), frame)


def test_reading_months_costs_few_requests(settings, store, monkeypatch):
    for k in range(6):
        write_rows(store, facts(f"b{k}", hours=k), [Number(measure="plates", value=k)])
    compact(store)
    asked = []
    for name in ("get_tagged", "find"):
        inner = getattr(ObjectStore, name)
        monkeypatch.setattr(ObjectStore, name, lambda self, key, _i=inner, **k: asked.append(key) or _i(self, key, **k))
    assert len(history(settings)) == 6
    assert [key for key in asked if key.startswith("history/batch/")] == []


@pytest.mark.parametrize("broken", [b"", b"no parquet", None])
def test_a_month_that_was_cut_short_or_is_old_is_not_believed(settings, store, broken):
    for k in range(3):
        write_rows(store, facts(f"b{k}", hours=k), [Number(measure="plates", value=k)])
    compact(store)
    before = history(settings)
    key = next(item.key for item in store.list("history/month/"))
    body = store.get(key)
    store.put(key, body[: len(body) // 2] if broken is None else broken)
    pd.testing.assert_frame_equal(history(settings), before)


def test_two_that_compact_at_once_leave_a_table_that_is_right(settings, store, monkeypatch):
    """The second one writes a batch and compacts while the first one has read and not yet written."""
    for k in range(3):
        write_rows(store, facts(f"b{k}", hours=k), [Number(measure="plates", value=k)])
    put, entered = ObjectStore.put, []

    def meanwhile(self, key, data, content_type=""):
        if key.startswith("history/month/") and not entered:
            entered.append(key)
            write_rows(store, facts("b1", hours=1), [Number(measure="plates", value=99)])
            compact(store)
        put(self, key, data, content_type)

    monkeypatch.setattr(ObjectStore, "put", meanwhile)
    compact(store)
    frame = history(settings)
    assert frame.set_index("batch")["value"].to_dict() == {"b0": 0, "b1": 99, "b2": 2}


def test_a_broken_object_hides_no_other(settings, store, caplog):
    write_rows(store, facts("b1"), [Number(measure="plates", value=1)])
    store.put("history/batch/lab_b/b2/0123.parquet", b"nonsense")
    assert history(settings)["batch"].tolist() == ["b1"]
    assert "coda monitoring history --rebuild" in caplog.text
    with pytest.raises(IntegrityError):
        decode(b"nonsense", "here")


def test_other_versions_of_the_schema_are_read():
    table = table_of(facts(), [Number(measure="plates", value=3)])
    older = table.drop_columns(["n", "text", "params_digest"])
    later = table.append_column("colour", pa.array(["red"]))
    for other, version in ((older, 0), (later, VERSION + 1)):
        out = io.BytesIO()
        pq.write_table(other.replace_schema_metadata({VERSION_KEY: str(version).encode()}), out)
        read = decode(out.getvalue(), "here")
        assert read.schema.names == SCHEMA.names
        assert read["value"].to_pylist() == [3]
    assert decode(encode(table), "here").schema.metadata[VERSION_KEY] == str(VERSION).encode()
    out = io.BytesIO()
    pq.write_table(pa.table({"value": ["three"]}), out)
    with pytest.raises(IntegrityError, match="cannot be read as rows"):
        decode(out.getvalue(), "here")


def test_filters_by_source_instrument_and_time(settings, store):
    write_rows(store, facts("b1", instrument="A"), [])
    write_rows(store, facts("b2", hours=30, instrument="B"), [])
    write_rows(store, facts("b1", source="lab_c", instrument="B"), [])
    assert set(history(settings, source="lab_b")["batch"]) == {"b1", "b2"}
    assert set(history(settings, instrument="B")["source"]) == {"lab_b", "lab_c"}
    assert history(settings, since=NOW + timedelta(hours=1))["batch"].tolist() == ["b2"]
    assert len(history(settings, source="nobody")) == 0


def test_the_command_lists_writes_and_maintains(settings, store, tmp_path, monkeypatch):
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    for k in range(2):
        write_rows(store, facts(f"b{k}", hours=k, release_id="lab_b-0007"), [Number(measure="plates", value=12)])
    run = CliRunner().invoke
    listed = run(app, ["history"]).output.splitlines()
    assert [line.split("\t")[1] for line in listed] == ["batch", "lab_b/b1", "lab_b/b0"]
    done = run(
        app, ["history", "--csv", str(tmp_path / "x.csv"), "--parquet", str(tmp_path / "x.parquet"), "--compact"]
    )
    assert done.exit_code == 0, done.output
    assert "put 2 batch version(s) together in 1 object(s)" in done.output
    assert pd.read_csv(tmp_path / "x.csv")["value"].tolist() == [12, 12]
    assert pd.read_parquet(tmp_path / "x.parquet")["processed_at"].dt.tz is not None
    assert run(app, ["history", "--since", "soon"]).exit_code != 0
    late = json.loads(run(app, ["history", "--json", "--since", "2026-11-03T09:00+00:00"]).output)
    assert [(row["batch"], row["plates"], row["gain"]) for row in late] == [("b1", 12, None)]
