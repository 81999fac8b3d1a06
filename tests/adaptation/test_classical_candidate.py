"""The classical profile from adaptation to predictions: a candidate like the others, that no network serves."""

import shutil

import numpy as np
import pandas as pd
import pytest
from release_steps import PROBABILITIES, bind, decided

import coda.steps.predict as predicting
from coda.adaptation.candidates import candidates_for, read_candidates
from coda.contracts.release import DataRevision
from coda.errors import ConfigError
from coda.networks.artifact import load
from coda.networks.head import LABELS, SOURCE_STATISTICS, save_head
from coda.networks.profile import profile_of
from coda.plates.dataset import load_fields, open_batches
from coda.registry import DEFAULT_SCOPE, Provenance, ReleaseLog, fetch, list_versions, register_head
from coda.registry.pair import verify_release
from coda.steps.adapt import adapt
from coda.steps.judge import judge
from coda.steps.predict import predict
from coda.training.classical_training import train_classical
from coda.training.labels import LabelList

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

CLASSES = ("actin", "proteasome", "tubulin")


@pytest.fixture(scope="module")
def fields(datasets, params, make_base):
    return {
        name: load_fields(open_batches(path), make_base().extractor.channels, params.crops.centre)
        for name, path in datasets.items()
    }


@pytest.fixture(scope="module")
def classical(folder, params, settings, released, fields, make_base, moto_server):
    """The source release with a classical head beside its others, in a release log of its own."""
    first = fields["b1"]
    compounds = sorted(set(first.table.loc[first.table["Metadata_pert_type"] == "trt", "Metadata_Compound"]))
    labels = LabelList({name: CLASSES[number % 3] for number, name in enumerate(compounds)})
    result = train_classical(make_base().extractor, first, first, labels, params)
    extra = {LABELS: labels.to_bytes(), SOURCE_STATISTICS: result.source.to_bytes()}
    save_head(folder / "net" / "classical", result.head, extra)
    revision = DataRevision(source="lab_a", batch="b1", path="lab_a/b1", revision="0" * 40, digest="0.dir")
    origin = Provenance(run_id="train-1", source="lab_a", params_digest="0" * 64, data=(revision,))
    head = register_head(folder / "net" / "classical", released.extractor, origin, settings=settings)
    record = released.model_copy(update={"heads": (*released.heads, head), "release_id": "train-2"})
    own = settings.model_copy(update={"platform": moto_server.bucket().uri})
    ReleaseLog(own).append(record, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return own, record


@pytest.fixture(scope="module")
def candidates(classical, folder, params, datasets):
    out = folder / "with classical"
    adapt(datasets["b2"], datasets["b1"], out, params=params, settings=classical[0], run_id="classical-2")
    return out


def by_hand(fields, folder):
    """Return the probabilities of a batch by its pixels and the weights in the folder, with numpy alone."""
    weights, _ = load(folder)
    raw = np.array([profile_of(image) for image in fields.images])
    standard = (raw - raw.mean(axis=0)) / (raw.std(axis=0) + 1e-6)
    logits = standard @ weights["classifier.weight"].double().numpy().T + weights["classifier.bias"].double().numpy()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_it_comes_between_doing_nothing_and_aligning() -> None:
    names = ["coda", "coral", "aligned", "classical", "unadapted"]
    assert [item.name for item in candidates_for(names, "coda")] == names[::-1]
    places = [item.complexity for item in candidates_for(names, "coda")]
    assert places == sorted(set(places)), "no two ways lie at the same place"


def test_it_answers_every_field_of_the_batch_and_of_the_archive(candidates, classical, fields, folder) -> None:
    offered = {item.name: item for item in read_candidates(candidates)}
    own, (_, record) = offered["classical"], classical
    assert (own.extractor, own.head, own.alignment) == ("classical", "classical", "standardise")
    assert (own.extractor_digest, own.head_digest) == (record.extractor.digest, record.heads[-1].digest)
    for name, batch in (("predictions", "b2"), ("archive_predictions", "b1")):
        table = pd.read_parquet(candidates / "classical" / f"{name}.parquet")
        assert table["image_id"].tolist() == fields[batch].table["image_id"].tolist()
        expected = by_hand(fields[batch], folder / "net" / "classical")
        assert table[PROBABILITIES].to_numpy() == pytest.approx(expected, abs=2e-3)


def test_the_gate_measures_it_like_the_others(candidates, classical, datasets, params, tmp_path) -> None:
    report = judge(datasets["b2"], candidates, tmp_path / "gate.json", params=params, settings=classical[0])
    scores = {score.name: score for score in report.candidates}
    assert scores["classical"].gain is not None
    assert set(scores["classical"].measures) == set(scores["aligned"].measures)


@pytest.fixture(scope="module")
def chosen(candidates, classical, folder, params):
    """The release that follows where the gate chooses it."""
    before = len(list_versions(classical[0]))
    record = bind(candidates, decided("release", "classical"), folder, params, classical[0], "classical-2")
    assert len(list_versions(classical[0])) == before, "nothing was made, so nothing is registered"
    return record


def test_its_release_binds_the_line_and_its_head(chosen, classical) -> None:
    settings, base = classical
    assert (chosen.method, chosen.alignment) == ("classical", "standardise")
    assert (chosen.extractor, chosen.head) == (base.extractor, base.heads[-1])
    verify_release(chosen, settings=settings)
    with pytest.raises(ConfigError, match="alignment"):
        verify_release(chosen.model_copy(update={"alignment": "none"}), settings=settings)


def test_predictions_are_those_that_were_judged(
    chosen, candidates, classical, datasets, params, tmp_path, monkeypatch
) -> None:
    chosen.write(tmp_path / "release.json")
    given = {"params": params, "settings": classical[0], "publish": False}
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "anew", **given)
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "taken over", candidates=candidates, **given)
    anew, taken = (pd.read_parquet(tmp_path / name / "field.parquet") for name in ("anew", "taken over"))
    judged = pd.read_parquet(candidates / "classical" / "predictions.parquet")
    assert anew[PROBABILITIES].to_numpy() == pytest.approx(judged[PROBABILITIES].to_numpy(), abs=1e-5)
    pd.testing.assert_frame_equal(taken[PROBABILITIES], judged[PROBABILITIES])
    monkeypatch.setattr(predicting, "serve", None)  # answers that are proven need no second reading of all fields
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "again", candidates=candidates, **given)


