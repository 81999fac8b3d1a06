"""A whole adaptation: frozen heads, blindness to labels, exact resume, and the folder it writes."""

import inspect
import json
import pkgutil
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch

import coda.adaptation
from coda.adaptation import run as run_module
from coda.adaptation.base import FrozenHead
from coda.adaptation.candidates import read_candidates
from coda.adaptation.folder import read_features, statistics_folder
from coda.adaptation.references import read_reference, reference_features, write_references
from coda.adaptation.run import adapt_and_serve, weights_digest
from coda.adaptation.serving import Way, serve
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.networks.artifact import folder_digest
from coda.networks.extractor import load_extractor
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.methods.dino import objective as dino_objective
from coda.training.methods.dino.state import load_state


def everything(fields):
    return np.ones(len(fields), dtype=bool)


def test_the_candidates_folder(tiny, make_base, make_plates, tmp_path):
    params, base, fields = tiny(), make_base(), make_plates(batches=2)
    is_batch = (fields.table["Metadata_Batch"] == "b1").to_numpy()
    candidates = adapt_and_serve(base, fields, is_batch, tmp_path, params, seed=1)
    assert read_candidates(tmp_path) == candidates
    assert [candidate.name for candidate in candidates] == [
        "unadapted", "aligned", "coral", "coda", "coda+aligned", "coda+coral",
    ]  # fmt: skip
    adapted = folder_digest(tmp_path / "extractor")
    for candidate in candidates:
        assert candidate.extractor_digest == (adapted if candidate.extractor == "adapted" else "a" * 64)
        assert candidate.head_digest == base.heads[candidate.head].digest
        table = pd.read_parquet(tmp_path / candidate.name / "predictions.parquet")
        assert set(table["Metadata_Batch"]) == {"b1"}
        assert table[["p_actin", "p_proteasome", "p_tubulin"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
        archive = pd.read_parquet(tmp_path / candidate.name / "archive_predictions.parquet")
        assert set(archive["Metadata_Batch"]) == {"b0"}
        assert read_features(tmp_path, candidate).shape == (len(fields), 16)
        aligned = candidate.alignment != "none"
        assert (tmp_path / candidate.name / "features.npy").is_file() == aligned  # else they are its extractor's
        if aligned:  # the archive's groups are of no use to whoever serves the batch
            groups = json.loads((statistics_folder(tmp_path, candidate.extractor) / "groups.json").read_text())
            assert set(groups) == {"lab/b1"}
    assert len(pd.read_parquet(tmp_path / "fields.parquet")) == len(fields)
    assert np.load(tmp_path / "features_adapted.npy").shape == (len(fields), 16)
    pixels, untrained = (read_reference(tmp_path, name, len(fields)) for name in ("pixels", "untrained"))
    assert pixels.shape == (len(fields), 3 * 9)
    assert untrained.shape == (len(fields), 16)
    assert not np.allclose(untrained, np.load(tmp_path / "features_base.npy"))
    log = json.loads((tmp_path / "training.json").read_text())
    assert (log["method"], log["pairs"], log["pairable_share"]) == ("coda", "batch", 1.0)
    assert len(log["log"]) == 8
    drift = json.loads((tmp_path / "drift.json").read_text())
    assert set(drift["base"]["to_source"]) == {"lab/b0", "lab/b1"}
    served = load_extractor(tmp_path / "extractor", adapted)
    teacher = load_state(tmp_path / "state").teacher
    for name, tensor in served.state_dict().items():
        assert torch.equal(tensor, teacher.state_dict()[name])


def test_adaptation_changes_the_extractor_and_nothing_of_the_heads(tiny, make_base, make_plates, tmp_path):
    base, fields = make_base(), make_plates()
    before = {name: weights_digest(frozen.head) for name, frozen in base.heads.items()}
    original = base.extractor.state_dict()["vit.cls_token"].clone()
    adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(), seed=1)
    assert {name: weights_digest(frozen.head) for name, frozen in base.heads.items()} == before
    adapted = load_extractor(tmp_path / "extractor").state_dict()["vit.cls_token"]
    assert not torch.equal(adapted, original)
    assert torch.equal(base.extractor.state_dict()["vit.cls_token"], original)


def test_the_optimizer_holds_no_parameter_of_a_head(tiny, make_base, make_plates, tmp_path, monkeypatch):
    base, fields, held = make_base(), make_plates(), set()
    real = dino_objective.new_optimizer

    def watched(*arguments, **options):
        optimizer = real(*arguments, **options)
        held.update(id(p) for group in optimizer.param_groups for p in group["params"])
        return optimizer

    monkeypatch.setattr(dino_objective, "new_optimizer", watched)
    adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(), seed=1)
    heads = {id(p) for frozen in base.heads.values() for p in frozen.head.parameters()}
    dino_heads = {id(p) for head in (base.state.student_head, base.state.teacher_head) for p in head.parameters()}
    assert held == {id(p) for p in base.state.student.parameters()}
    assert not held & (heads | dino_heads)


