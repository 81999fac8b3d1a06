"""The three training steps on one small dataset, their folders, and what happens when they are interrupted."""

import json
import os
import signal
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from reading import Reading
from servers import moto_server

from coda.contracts.fields import METADATA_COLUMNS
from coda.contracts.fingerprints import StainFingerprints
from coda.errors import ConfigError, ContractError, TransientError
from coda.networks.artifact import extra_file
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import load_extractor
from coda.networks.head import LABEL_REPORT, LABELS, load_head, load_source_statistics
from coda.plates.stored import StoredFields
from coda.quality.fingerprints import FINGERPRINTS
from coda.settings import Settings
from coda.steps.evaluate import evaluate
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.pretrain import load_training_fields, pretrain
from coda.steps.train_head import built_report, train_head
from coda.training.labels import read_labels
from coda.training.methods.dino.state import load_state

__all__ = ["moto_server"]

TABLE = "Metadata_Compound,moa\n" + "".join(f"compound_{n},moa_{n % 2}\n" for n in range(3)) + "ghost,moa_0\n"


@pytest.fixture
def place(tmp_path, monkeypatch, stored):
    """Settings and folders; the dataset folder is stood in for by plate stores without an index."""
    table = stored.table
    full = replace(stored, table=table.assign(**{n: 0.0 for n in METADATA_COLUMNS.values() if n not in table}))
    for module in ("pretrain", "recorded_serving"):
        monkeypatch.setattr(f"coda.steps.{module}.prepared", lambda _batches: [])
    for module in ("pretrain", "train_head", "evaluate"):
        batch = SimpleNamespace(accepted=full.table.assign(QC_focus_DNA=-3.0))
        monkeypatch.setattr(f"coda.steps.{module}.ingested_batches", lambda _folder, _stores, batch=batch: [batch])
        monkeypatch.setattr(
            f"coda.steps.{module}.open_fields", lambda _batches, _channels, centre: replace(full, centre=centre)
        )
    (tmp_path / "labels.csv").write_text(TABLE)
    return tmp_path


