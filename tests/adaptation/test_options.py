"""Options in a whole run: heads stay frozen, needs are named, ODA beside CODA, and no label is within reach."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.hooks import class_prior, new_hooks
from coda.adaptation.pairing_policy import choose_pairing, pairings_for
from coda.adaptation.run import adapt_and_serve, weights_digest
from coda.config import load_params
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.networks.artifact import folder_digest
from coda.networks.extractor import load_extractor
from coda.networks.head import LABELS, SOURCE_STATISTICS, load_class_shares, save_head
from coda.steps.keeping import kept_checkpoints
from coda.training.checkpoint import Checkpoints
from coda.training.classifier_trainer import Plateau
from coda.training.labels import LabelList
from coda.training.pairs import PairSampler

ALL_ON = (
    "adaptation.anchor={weights: 0.1, features: 0.1}",
    "adaptation.diversity={strength: 1.0, head: standardise, prior: uniform}",
    "adaptation.stopping={every: 2, criterion: agreement, alignment: standardise, patience: 9}",
)
BOTH = "adaptation.candidates=[unadapted, aligned, oda, oda+aligned, coda, coda+aligned]"


def everything(fields):
    return np.ones(len(fields), dtype=bool)


def test_options_leave_the_heads_alone_and_tell_what_they_saw(tiny, make_base, make_plates, tmp_path):
    base, fields = make_base(), make_plates()
    before = {name: weights_digest(frozen.head) for name, frozen in base.heads.items()}
    adapt_and_serve(base, fields, everything(fields), tmp_path, tiny(*ALL_ON), seed=1)
    assert {name: weights_digest(frozen.head) for name, frozen in base.heads.items()} == before
    log = json.loads((tmp_path / "training.json").read_text())
    assert {"weight_anchor", "feature_anchor", "diversity"} <= set(log["log"][0])
    assert [look["iteration"] for look in log["stopping"]["looks"]] == [0, 2, 4, 6, 8]
    assert log["stopping"]["best"] in (0, 2, 4, 6, 8)


def train(base, fields, params):
    pairing = choose_pairing(fields.table, min_pairable_share=0.5)
    return adapt_extractor(base.state, fields, params, pairing, seed=1, heads=base.heads)


@pytest.mark.parametrize(
    ("option", "term"),
    [
        ("adaptation.anchor.weights=20.0", "weight_anchor"),
        ("adaptation.anchor.features=20.0", "feature_anchor"),
        ("adaptation.diversity.strength=20.0", "diversity"),
    ],
)
def test_a_strong_term_gets_smaller_than_without_it(tiny, make_base, make_plates, option, term):
    fields, more = make_plates(), ("adaptation.budget.iterations=30", "adaptation.budget.warmup_epochs=0.0")
    weak = f"{option.partition('=')[0]}=0.000001"
    ends = {}
    for setting in (weak, option):
        params = tiny(setting, *more)
        result = train(make_base(), fields, params)
        ends[setting] = np.mean([entry[term] for entry in result.log[-5:]]) / float(setting.partition("=")[2])
    assert ends[option] < 0.8 * ends[weak]


def test_each_option_is_off_until_it_is_asked_for(root, make_base, make_plates, tiny):
    params = load_params(root / "params.yaml")
    chosen = params.adaptation
    assert (chosen.trainable, chosen.dino_head) == ("all", "trained")
    assert (chosen.anchor.weights, chosen.anchor.features, chosen.diversity.strength) == (0, 0, 0)
    assert (chosen.stopping.every, chosen.stopping.criterion) == (0, "none")
    base = make_base()
    hooks, described = new_hooks(base.state, make_plates(), tiny(), {}, seed=0)
    assert (hooks.regularizers, hooks.early_stopping, described["heads"]) == ([], None, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("adaptation.diversity.strength=1.0",), "a head trained with alignment 'none'"),
        (("adaptation.stopping.every=2", "adaptation.stopping.alignment=standardise"), "alignment 'standardise'"),
        (("adaptation.anchor.features=1.0",), "a head trained with alignment"),
    ],
)
def test_a_head_that_an_option_needs_and_the_release_lacks_is_named(tiny, make_base, make_plates, changes, told):
    base, fields = make_base(), make_plates()
    pairing = choose_pairing(fields.table, min_pairable_share=0.5)
    with pytest.raises(ConfigError, match=told):
        adapt_extractor(base.state, fields, tiny(*changes), pairing, seed=1)


def test_the_prior_of_the_compounds_is_the_releases_share_of_each_mechanism(tiny, make_base, tmp_path):
    head = make_base().heads["none"]
    labels = LabelList({"a": "actin", "b": "actin", "c": "tubulin", "d": "proteasome"})
    save_head(tmp_path / "h", head.head, {LABELS: labels.to_bytes(), SOURCE_STATISTICS: head.source.to_bytes()})
    shares = load_class_shares(tmp_path / "h", head.head.classes)
    assert shares == (0.5, 0.25, 0.25)
    assert class_prior(replace(head, prior=shares), "compounds").tolist() == [0.5, 0.25, 0.25]
    assert class_prior(replace(head, prior=shares), "uniform").tolist() == pytest.approx([1 / 3] * 3)
    save_head(tmp_path / "without", head.head, {SOURCE_STATISTICS: head.source.to_bytes()})
    assert load_class_shares(tmp_path / "without", head.head.classes) is None
    save_head(tmp_path / "broken", head.head, {LABELS: b"[1]", SOURCE_STATISTICS: head.source.to_bytes()})
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        load_class_shares(tmp_path / "broken", head.head.classes)


def test_a_prior_that_the_release_does_not_hold_is_refused(tiny, make_base, make_plates):
    params = tiny("adaptation.diversity={strength: 1.0, head: none, prior: compounds}")
    with pytest.raises(ConfigError, match="prior=uniform"):
        train(make_base(), make_plates(), params)


def test_the_prior_steers_the_mean_prediction(tiny, make_base, make_plates):
    fields, ends = make_plates(), []
    params = tiny(
        "adaptation.diversity={strength: 50.0, head: none, prior: compounds}", "adaptation.budget.iterations=40",
        "adaptation.budget.warmup_epochs=0.0",
    )  # fmt: skip
    for prior in ((0.9, 0.05, 0.05), (0.05, 0.05, 0.9)):
        base = make_base()
        heads = {name: replace(frozen, prior=prior) for name, frozen in base.heads.items()}
        result = train(replace(base, heads=heads), fields, params)
        ends.append(result.log[-1]["diversity"] / result.log[0]["diversity"])
    assert max(ends) < 0.5


def test_oda_and_coda_in_one_run_are_what_each_is_alone(tiny, make_base, make_plates, tmp_path):
    fields = make_plates(batches=2)
    both = adapt_and_serve(make_base(), fields, everything(fields), tmp_path / "both", tiny(BOTH), seed=1)
    assert [c.name for c in both] == ["unadapted", "aligned", "oda", "oda+aligned", "coda", "coda+aligned"]
    alone = {}
    for method in ("oda", "coda"):
        params = tiny(f"adaptation.candidates=[unadapted, aligned, {method}, {method}+aligned]")
        found = adapt_and_serve(make_base(), fields, everything(fields), tmp_path / method, params, seed=1)
        assert {c.extractor for c in found if c.method} == {"adapted"}
        alone |= {candidate.name: candidate for candidate in found}
    folders = {"coda": ("extractor", "state"), "oda": ("extractor_oda", "state_oda")}
    for method, names in folders.items():
        for name, own in zip(names, ("extractor", "state"), strict=True):
            assert folder_digest(tmp_path / "both" / name) == folder_digest(tmp_path / method / own)
    for candidate in both:
        extra = {"extractor": "adapted"} if candidate.extractor == "adapted_oda" else {}
        assert candidate.model_copy(update=extra) == alone[candidate.name]
        method = candidate.method or "coda"
        parts = [tmp_path / run / candidate.name / "predictions.parquet" for run in ("both", method)]
        assert pd.read_parquet(parts[0]).equals(pd.read_parquet(parts[1]))
    log = json.loads((tmp_path / "both" / "training.json").read_text())
    assert (log["method"], log["adapted_oda"]["method"]) == ("coda", "oda")
    assert set(json.loads((tmp_path / "both" / "drift.json").read_text())) == {"base", "adapted", "adapted_oda"}
    first, second = (load_extractor(tmp_path / "both" / name) for name in ("extractor", "extractor_oda"))
    assert not torch.equal(first.state_dict()["vit.cls_token"], second.state_dict()["vit.cls_token"])


@pytest.mark.parametrize("stop_after", [5, 13])
def test_a_run_of_both_that_is_stopped_in_either_training_ends_with_the_same_bits(
    tiny, make_base, make_plates, tmp_path, stop_after
):
    fields, params = make_plates(), tiny(BOTH)
    adapt_and_serve(make_base(), fields, everything(fields), tmp_path / "whole", params, seed=1)
    checkpoints, asked = Checkpoints(tmp_path / "checkpoints"), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > stop_after

    with pytest.raises(TransientError):
        adapt_and_serve(
            make_base(), fields, everything(fields), tmp_path / "parts", params, seed=1,
            checkpoints=checkpoints, should_stop=stop,
        )  # fmt: skip
    adapt_and_serve(
        make_base(), fields, everything(fields), tmp_path / "parts", params, seed=1, checkpoints=checkpoints
    )
    for name in ("extractor", "state", "extractor_oda", "state_oda"):
        assert folder_digest(tmp_path / "whole" / name) == folder_digest(tmp_path / "parts" / name)


def test_object_storage_keeps_two_checkpoints_of_each_training_of_a_step(moto_server, tmp_path, monkeypatch):
    store = moto_server.bucket()
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    place = moto_server.settings(tmp_path).model_copy(update={"checkpoints": f"{store.uri}/keep"})
    with pytest.raises(RuntimeError, match="gone"), kept_checkpoints(place, "r", "adapt") as checkpoints:  # noqa: PT012
        for prefix in ("", "oda-"):
            for iteration in (2, 4, 6):
                replace(checkpoints, prefix=prefix).save(iteration, "x", {"a": torch.zeros(1)}, {})
        raise RuntimeError("the pod is gone")
    kept = {info.key.split("/")[3] for info in store.list()}
    assert kept == {"00000004", "00000006", "oda-00000004", "oda-00000006"}
    with kept_checkpoints(place, "r", "adapt") as checkpoints:
        assert [path.name for path in checkpoints.finished()] == ["00000004", "00000006"]
        second = replace(checkpoints, prefix="oda-")
        assert [path.name for path in second.finished()] == ["oda-00000004", "oda-00000006"]
    assert list(store.list()) == []


def test_the_released_codes_ways(root, make_plates):
    params = load_params(root / "params.yaml", [root / "params" / "reference.yaml"])
    table = make_plates(batches=2, plates=2).table
    pairings = pairings_for(table, params.adaptation, params.pairs)
    assert {name: (pairing.method, pairing.by) for name, pairing in pairings.items()} == {"adapted": ("coda", "plate")}
    sampler = PairSampler(table, params.pairs)
    assert sampler.report.controls > 0
    assert sampler.fields_per_epoch == (table["Metadata_pert_type"] == "trt").sum(), "controls are left out"
    alone = table[table["Metadata_Plate"] == "b0p0"].reset_index(drop=True)
    with pytest.raises(ConfigError, match="no partner"):
        PairSampler(alone, params.pairs)
    plateau = Plateau(params.head.plateau_factor, params.head.plateau_patience)
    for validation in range(round(params.head.budget.epochs)):
        plateau.improves(0.5, 1.0 + validation)
    assert plateau.scale == 1
    assert not params.adaptation.carry_centre


@pytest.mark.parametrize("change", ["dino.prototypes=7", "dino.batch_norm=false", "extractor.pool=cls"])
def test_parameters_that_contradict_the_state_are_refused_and_both_are_named(tiny, make_base, make_plates, change):
    key, _, asked = change.partition("=")
    with pytest.raises(ConfigError, match="contradict") as error:
        train(make_base(), make_plates(), tiny(change))
    (problem,) = error.value.problems
    assert problem.where == key
    assert asked in problem.found.lower()
    kept = tiny().model_dump()[key.partition(".")[0]][key.partition(".")[2]]
    # the remedy can be typed
    assert f"Set {key}={kept}," in problem.remedy
    train(make_base(), make_plates(), tiny(f"{key}={kept}"))


def test_a_state_that_does_not_say_what_its_head_sees_is_trained_as_the_parameters_say(tiny, make_base, make_plates):
    def without_record(pool: str) -> dict[str, torch.Tensor]:
        base = make_base()
        for network in (base.state.student, base.state.teacher):
            del network.config["pool"]
        return train(base, make_plates(), tiny(f"extractor.pool={pool}")).state.state_dict()

    recorded = train(make_base(), make_plates(), tiny()).state.state_dict()
    assert all(torch.equal(tensor, without_record("mean")[name]) for name, tensor in recorded.items())
    assert not all(torch.equal(tensor, without_record("cls")[name]) for name, tensor in recorded.items())


def test_without_options_nothing_depends_on_the_heads(tiny, make_base, make_plates):
    fields = make_plates()
    states = []
    for classes, seed in ((("a", "b", "c"), 1), (("x", "y"), 2)):
        base = make_base(classes=classes, head_seed=seed)
        states.append(deepcopy(train(base, fields, tiny("adaptation.trainable=norms")).state.state_dict()))
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