def test_a_head_that_changes_stops_the_run(tiny, make_base, make_plates, tmp_path, monkeypatch):
    base, fields = make_base(), make_plates()
    real = run_module.adapt_extractor

    def meddling(*arguments, **options):
        result = real(*arguments, **options)
        with torch.no_grad():
            base.heads["standardise"].head.classifier.bias[0] += 1e-6
        return result

    monkeypatch.setattr(run_module, "adapt_extractor", meddling)
    with pytest.raises(IntegrityError, match="standardise"):
        adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(), seed=1)
    assert not (tmp_path / "candidates.json").exists()


@pytest.mark.parametrize("with_incumbent", [False, True])
def test_adaptation_is_blind_to_labels(tiny, make_base, make_incumbent, make_plates, tmp_path, with_incumbent):
    fields = make_plates()
    incumbent = make_incumbent() if with_incumbent else None
    digests = []
    for number, (classes, seed) in enumerate([(("a", "b", "c"), 1), (("c", "a", "b"), 2), (("x", "y"), 3)]):
        base = make_base(classes=classes, head_seed=seed)
        out = tmp_path / str(number)
        adapt_and_serve(base, fields, everything(fields), out, tiny(), seed=1, incumbent=incumbent)
        digests.append((folder_digest(out / "extractor"), folder_digest(out / "state")))
    assert len(set(digests)) == 1


def test_no_function_of_the_package_takes_a_label_or_imports_them():
    modules = [import_module(f"coda.adaptation.{item.name}") for item in pkgutil.iter_modules(coda.adaptation.__path__)]
    assert len(modules) >= 8
    for module in modules:
        source = inspect.getsource(module)
        assert "training.labels" not in source
        assert "evaluation.accuracy" not in source
        for name, function in inspect.getmembers(module, inspect.isfunction):
            taken = set(inspect.signature(function).parameters)
            assert not taken & {"label", "labels", "moa", "mechanism", "mechanisms", "truth", "codes"}, name


@pytest.mark.parametrize("column", ["moa", "Metadata_moa", "mechanism"])
def test_a_table_with_labels_is_refused(tiny, make_base, make_plates, tmp_path, column):
    fields = make_plates()
    labelled = FieldSet(fields.images, fields.table.assign(**{column: "actin"}), fields.channels)
    with pytest.raises(ConfigError, match=column):
        adapt_and_serve(make_base(), labelled, everything(fields), tmp_path, tiny(), seed=1)


def test_an_interrupted_run_ends_with_the_same_bits(tiny, make_base, make_plates, tmp_path):
    params, fields = tiny(), make_plates()
    adapt_and_serve(make_base(), fields, everything(fields), tmp_path / "whole", params, seed=1)
    checkpoints, asked = Checkpoints(tmp_path / "checkpoints"), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(TransientError, match="interrupted"):
        adapt_and_serve(
            make_base(), fields, everything(fields), tmp_path / "parts", params, seed=1,
            checkpoints=checkpoints, should_stop=stop,
        )  # fmt: skip
    assert not (tmp_path / "parts" / "candidates.json").exists()
    adapt_and_serve(
        make_base(), fields, everything(fields), tmp_path / "parts", params, seed=1, checkpoints=checkpoints
    )
    for name in ("extractor", "state"):
        assert folder_digest(tmp_path / "whole" / name) == folder_digest(tmp_path / "parts" / name)


