"""`coda predict`: what it may be given, where tables go, and what a killed or repeated call leaves."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from coda.contracts.gate import GateReport
from coda.errors import ConfigError, TransientError
from coda.monitoring.summaries import gate_key
from coda.plates.dataset import open_batches
from coda.registry import DEFAULT_SCOPE, ReleaseLog
from coda.registry.drafts import WAITING, keep_draft
from coda.steps.predict import predict
from coda.steps.prediction_inputs import unfit_for
from coda.steps.publication import current
from coda.storage.data_registry import commit_batch, create_registry
from coda.storage.objects import ObjectStore

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

FILES = {"field.parquet", "well.parquet", "compound.parquet", "well.csv", "compound.csv", "predictions.json"}


@pytest.fixture
def own(settings, released, moto_server):
    """The same models behind a platform bucket of its own."""
    found = settings.model_copy(update={"platform": moto_server.bucket().uri})
    ReleaseLog(found).append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return found


@pytest.fixture
def given(released, tmp_path):
    return released.write(tmp_path / "release.json")


def published(settings, prefix="predictions/"):
    store = ReleaseLog(settings).store
    return {item.key: (item.etag, item.modified) for item in store.list(prefix)}


def tables(settings, batch="lab_b/b2", release="train-1"):
    """What is published of a batch with a release: name -> bytes; each held against the list that names it."""
    store = ReleaseLog(settings).store
    found = current(store, batch, release)
    return {} if found is None else {name: found.read(store, name) for name in found.files}


def refusal(datasets):
    manifest = open_batches(datasets["b2"])[0].manifest
    return GateReport(
        source="lab_b", batch="b2", manifest_digest=manifest.digest(), policy_version="v", baseline="unadapted",
        candidates=(), outcome="refuse", chosen=None, sentence="No model is fit for lab_b/b2.", fit_to_predict=False,
    )  # fmt: skip


def test_a_batch_is_fetched_by_its_name_predicted_and_published_once(
    command, datasets, own, given, params, moto_server, tmp_path, monkeypatch
):
    registry = own.model_copy(
        update={"data_registry": str(tmp_path / "data.git"), "data_remote": f"{moto_server.bucket().uri}/dvc"}
    )
    create_registry(Path(registry.data_registry), registry.data_remote)
    first = commit_batch(datasets["b1"] / "lab_b" / "b1", "lab_b", "b1", settings=registry, run_id="r1")
    commit_batch(datasets["b2"] / "lab_b" / "b2", "lab_b", "b2", settings=registry, run_id="r2")
    monkeypatch.chdir(tmp_path)
    said = command(registry, "lab_b/b2")
    there = published(registry)
    assert set(tables(registry)) == FILES
    assert f"{registry.platform}/predictions/lab_b/b2/train-1/" in said.replace("\n", "")
    assert not (tmp_path / "predictions").exists()
    # the registry's copy gives the bytes that the step gives for the folder it was made from
    predict(datasets["b2"], given, tmp_path / "step", params=params, settings=registry, publish=False)
    for name, content in tables(registry).items():
        assert content == (tmp_path / "step" / name).read_bytes()
    predict(datasets["b2"], given, tmp_path / "step", params=params, settings=registry)
    assert published(registry) == there, "a repeated call wrote something again"
    command(registry, "lab_b/b1", "--no-publish", "--revision", first.revision[:12])
    assert published(registry) == there
    assert {path.name for path in (tmp_path / "predictions" / "lab_b" / "b1" / "train-1").iterdir()} == FILES
    with pytest.raises(ConfigError, match="lab_b/b2 at"):
        command(registry, "lab_b/b2", "--revision", first.revision)
    for revision in ("0" * 40, "--output=stolen", "HEAD"):
        with pytest.raises(ConfigError, match="no such revision"):
            command(registry, "lab_b/b2", f"--revision={revision}")
    assert not (tmp_path / "stolen").exists()


def test_a_folder_keeps_its_tables_beside_it_unless_asked(command, datasets, own, tmp_path):
    folder = tmp_path / "dataset"
    folder.symlink_to(datasets["b2"])
    command(own, folder, "--out", tmp_path / "out")
    assert published(own) == {}
    (tmp_path / "out" / "notes.txt").write_text("mine")
    command(own, folder, "--out", tmp_path / "out", "--publish")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"notes.txt"}
    assert set(tables(own)) == FILES
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())["files"]
    assert set(listed) == FILES - {"predictions.json"}
    with pytest.raises(ConfigError, match="no revisions"):
        command(own, folder, "--revision", "abcd")
    with pytest.raises(ConfigError, match="no such batch"):
        command(own, "../somewhere/else")


def test_a_release_is_named_by_its_id_and_only_if_it_was_released(command, datasets, own, released, tmp_path):
    second = released.model_copy(update={"release_id": "r-2", "run_id": "r-2"})
    log = ReleaseLog(own)
    log.append(second, DEFAULT_SCOPE, action="promote", by="test", reason="second", after=1)
    assert "release r-2" in command(own, datasets["b2"], "--out", tmp_path / "now")
    assert "release train-1" in command(own, datasets["b2"], "--out", tmp_path / "then", "--release", "train-1")
    waiting = released.model_copy(update={"release_id": "r-3", "run_id": "r-3", "approver": WAITING})
    keep_draft(waiting, tmp_path / "draft.json", settings=own)
    with pytest.raises(ConfigError, match="never released"):
        command(own, datasets["b2"], "--out", tmp_path / "no", "--release", "r-3")
    with pytest.raises(ConfigError, match="no such release"):
        command(own, datasets["b2"], "--out", tmp_path / "no", "--release", "r-9")
    assert not (tmp_path / "no").exists()


def test_what_the_gate_refused_gets_reasons_and_no_answers(command, datasets, own, params, given, tmp_path):
    decision = refusal(datasets)
    gate = decision.write(tmp_path / "gate.json")
    predict(datasets["b2"], given, tmp_path / "step", params=params, settings=own, gate=gate, publish=False)
    for name in ("field", "well", "compound"):
        table = pd.read_parquet(tmp_path / "step" / f"{name}.parquet")
        assert len(table)
        assert table.filter(like="p_").isna().all().all()
        assert (table["predicted"] == "").all()
        assert (table["abstain_reason"] == "The gate refused: No model is fit for lab_b/b2.").all()
    with (tmp_path / "step" / "compound.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted_mechanism"] for row in rows} == {""}
    assert all("No model is fit" in row["do_not_rely_because"] for row in rows)
    key = gate_key("lab_b", "b2", decision.manifest_digest)
    ReleaseLog(own).store.put(key, decision.to_json().encode())
    assert "Nothing fit serves this batch" in command(own, datasets["b2"], "--out", tmp_path / "later")
    assert (tmp_path / "later" / "well.parquet").read_bytes() == (tmp_path / "step" / "well.parquet").read_bytes()
    named = command(own, datasets["b2"], "--out", tmp_path / "named", "--release", "train-1")
    assert "Nothing fit" not in named
    assert (pd.read_parquet(tmp_path / "named" / "field.parquet")["predicted"] != "").all()
    other = decision.model_copy(update={"batch": "b1"}).write(tmp_path / "other.json")
    predict(datasets["b2"], given, tmp_path / "b2", params=params, settings=own, gate=other, publish=False)
    assert (tmp_path / "b2" / "well.parquet").read_bytes() == (tmp_path / "named" / "well.parquet").read_bytes()


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_call_that_breaks_off_leaves_no_list_and_the_next_one_completes_it(
    after, datasets, own, params, given, tmp_path, monkeypatch
):
    out, uploads = tmp_path / "out", []
    predict(datasets["b2"], given, tmp_path / "whole", params=params, settings=own, publish=False)

    def upload(store, path, key, content_type=""):
        if len(uploads) >= after:
            raise TransientError("gone")
        uploads.append(key)
        store.put(key, path.read_bytes(), content_type)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "upload", upload)
        with pytest.raises(TransientError):
            predict(datasets["b2"], given, out, params=params, settings=own)
    assert tables(own) == {}
    moves = []
    (out / "well.csv").write_text("cut sh")
    replace = Path.replace

    def move(path, target):
        if target.parent == out:
            if len(moves) >= min(after, 1):
                raise OSError("killed")
            moves.append(target.name)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", move)
        with pytest.raises(OSError, match="killed"):
            predict(datasets["b2"], given, out, params=params, settings=own)
    assert not (out / "predictions.json").exists()
    predict(datasets["b2"], given, out, params=params, settings=own)
    assert {path.name for path in out.iterdir()} == FILES
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert tables(own) == {name: (out / name).read_bytes() for name in FILES}


def test_what_a_person_promoted_meanwhile_predicts_what_was_held(datasets, own, released):
    decision = refusal(datasets).model_copy(update={"outcome": "hold", "chosen": "aligned"})
    key = gate_key("lab_b", "b2", decision.manifest_digest)
    ReleaseLog(own).store.put(key, decision.to_json().encode())
    assert unfit_for(datasets["b2"], released, own) == decision
    promoted = released.model_copy(update={"gate_digest": decision.digest()})
    assert unfit_for(datasets["b2"], promoted, own) is None


def test_what_predict_wrote_can_be_scored_once_labels_are_known(datasets, own, given, params, tmp_path):
    from coda.benchmark.labelled_batch import score_batch
    from coda.training.labels import LabelList

    predict(datasets["b2"], given, tmp_path / "out", params=params, settings=own, publish=False)
    wells = pd.read_parquet(tmp_path / "out" / "well.parquet")
    treated = wells[wells["Metadata_pert_type"] == "trt"]
    said = {row.Metadata_Compound: row.predicted for row in treated.itertuples() if row.predicted}
    found = score_batch(tmp_path / "out", LabelList(said))
    (all_wells,) = [item for item in found.scores if (item.level, item.rows) == ("well", "all")]
    right = treated["predicted"] == treated["Metadata_Compound"].map(said)
    assert all_wells.number == len(treated) - found.unanswered
    assert all_wells.accuracy.mean == pytest.approx(right[treated["predicted"] != ""].mean())
    assert found.release_id == "train-1"
