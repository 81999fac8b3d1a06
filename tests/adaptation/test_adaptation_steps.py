"""The steps adapt, judge and predict, from a registered source release to tables in the platform bucket."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from release_steps import PROBABILITIES, bind, decided

from coda.adaptation.candidates import read_candidates
from coda.contracts.gate import GateReport
from coda.contracts.release import ReleaseRecord
from coda.errors import ConfigError, ContractError, IntegrityError
from coda.networks.artifact import folder_digest
from coda.plates.dataset import open_batches
from coda.registry import (
    DEFAULT_SCOPE,
    Provenance,
    ReleaseLog,
    fetch,
    list_versions,
    register_extractor,
)
from coda.steps.adapt import adapt
from coda.steps.judge import judge
from coda.steps.predict import predict
from coda.steps.publication import current

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides


@pytest.fixture(scope="module")
def candidates(folder, params, settings, datasets, released):
    """What adapting to the second batch leaves, with the first as its archive."""
    adapt(datasets["b2"], datasets["b1"], folder / "candidates", params=params, settings=settings, run_id="adapt-2")
    return folder / "candidates"


def test_adapt_lays_out_the_candidates_of_the_batch(candidates, released, folder):
    offered = {candidate.name: candidate for candidate in read_candidates(candidates)}
    assert offered["unadapted"].extractor_digest == released.extractor.digest
    assert offered["coda+aligned"].head_digest == released.heads[1].digest
    assert ReleaseRecord.read(candidates / "base_release.json") == released
    log = json.loads((candidates / "training.json").read_text())
    measured = [entry["iteration"] for entry in log["log"]]
    assert [entry["iteration"] for entry in log["speed"]] == measured
    assert all(entry["samples_per_s"] > 0 for entry in log["speed"])
    assert (log["method"], log["pairs"]) == ("coda", "batch")
    table = pd.read_parquet(candidates / "coda" / "predictions.parquet")
    assert set(table["Metadata_Batch"]) == {"b2"}
    assert not (folder / "checkpoints" / "adapt-2" / "adapt").exists()


def test_two_processes_adapt_to_what_one_does(candidates, datasets, settings, tiny, folder, tmp_path):
    """The whole step, serving included; what needs no training is the same to the bit."""
    both = tiny("compute.processes=2")
    out, models = tmp_path / "out", tmp_path / "models"
    given = {"params": both, "settings": settings, "run_id": "adapt-both", "models": models}
    offered = adapt(datasets["b2"], datasets["b1"], out, **given)
    assert [item.name for item in offered] == [item.name for item in read_candidates(candidates)]
    made = [path.name for place in (out, models) for path in place.iterdir()]
    assert sorted(made) == sorted(path.name for path in candidates.iterdir())
    assert (models / "extractor").is_dir()
    present = [item.name for item in offered if item.extractor == "base"]
    assert present
    for name in present:
        one, two = (pd.read_parquet(at / name / "predictions.parquet") for at in (candidates, out))
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    one, two = (safetensors.numpy.load_file(at / "extractor" / "weights.safetensors") for at in (candidates, models))
    before = safetensors.numpy.load_file(folder / "net" / "extractor" / "weights.safetensors")
    moved = 0.0
    for name, tensor in one.items():
        # constants that BatchNorm or softmax take off again: their gradient is rounding, which AdamW scales up
        if name.endswith(("vit.norm.bias", ".qkv.bias")):
            continue
        moved = max(moved, float(np.abs(tensor - before[name]).max()))
        np.testing.assert_allclose(two[name], tensor, atol=2e-5, rtol=2e-4, err_msg=name)
    assert moved > 1e-3, "the comparison says nothing where nothing was learned"


def test_judge_writes_a_report_about_the_batch(candidates, datasets, params, settings, tmp_path):
    report = judge(datasets["b2"], candidates, tmp_path / "gate.json", params=params, settings=settings)
    assert GateReport.read(tmp_path / "gate.json") == report
    assert (report.source, report.batch) == ("lab_b", "b2")
    assert report.manifest_digest == open_batches(datasets["b2"])[0].manifest.digest()
    assert {score.name for score in report.candidates} == {item.name for item in read_candidates(candidates)}
    assert "lab_b/b2" in report.sentence
    again = judge(datasets["b2"], candidates, tmp_path / "again.json", params=params, settings=settings)
    assert again == report


def test_judge_refuses_answers_that_are_not_whole(candidates, datasets, params, settings, tmp_path):
    shutil.copytree(candidates, tmp_path / "candidates")
    path = tmp_path / "candidates" / "coda" / "predictions.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(IntegrityError, match="coda"):
        judge(datasets["b2"], tmp_path / "candidates", tmp_path / "gate.json", params=params, settings=settings)
    with pytest.raises(ContractError, match="nothing to judge"):
        judge(tmp_path / "empty", candidates, tmp_path / "gate.json", params=params, settings=settings)


def test_predictions_are_those_of_the_judged_candidate_and_land_in_the_bucket(
    candidates, datasets, params, settings, released, moto_server, tmp_path
):
    aligned = released.model_copy(
        update={"release_id": "r-2", "method": "aligned", "head": released.heads[1], "alignment": "standardise"}
    )
    aligned.write(tmp_path / "release.json")
    out = tmp_path / "out"
    summary = predict(datasets["b2"], tmp_path / "release.json", out, params=params, settings=settings)
    field = pd.read_parquet(out / "field.parquet")
    judged = pd.read_parquet(candidates / "aligned" / "predictions.parquet")
    columns = ["p_actin", "p_proteasome", "p_tubulin"]
    assert field["image_id"].tolist() == judged["image_id"].tolist()
    assert field[columns].to_numpy() == pytest.approx(judged[columns].to_numpy(), abs=1e-5)
    assert summary["levels"]["field"]["rows"] == len(field) == 16
    assert set(field["release_id"]) == {"r-2"}
    well = pd.read_parquet(out / "well.parquet")
    assert len(well) == 16
    text = (out / "well.csv").read_text()
    assert text.startswith(
        "plate,well,compound,predicted_mechanism,probability,runner_up,runner_up_probability,fields,"
    )
    assert len(text.splitlines()) == 1 + int((well["Metadata_pert_type"] == "trt").sum())
    store = ReleaseLog(settings).store
    prefix = "predictions/lab_b/b2/r-2/"
    first = {info.key: info.etag for info in store.list(prefix)}
    files = {"field.parquet", "well.parquet", "compound.parquet", "well.csv", "compound.csv", "predictions.json"}
    found = current(store, "lab_b/b2", "r-2")
    assert set(found.files) == files
    stored = pd.read_parquet(io.BytesIO(found.read(store, "field.parquet")))
    pd.testing.assert_frame_equal(stored, field)
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "again", params=params, settings=settings)
    assert {info.key: info.etag for info in store.list(prefix)} == first
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_changed_model_is_refused(datasets, params, settings, released, tmp_path):
    wrong = released.model_copy(update={"head": released.head.model_copy(update={"digest": "f" * 64})})
    wrong.write(tmp_path / "release.json")
    with pytest.raises(IntegrityError):
        predict(datasets["b2"], tmp_path / "release.json", tmp_path / "out", params=params, settings=settings)
    assert not (tmp_path / "out").exists()


def test_without_a_source_release_the_remedy_is_named(datasets, params, moto_server, tmp_path):
    with pytest.raises(ConfigError, match="pipeline run training"):
        adapt(
            datasets["b2"], tmp_path / "none", tmp_path / "out", params=params,
            settings=moto_server.settings(tmp_path), run_id="adapt-3",
        )  # fmt: skip


def test_the_adapted_extractor_can_be_registered_and_fetched_again(candidates, released, settings, folder, tmp_path):
    origin = Provenance(run_id="adapt-2", source="lab_b", params_digest="0" * 64, data=())
    ref = register_extractor(
        candidates / "extractor", candidates / "state", origin, settings=settings, line=released.extractor.digest
    )
    fetched = fetch(ref, tmp_path / "extractor", settings=settings)
    offered = {candidate.name: candidate for candidate in read_candidates(candidates)}
    assert ref.digest == offered["coda"].extractor_digest
    assert np.array_equal(
        (fetched / "weights.safetensors").read_bytes(), (candidates / "extractor" / "weights.safetensors").read_bytes()
    )


@pytest.fixture(scope="module")
def later(folder, params, settings, datasets, released, moto_server):
    """The same models with a release log of their own, in which lab_b has a release adapted to its first batch."""
    own = settings.model_copy(update={"platform": moto_server.bucket().uri})
    ReleaseLog(own).append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    adapt(datasets["b1"], folder / "no archive", folder / "first", params=params, settings=own, run_id="first")
    bind(folder / "first", decided("release", "coda+aligned"), folder, params, own, "first")
    return own


@pytest.fixture(scope="module")
def second(folder, params, datasets, later):
    """What adapting to the second batch leaves where the first one was released."""
    adapt(datasets["b2"], datasets["b1"], folder / "second", params=params, settings=later, run_id="second")
    return folder / "second"


def test_what_serves_the_source_predicts_the_new_batch_as_it_would_serve_it(
    second, later, datasets, params, released, folder, tmp_path
):
    serving = ReleaseLog(later).current("lab_b")
    assert serving.method == "coda+aligned"
    offered = {candidate.name: candidate for candidate in read_candidates(second)}
    assert [name for name, candidate in offered.items() if candidate.incumbent] == ["incumbent"]
    own = offered["incumbent"]
    assert (own.extractor_digest, own.head_digest) == (serving.extractor.digest, serving.head.digest)
    assert own.extractor_digest not in (released.extractor.digest, offered["coda"].extractor_digest)
    assert (own.extractor, own.alignment) == ("incumbent", "standardise")
    assert ReleaseRecord.read(second / "incumbent_release.json") == serving
    serving.write(tmp_path / "release.json")
    predict(datasets["b2"], tmp_path / "release.json", tmp_path / "out", params=params, settings=later)
    served = pd.read_parquet(tmp_path / "out" / "field.parquet")
    judged = pd.read_parquet(second / "incumbent" / "predictions.parquet")
    assert judged["image_id"].tolist() == served["image_id"].tolist()
    assert judged[PROBABILITIES].to_numpy() == pytest.approx(served[PROBABILITIES].to_numpy(), abs=1e-5)
    archived = pd.read_parquet(second / "incumbent" / "archive_predictions.parquet")
    assert set(archived["Metadata_Batch"]) == {"b1"}


def test_adaptation_starts_from_the_source_release_whatever_serves_now(second, candidates):
    for name in ("extractor", "state"):
        assert folder_digest(second / name) == folder_digest(candidates / name)


def test_the_gate_measures_the_incumbent(second, datasets, params, settings, tmp_path):
    report = judge(datasets["b2"], second, tmp_path / "gate.json", params=params, settings=settings)
    assert report.policy_version == "smoke-v1"
    assert (report.evidence.batches, report.evidence.compared_by) == (("lab_b/b1", "lab_b/b2"), "batch")
    assert {item.name for item in report.references} == {"pixels", "untrained"}
    assert all("replicate_map" in item.measures for item in report.references)
    compared = {item.against for item in next(s for s in report.candidates if s.name == "coda").compared}
    assert compared == {"unadapted", "incumbent", "pixels", "untrained"}
    unadapted = next(score for score in report.candidates if score.name == "unadapted")
    assert unadapted.measures["cka_to_baseline"].value == pytest.approx(1.0)
    assert "control_distance" in unadapted.measures
    assert report.incumbent == "incumbent"
    scores = {score.name: score for score in report.candidates}
    assert scores["incumbent"].gain is not None
    assert all(score.gain_over_incumbent is not None for name, score in scores.items() if name != "incumbent")


@pytest.mark.parametrize("outcome", ["keep_incumbent", "refuse"])
def test_the_kept_incumbent_is_its_own_release_unchanged(second, later, params, tmp_path, outcome):
    serving, versions = ReleaseLog(later).current("lab_b"), len(list_versions(later))
    chosen = "incumbent" if outcome == "keep_incumbent" else None
    assert bind(second, decided(outcome, chosen), tmp_path, params, later, f"second-{outcome}") == serving
    assert ReleaseRecord.read(tmp_path / f"second-{outcome}-draft.json") == serving
    assert ReleaseLog(later).current("lab_b") == serving
    assert len(list_versions(later)) == versions


def test_a_run_that_is_repeated_after_its_release_sees_what_it_saw_before(
    later, datasets, params, folder, released, tmp_path
):
    adapt(datasets["b1"], tmp_path / "none", tmp_path / "again", params=params, settings=later, run_id="first")
    assert read_candidates(tmp_path / "again") == read_candidates(folder / "first")
    assert not (tmp_path / "again" / "incumbent_release.json").exists()


def test_a_changed_incumbent_is_refused(second, later, params, tmp_path):
    shutil.copytree(second, tmp_path / "candidates")
    path = tmp_path / "candidates" / "incumbent_release.json"
    ReleaseRecord.read(path).model_copy(update={"release_id": "another"}).write(path)
    with pytest.raises(IntegrityError, match="another"):
        bind(tmp_path / "candidates", decided("keep_incumbent", "incumbent"), tmp_path, params, later, "third")


def test_an_alignment_that_serves_already_is_marked(datasets, params, later, released, moto_server, tmp_path):
    own = later.model_copy(update={"platform": moto_server.bucket().uri})
    log = ReleaseLog(own)
    aligned = released.model_copy(
        update={"release_id": "r-2", "run_id": "earlier", "head": released.heads[1], "alignment": "standardise"}
    )
    log.append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    log.append(aligned, "lab_b", action="promote", by="test", reason="second", after=0)
    few = params.model_copy(
        update={"adaptation": params.adaptation.model_copy(update={"candidates": ("unadapted", "aligned")})}
    )
    adapt(datasets["b2"], datasets["b1"], tmp_path / "out", params=few, settings=own, run_id="third")
    assert [(c.name, c.incumbent) for c in read_candidates(tmp_path / "out")] == [
        ("unadapted", False), ("aligned", True),
    ]  # fmt: skip
    kept = bind(tmp_path / "out", decided("keep_incumbent", "aligned"), tmp_path, params, own, "third")
    assert kept == aligned
    assert len(log.history("lab_b")) == 1


def test_the_command_predicts_with_what_serves_the_source(command, datasets, settings, later, released, tmp_path):
    said = command(settings, datasets["b2"], "--out", tmp_path / "default")
    assert "Predicted with release train-1 (source)" in said
    assert str(tmp_path / "default") in said.replace("\n", "")
    said = command(later, datasets["b2"], "--out", tmp_path / "own")
    assert "Predicted with release first (coda+aligned)" in said
    own, default = (pd.read_parquet(tmp_path / name / "field.parquet") for name in ("own", "default"))
    assert set(own["release_id"]) == {"first"}
    assert not np.allclose(own[PROBABILITIES], default[PROBABILITIES])
    released.write(tmp_path / "release.json")
    command(later, datasets["b2"], "--out", tmp_path / "given", "--release", tmp_path / "release.json")
    given = tmp_path / "given"
    pd.testing.assert_frame_equal(pd.read_parquet(given / "field.parquet"), default)
    rows = [line.split() for line in said.splitlines() if "compound" in line]
    assert str(len(pd.read_parquet(given / "compound.parquet"))) in rows[0]


def test_the_command_says_what_it_lacks(command, datasets, moto_server, tmp_path):
    empty = moto_server.settings(tmp_path)
    with pytest.raises(ConfigError, match="Nothing serves lab_b yet"):
        command(empty, datasets["b2"], "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match="no batch"):
        command(empty, tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