def test_an_incumbent_of_its_own_is_served_like_the_others_and_nothing_comes_from_it(
    tiny, make_base, make_incumbent, make_plates, tmp_path
):
    params, base, fields, incumbent = tiny(), make_base(), make_plates(batches=2), make_incumbent()
    is_batch = (fields.table["Metadata_Batch"] == "b1").to_numpy()
    expected = serve(
        incumbent.extractor, [Way("x", "standardise", incumbent.head.head, incumbent.head.source)], fields, params
    )
    with_it = adapt_and_serve(base, fields, is_batch, tmp_path / "with", params, seed=1, incumbent=incumbent)
    without = adapt_and_serve(make_base(), fields, is_batch, tmp_path / "without", params, seed=1)
    assert [candidate.name for candidate in with_it] == ["unadapted", "incumbent", *[c.name for c in without[1:]]]
    assert [candidate for candidate in with_it if candidate.name != "incumbent"] == without
    own = with_it[1]
    assert (own.extractor, own.alignment, own.head, own.incumbent) == ("incumbent", "standardise", "standardise", True)
    assert (own.extractor_digest, own.head_digest) == ("b" * 64, incumbent.head.digest)
    for name in ("extractor", "state"):
        assert folder_digest(tmp_path / "with" / name) == folder_digest(tmp_path / "without" / name)
    for candidate in without:
        parts = [tmp_path / run / candidate.name / "predictions.parquet" for run in ("with", "without")]
        assert parts[0].read_bytes() == parts[1].read_bytes()
        features = [read_features(tmp_path / run, candidate) for run in ("with", "without")]
        assert np.array_equal(*features)
    folder = tmp_path / "with" / "incumbent"
    table = pd.concat([pd.read_parquet(folder / f"{part}predictions.parquet") for part in ("archive_", "")])
    found = table.set_index("image_id").loc[fields.table["image_id"], ["p_actin", "p_proteasome", "p_tubulin"]]
    assert found.to_numpy() == pytest.approx(expected.ways["x"].probabilities, abs=1e-6)
    assert np.load(tmp_path / "with" / "features_incumbent.npy") == pytest.approx(expected.features, abs=1e-6)
    assert (statistics_folder(tmp_path / "with", "incumbent") / "groups.json").is_file()
    assert set(json.loads((tmp_path / "with" / "drift.json").read_text())) == {"base", "adapted", "incumbent"}


def test_an_incumbent_that_is_one_of_the_ways_is_marked_and_not_served_twice(
    tiny, make_base, make_incumbent, make_plates, tmp_path
):
    base, fields = make_base(), make_plates()
    same = make_incumbent(extractor=base.extractor, extractor_digest=base.extractor_digest)
    candidates = adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(), seed=1, incumbent=same)
    assert [c.name for c in candidates if c.incumbent] == ["aligned"]
    assert not (tmp_path / "incumbent").exists()
    assert read_candidates(tmp_path) == candidates


def test_an_incumbent_with_the_bases_extractor_needs_no_further_features(
    tiny, make_base, make_incumbent, make_plates, tmp_path
):
    base, fields = make_base(), make_plates()
    params = tiny("adaptation.candidates=[unadapted, coda]")
    same = make_incumbent(extractor=base.extractor, extractor_digest=base.extractor_digest)
    candidates = adapt_and_serve(base, fields, everything(fields), tmp_path, params, seed=1, incumbent=same)
    assert [(c.name, c.extractor) for c in candidates] == [
        ("unadapted", "base"), ("incumbent", "base"), ("coda", "adapted"),
    ]  # fmt: skip
    assert candidates[1].extractor_digest == base.extractor_digest
    assert not (tmp_path / "features_incumbent.npy").exists()
    assert np.load(tmp_path / "incumbent" / "features.npy").shape == (len(fields), 16)