def test_answers_that_a_sample_disproves_are_made_anew(
    chosen, candidates, classical, datasets, params, tmp_path
) -> None:
    shutil.copytree(candidates, tmp_path / "wrong")
    path = tmp_path / "wrong" / "classical" / "predictions.parquet"
    table = pd.read_parquet(path)
    table[PROBABILITIES] = table[PROBABILITIES].to_numpy()[:, ::-1]
    table.to_parquet(path)
    chosen.write(tmp_path / "release.json")
    given = {"params": params, "settings": classical[0], "publish": False}
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "out", candidates=tmp_path / "wrong", **given)
    judged = pd.read_parquet(candidates / "classical" / "predictions.parquet")
    found = pd.read_parquet(tmp_path / "out" / "field.parquet")
    assert found[PROBABILITIES].to_numpy() == pytest.approx(judged[PROBABILITIES].to_numpy(), abs=1e-5)


def test_where_it_serves_already_it_is_the_incumbent(chosen, classical, datasets, params, tmp_path) -> None:
    adapt(datasets["b2"], datasets["b1"], tmp_path / "out", params=params, settings=classical[0], run_id="later")
    assert [item.name for item in read_candidates(tmp_path / "out") if item.incumbent] == ["classical"]
    kept = bind(
        tmp_path / "out", decided("keep_incumbent", "classical"), tmp_path, params, classical[0], "later"
    )  # fmt: skip
    assert kept == chosen


def test_it_is_measured_beside_a_source_release_that_has_none(
    chosen, candidates, classical, released, datasets, params, moto_server, tmp_path
) -> None:
    own = classical[0].model_copy(update={"platform": moto_server.bucket().uri})
    log = ReleaseLog(own)
    log.append(released, DEFAULT_SCOPE, action="promote", by="test", reason="no classical head", after=0)
    log.append(chosen, "lab_b", action="promote", by="test", reason="serves", after=0)
    adapt(datasets["b2"], datasets["b1"], tmp_path / "out", params=params, settings=own, run_id="old base")
    offered = {item.name: item for item in read_candidates(tmp_path / "out")}
    assert "classical" not in offered
    assert offered["incumbent"].head_digest == chosen.head.digest
    here, there = (
        pd.read_parquet(place / "predictions.parquet")
        for place in (tmp_path / "out" / "incumbent", candidates / "classical")
    )
    assert here[PROBABILITIES].to_numpy() == pytest.approx(there[PROBABILITIES].to_numpy(), abs=1e-6)


def test_mlflow_loads_it_without_a_pickle(classical, chosen, tmp_path) -> None:
    import mlflow.pyfunc

    folder = fetch(chosen.head, tmp_path / "head", settings=classical[0])
    weights, config = load(folder, chosen.head.digest)
    assert config["reads"] == "profile-1"
    mlflow.set_tracking_uri(classical[0].mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/{chosen.head.name}/{chosen.head.version}")
    profiles = np.random.default_rng(0).normal(size=(4, 1, config["width"])).astype(np.float32)
    logits = profiles[:, 0] @ weights["classifier.weight"].numpy().T + weights["classifier.bias"].numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert model.predict(profiles) == pytest.approx(shares, abs=1e-5)