def settings_in(folder, checkpoints=None, endpoint=None):
    return Settings(
        landing="s3://a/b", platform="s3://a/c", mlflow_uri="x", data_registry="x", data_remote="s3://a/d",
        checkpoints=checkpoints or str(folder / "checkpoints"), s3_endpoint=endpoint,
    )  # fmt: skip


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_pretrain_train_head_evaluate(place, tiny, capsys):
    params, settings, labels = tiny("crops.eval_grid=1"), settings_in(place), str(place / "labels.csv")
    numbers = pretrain(place, place / "pre", params=params, settings=settings, run_id="r")
    assert numbers["iterations"] == 8
    assert numbers["pairable_share"] == 1
    state, extractor = load_state(place / "pre" / "state"), load_extractor(place / "pre" / "extractor")
    assert all(
        np.array_equal(tensor, state.teacher.state_dict()[name]) for name, tensor in extractor.state_dict().items()
    )
    assert not (place / "checkpoints" / "r" / "pretrain").exists()

    digest = read_labels(TABLE.encode(), "labels.csv").digest
    (place / "labels.report.json").write_text(json.dumps({"rule": "r", "digest": digest}))
    numbers = train_head(place, place / "pre", labels, place / "heads", params=params, settings=settings, run_id="r")
    stains = StainFingerprints.read(place / "heads" / FINGERPRINTS)
    assert (stains.channels, stains.statistics["focus_DNA"].usual) == (("DNA",), -3.0)
    assert numbers["labelled_fields"] == 24
    assert numbers["missed_compounds"] == 1
    said = capsys.readouterr().err
    assert "1 compounds on the plates have none (compound_3)" in said
    assert "1 labelled compounds are on no plate" in said
    for alignment in ("none", "standardise"):
        head = load_head(place / "heads" / alignment)
        assert (head.alignment, head.classes) == (alignment, ("moa_0", "moa_1"))
        assert load_source_statistics(place / "heads" / alignment).count == 3 * 32 * 5
        report = json.loads(extra_file(place / "heads" / alignment, LABEL_REPORT))  # covered by the folder's digest
        assert report["table"] == {"rule": "r", "digest": digest}
        assert report["join"]["missed_compounds"] == ["compound_3"]
        assert report["join"]["absent_compounds"] == ["ghost"]

    classical = load_head(place / "heads" / "classical")
    assert isinstance(classical, ClassicalHead)
    assert (classical.alignment, classical.classes) == ("standardise", ("moa_0", "moa_1"))
    assert load_source_statistics(place / "heads" / "classical").count == 32  # one profile a training field
    assert extra_file(place / "heads" / "classical", LABELS) == extra_file(place / "heads" / "none", LABELS)
    assert json.loads((place / "heads" / "training.json").read_text())["heads"]["classical"]["log"] == []

    found = evaluate(place, place / "pre", place / "heads", labels, place / "ev", params=params, settings=settings)
    assert found["classical_accuracy_field"] == numbers["classical_held_out_accuracy"]
    assert json.loads((place / "ev" / "metrics.json").read_text()) == found
    rows = pd.read_parquet(place / "ev" / "standardise.parquet")
    assert set(rows["Metadata_Batch"]) == {"batch_2"}
    truth = rows["Metadata_Compound"].map({f"compound_{n}": f"p_moa_{n % 2}" for n in range(3)})
    predicted = rows[["p_moa_0", "p_moa_1"]].idxmax(axis=1)
    known = truth.notna()
    assert found["standardise_accuracy_field"] == pytest.approx((predicted[known] == truth[known]).mean())
    wells = rows[known].assign(truth=truth[known]).groupby(["Metadata_Plate", "Metadata_Well"])
    means, names = wells[["p_moa_0", "p_moa_1"]].mean(), wells["truth"].first()
    assert found["standardise_accuracy_well"] == pytest.approx((means.idxmax(axis=1) == names).mean())
    assert found["wells"] == len(means)
    assert found["fields"] == known.sum() == 12


def test_the_same_run_twice_gives_the_same_files(place, tiny):
    for name in ("one", "two"):
        pretrain(place, place / name, params=tiny(), settings=settings_in(place), run_id=name)
    assert files(place / "one" / "state") == files(place / "two" / "state")


@pytest.mark.parametrize("where", ["folder", "object storage"])
def test_sigterm_writes_a_checkpoint_and_the_next_attempt_ends_with_the_same_bits(
    place, tiny, where, moto_server, monkeypatch
):
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"{moto_server.bucket().uri}/checkpoints" if where == "object storage" else None
    settings = settings_in(place, bucket, moto_server.endpoint)
    pretrain(place, place / "whole", params=tiny(), settings=settings, run_id="whole")

    from coda.training.methods.dino.objective import DinoObjective as DinoLoop

    step, calls = DinoLoop.step, []

    def told_to_stop(self, iteration, **options):
        calls.append(iteration)
        if iteration == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, iteration, **options)

    monkeypatch.setattr(DinoLoop, "step", told_to_stop)
    with pytest.raises(TransientError) as caught:
        pretrain(place, place / "out", params=tiny(), settings=settings, run_id="r")
    assert caught.value.exit_code == 75
    assert not (place / "out").exists()
    monkeypatch.setattr(
        DinoLoop, "step", lambda self, iteration, **o: calls.append(iteration) or step(self, iteration, **o)
    )
    pretrain(place, place / "out", params=tiny(), settings=settings, run_id="r")
    assert calls == list(range(8))
    assert files(place / "out" / "state") == files(place / "whole" / "state")
    with kept_checkpoints(settings, "r", "pretrain") as checkpoints:
        assert checkpoints.finished() == []