def test_an_incumbent_of_another_line_has_its_own_mechanisms_and_stains(
    tiny, make_base, make_incumbent, make_plates, tmp_path
):
    fields = make_plates()
    older = make_base(classes=("kinase", "tubulin"), head_seed=9)
    frozen = FrozenHead(older.heads["none"].head, older.heads["none"].source, "c" * 64)
    other = FieldSet(fields.images[:, ::-1].copy(), fields.table, ("RNA", "AGP", "DNA"))
    incumbent = make_incumbent("coral", head=frozen, fields=other)
    incumbent.extractor.config["channels"] = list(other.channels)
    adapt_and_serve(make_base(), fields, everything(fields), tmp_path, tiny(), seed=1, incumbent=incumbent)
    table = pd.read_parquet(tmp_path / "incumbent" / "predictions.parquet")
    assert [name for name in table.columns if name.startswith("p_")] == ["p_kinase", "p_tubulin"]
    assert table["image_id"].tolist() == fields.table["image_id"].tolist()
    expected = serve(incumbent.extractor, [Way("x", "coral", frozen.head, frozen.source)], other, tiny())
    assert table[["p_kinase", "p_tubulin"]].to_numpy() == pytest.approx(expected.ways["x"].probabilities, abs=1e-6)


def test_a_head_of_the_incumbent_that_changes_stops_the_run(
    tiny, make_base, make_incumbent, make_plates, tmp_path, monkeypatch
):
    fields, older = make_plates(), make_base(head_seed=9)
    incumbent = make_incumbent("none", head=older.heads["none"])
    real = run_module.adapt_extractor

    def meddling(*arguments, **options):
        with torch.no_grad():
            older.heads["none"].head.classifier.bias[0] += 1e-6
        return real(*arguments, **options)

    monkeypatch.setattr(run_module, "adapt_extractor", meddling)
    with pytest.raises(IntegrityError, match="incumbent"):
        adapt_and_serve(make_base(), fields, everything(fields), tmp_path, tiny(), seed=1, incumbent=incumbent)


def test_one_plate_is_adapted_to_without_pairs(tiny, make_base, make_plates, tmp_path):
    fields = make_plates(plates=1)
    candidates = adapt_and_serve(make_base(), fields, everything(fields), tmp_path, tiny(), seed=1)
    assert [c.name for c in candidates if c.extractor == "adapted"] == ["oda", "oda+aligned", "oda+coral"]
    log = json.loads((tmp_path / "training.json").read_text())
    assert (log["method"], log["pairs"]) == ("oda", "none")


def test_alignment_alone_trains_nothing(tiny, make_base, make_plates, tmp_path):
    fields, params = make_plates(), tiny("adaptation.candidates=[unadapted, aligned]")
    candidates = adapt_and_serve(make_base(), fields, everything(fields), tmp_path, params, seed=1)
    assert [candidate.name for candidate in candidates] == ["unadapted", "aligned"]
    assert not (tmp_path / "extractor").exists()


def test_a_missing_head_is_named(tiny, make_base, make_plates, tmp_path):
    base, fields = make_base(), make_plates()
    del base.heads["standardise"]
    with pytest.raises(ConfigError, match=r"aligned.*standardise"):
        adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(), seed=1)


def test_references_depend_on_the_seed_alone_and_are_refused_when_they_are_not_whole(
    tiny, make_base, make_plates, tmp_path
):
    fields, config = make_plates(), make_base().extractor.config
    first, again, other = (reference_features(fields, config, tiny(), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first["untrained"], again["untrained"])
    assert not np.allclose(first["untrained"], other["untrained"])
    assert np.array_equal(first["pixels"], other["pixels"])
    with pytest.raises(IntegrityError, match="pixels"):
        read_reference(tmp_path, "pixels", 3)
    write_references(tmp_path, first)
    with pytest.raises(IntegrityError, match="features of 3 fields"):
        read_reference(tmp_path, "pixels", 3)
