"""The paper's setting, pool: cls, from pretraining to the gate: everybody looks at the class token."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coda.adaptation.base import Base, FrozenHead
from coda.adaptation.candidates import read_candidates
from coda.adaptation.folder import read_features
from coda.adaptation.references import read_reference
from coda.adaptation.run import adapt_and_serve
from coda.contracts.gate import GateReport
from coda.networks.extractor import load_extractor, save_extractor
from coda.networks.head import SOURCE_STATISTICS, load_head, load_source_statistics, save_head
from coda.steps import judge as judge_module
from coda.steps.judge import judge
from coda.training.head import train_head
from coda.training.head_dataset import cache_head_tokens
from coda.training.labels import LabelList
from coda.training.methods.dino.state import load_state, new_state, save_state
from coda.training.methods.dino.training import train_dino
from coda.training.split import held_out
from coda.training.tokens import extract_tokens

LABELS = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(4)})
SHORT = ("extractor.pool=cls", "pretrain.iterations=3", "pretrain.batch_size=6", "head.budget.iterations=6",
         "head.budget.batch_size=16", "adaptation.budget.iterations=3")  # fmt: skip


@pytest.fixture(scope="module")
def loop(tiny, make_plates, tmp_path_factory):
    """A source is pretrained, heads are trained, and another batch is adapted to; everything through its folder."""
    params, folder = tiny(*SHORT), tmp_path_factory.mktemp("cls")
    source = make_plates(batches=3)
    out = held_out(source.table, params.split.validation_batches)
    state = new_state(params, seed=0)
    train_dino(source.take(~out), params, params.pretrain, state=state, seed=0)
    digest = save_extractor(folder / "extractor", state.teacher)
    save_state(folder / "state", state)
    extractor, heads = load_extractor(folder / "extractor"), {}
    material = cache_head_tokens(extractor, source.take(~out), source.take(out), LABELS, params, seed=0)
    for name in ("none", "standardise"):
        trained = train_head(
            partial(material.training, name), material.validation(name), extractor, params,
            classes=LABELS.classes, alignment=name, seed=0,
        )  # fmt: skip
        saved = save_head(folder / name, trained.head, {SOURCE_STATISTICS: material.source.to_bytes()})
        heads[name] = FrozenHead(load_head(folder / name), load_source_statistics(folder / name), saved)
    base = Base(extractor, digest, load_state(folder / "state"), heads)
    target = make_plates(batches=2)
    adapt_and_serve(base, target, np.ones(len(target), dtype=bool), folder / "candidates", params, seed=0)
    return SimpleNamespace(folder=folder, params=params, base=base, target=target, state=state)


def test_models_say_what_they_were_trained_for(loop):
    for name in ("extractor", "candidates/extractor"):
        assert json.loads((loop.folder / name / "config.json").read_text())["pool"] == "cls"
        assert load_extractor(loop.folder / name).pool == "cls"
    assert load_state(loop.folder / "candidates" / "state").student.pool == "cls"


def test_dino_trains_the_class_token(loop, tiny, make_plates):
    """Against what the head of DINO would see otherwise: with the mean of all tokens other weights are learned."""
    params = tiny(*SHORT, "extractor.pool=mean")
    source = make_plates(batches=3)
    state = new_state(params, seed=0)
    train_dino(source.take(~held_out(source.table, 1)), params, params.pretrain, state=state, seed=0)
    mine, other = loop.state.student.state_dict(), state.student.state_dict()
    assert not torch.equal(mine["vit.blocks.0.mlp.fc1.weight"], other["vit.blocks.0.mlp.fc1.weight"])


def test_every_feature_the_gate_sees_is_of_class_tokens(loop):
    folder, candidates = loop.folder / "candidates", read_candidates(loop.folder / "candidates")
    assert {candidate.pool for candidate in candidates} == {"cls"}
    for extractor, names in (
        (loop.base.extractor, ("unadapted", "aligned")),
        (load_extractor(folder / "extractor"), ("coda", "coda+aligned")),
    ):
        tokens = extract_tokens(extractor, loop.target, loop.params).double().numpy()
        class_tokens, groups = tokens[:, :, 0], loop.target.table["Metadata_Batch"].to_numpy()
        aligned = np.empty_like(class_tokens)
        for group in np.unique(groups):
            own = class_tokens[groups == group]
            flat = own.reshape(-1, own.shape[-1])
            aligned[groups == group] = (own - flat.mean(0)) / (flat.std(0) + 1e-6)
        for name, expected in zip(names, (class_tokens, aligned), strict=True):
            candidate = next(item for item in candidates if item.name == name)
            assert read_features(folder, candidate) == pytest.approx(expected.mean(1), abs=2e-3)
    untrained = read_reference(folder, "untrained", len(loop.target))
    assert not np.allclose(untrained, np.load(folder / "features_base.npy"))


def test_the_report_says_that_features_are_class_tokens(loop, monkeypatch, tmp_path):
    manifest = SimpleNamespace(source="lab", batch="b1", digest=lambda: "0" * 64)
    monkeypatch.setattr(judge_module, "open_batches", lambda _folder: [SimpleNamespace(manifest=manifest)])
    judge(tmp_path, loop.folder / "candidates", tmp_path / "gate.json", params=loop.params, settings=None)
    report = GateReport.read(tmp_path / "gate.json")
    scopes = {scope.measure: scope.computed_on for scope in report.scopes}
    assert "class tokens" in scopes["rankme"]
    assert "class tokens" in scopes["cka_to_baseline"]
    assert "mean over tokens" not in " ".join(scopes.values())
    assert "probabilities" in scopes["agreement"]