def test_heads_go_on_where_they_were_stopped(place, tiny, monkeypatch):
    """The second head is interrupted: the first one is not trained again from its start."""
    from coda.training.classifier_trainer import ClassifierTrainer

    params, settings = tiny("crops.eval_grid=1", "head.budget.checkpoint_every=15"), settings_in(place)
    arguments = {"params": params, "settings": settings}
    pretrain(place, place / "pre", run_id="p", **arguments)
    labels = str(place / "labels.csv")
    train_head(place, place / "pre", labels, place / "whole", run_id="whole", **arguments)
    step, steps = ClassifierTrainer.step, []

    def told_to_stop(self, iteration, **options):
        steps.append(iteration)
        if len(steps) == 60:  # the first has 40 of them
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, iteration, **options)

    monkeypatch.setattr(ClassifierTrainer, "step", told_to_stop)
    with pytest.raises(TransientError):
        train_head(place, place / "pre", labels, place / "out", run_id="r", **arguments)
    assert steps == [*range(40), *range(20)]
    train_head(place, place / "pre", labels, place / "out", run_id="r", **arguments)
    assert steps[60:] == [*range(30, 40), *range(20, 40)]
    for alignment in ("none", "standardise"):
        assert files(place / "out" / alignment) == files(place / "whole" / alignment)
    assert list((place / "checkpoints").glob("*/head-*")) == []


def test_object_storage_holds_two_checkpoints_at_most(moto_server, tmp_path, monkeypatch, fields, tiny):
    from coda.training.methods.dino.state import new_state
    from coda.training.methods.dino.training import train_dino

    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    store = moto_server.bucket()
    settings = settings_in(tmp_path, f"{store.uri}/keep", moto_server.endpoint)
    params = tiny("pretrain.checkpoint_every=2")

    def pod():
        with kept_checkpoints(settings, "r", "adapt") as checkpoints:
            state = new_state(params, seed=0)
            train_dino(fields, params, params.pretrain, state=state, seed=0, checkpoints=checkpoints)
            raise RuntimeError("the pod is gone")

    with pytest.raises(RuntimeError, match="pod is gone"):
        pod()
    kept = {info.key.split("/")[3] for info in store.list()}
    assert kept == {"00000004", "00000006"}
    with kept_checkpoints(settings, "r", "adapt") as checkpoints:
        assert [path.name for path in checkpoints.finished()] == ["00000004", "00000006"]
    assert list(store.list()) == []


def test_sigterm_is_given_back_to_who_had_it():
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_sigterm() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGTERM) == before


def test_bad_labels_and_missing_files_are_told(place, tiny):
    params, settings = tiny("crops.eval_grid=1"), settings_in(place)
    pretrain(place, place / "pre", params=params, settings=settings, run_id="r")
    with pytest.raises(ConfigError, match="label table is not there"):
        train_head(
            place, place / "pre", str(place / "no.csv"), place / "h", params=params, settings=settings, run_id="r"
        )
    (place / "labels.csv").write_text("Metadata_Compound,moa\nx,a\ny,b\n")
    with pytest.raises(ContractError, match="do not belong"):
        train_head(
            place, place / "pre", str(place / "labels.csv"), place / "h", params=params, settings=settings, run_id="r"
        )
    with pytest.raises(ConfigError, match="no head to evaluate"):
        evaluate(
            place,
            place / "pre",
            place / "none",
            str(place / "labels.csv"),
            place / "e",
            params=params,
            settings=settings,
        )


def test_a_report_goes_with_its_own_table_alone(place, moto_server):
    table, settings = read_labels(TABLE.encode(), "labels.csv"), settings_in(place, endpoint=moto_server.endpoint)
    labels = str(place / "labels.csv")
    assert built_report(labels, table, settings) is None
    (place / "labels.report.json").write_text(json.dumps({"digest": "0" * 64}))
    with pytest.raises(ContractError, match="another label table"):
        built_report(labels, table, settings)
    store = moto_server.bucket()
    assert built_report(store.url("labels.csv"), table, settings) is None
    store.put("labels.report.json", json.dumps({"digest": table.digest}).encode())
    assert built_report(store.url("labels.csv"), table, settings) == {"digest": table.digest}


def test_too_few_batches_are_told(place, tiny):
    with pytest.raises(ConfigError, match="source lab: found 3 batch"):
        pretrain(
            place, place / "pre", params=tiny("split.validation_batches=3"), settings=settings_in(place), run_id="r"
        )


def test_fields_smaller_than_the_square_that_is_cut_are_refused_before_anything_is_read(place, tiny, monkeypatch):
    """They were filled up with black, in silence: a 256 px field was two thirds black."""
    monkeypatch.setattr("coda.plates.stored.StoredFields.read", None)
    with pytest.raises(ConfigError, match="smaller than the square") as caught:
        pretrain(place, place / "pre", params=tiny("crops.centre=33"), settings=settings_in(place), run_id="r")
    assert [problem.where for problem in caught.value.problems] == ["batch lab/batch_0", "batch lab/batch_1"]
    assert "Set crops.centre=32" in caught.value.problems[0].remedy


def test_held_out_fields_are_not_read_and_what_is_read_is_not_copied(place, tiny, monkeypatch):
    """`compute.images: auto` promises that images take half of the memory: no second copy, and no other field."""
    params, read = tiny(), []
    real = StoredFields._fill
    monkeypatch.setattr(
        StoredFields, "_fill", lambda self, row, image: read.append(self.places[row].image_id) or real(self, row, image)
    )
    tracemalloc.start()
    fields = load_training_fields([], params)
    images = fields.images.nbytes
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    half = fields.take(np.arange(len(fields)) % 2 == 0)
    quarter = half.take(np.arange(len(half)) % 2 == 0)
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert sorted(read) == sorted(fields.table["image_id"])
    assert set(fields.table["Metadata_Batch"]) == {"batch_0", "batch_1"}
    assert grown < images / 2
    assert np.shares_memory(quarter.pool, fields.images)
    assert np.array_equal(quarter.images, fields.images[::4])


def test_a_step_reads_its_own_sections_and_no_other(place, tiny):
    """A key of another section cannot change what a step does, and none of its own is passed over with its section."""
    settings, labels = settings_in(place), str(place / "labels.csv")
    plain = tiny("crops.eval_grid=1", "pretrain.iterations=2", "head.budget.iterations=2")

    def read_by(step):
        reading = Reading(plain)
        step(reading.params)
        return reading.read

    assert read_by(lambda params: pretrain(place, place / "pre", params=params, settings=settings, run_id="r")) == {
        "seed", "compute", "extractor", "crops", "split", "pretrain", "pairs", "ssl", "dino",
    }  # fmt: skip
    assert read_by(
        lambda params: train_head(place, place / "pre", labels, place / "heads", params=params, settings=settings,
                                  run_id="r")
    ) == {"seed", "compute", "extractor", "crops", "split", "alignment", "head"}  # fmt: skip


def test_pretraining_on_the_papers_subset_needs_the_label_table_and_reads_no_mechanism(place, tiny):
    params, settings = tiny("pretrain.iterations=2", "pretrain.fields=labelled"), settings_in(place)
    with pytest.raises(ConfigError, match="labelled") as error:
        pretrain(place, place / "none", params=params, settings=settings, run_id="a")
    assert "--labels" in error.value.problems[0].remedy
    (place / "other.csv").write_text(TABLE.replace("moa_0", "moa_9").replace("moa_1", "moa_0"))
    states = []
    for name in ("labels", "other"):
        table = str(place / f"{name}.csv")
        pretrain(place, place / name, params=params, settings=settings, run_id=name, labels=table)
        states.append(load_state(place / name / "state").state_dict())
    pretrain(place, place / "all", params=tiny("pretrain.iterations=2"), settings=settings, run_id="b")
    every = load_state(place / "all" / "state").state_dict()
    assert all(tensor.equal(states[1][name]) for name, tensor in states[0].items())
    assert not all(tensor.equal(every[name]) for name, tensor in states[0].items())
