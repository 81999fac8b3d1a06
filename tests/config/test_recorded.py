"""Recorded facts against today's parameters: what contradicts, what is set aside, and what nobody tells."""

import pytest

from coda.config import load_params
from coda.config.recorded import Fact, Today, joined, model_facts, refuse_contradictions, set_aside, settled, told
from coda.config.served_params import OF_TODAY
from coda.errors import ConfigError

MODEL = {
    "kind": "extractor", "arch": "deit_small_patch16_224", "overrides": {}, "channels": ["DNA", "AGP", "RNA"],
    "crops": {"centre": 128, "global_size": 48, "local_size": 32, "normalise": "crop", "eval_grid": 2, "flips": False},
    "trained": {"compute.precision": "bfloat16", "alignment.by": "batch", "preparations": []},
}  # fmt: skip


@pytest.fixture
def facts():
    return model_facts(MODEL, "coda-extractor version 1")


def read(root, monkeypatch, *, base=None, overlays=(), settings=()):
    monkeypatch.chdir(root)
    return Today.read(base, overlays, settings)


def test_a_default_gives_way_and_is_told(root, monkeypatch, facts):
    today = read(root, monkeypatch)
    refuse_contradictions(facts, today)
    notes = set_aside(facts, today)
    assert (
        "crops.global_size: 48 is used, as recorded in config.json of coda-extractor version 1; params.yaml has 224"
        in notes
    )
    assert not [note for note in notes if "precision" in note], "auto leaves the choice to the program"
    used = settled(facts, today)
    assert (used.crops.centre, used.crops.global_size, used.compute.precision) == (128, 48, "bfloat16")
    assert used.crops.flips, "what varies views in training is today's"
    assert used.pretrain == today.params.pretrain


@pytest.mark.parametrize(
    ("stated", "where"),
    [
        ({"settings": ["crops.global_size=64"]}, "--set crops.global_size=64"),
        ({"overlays": ["overlay.yaml"]}, "overlay.yaml"),
        ({"base": "params.yaml"}, "params.yaml"),
    ],
)
def test_a_stated_value_that_contradicts_is_an_error_that_names_both(root, monkeypatch, tmp_path, facts, stated, where):
    (tmp_path / "overlay.yaml").write_text("crops: {global_size: 64}\n")
    stated = dict(stated)
    if "overlays" in stated:
        stated["overlays"] = [tmp_path / "overlay.yaml"]
    if "base" in stated:
        stated["base"] = root / "params.yaml"
    today = read(root, monkeypatch, **stated)
    for attempt in (refuse_contradictions, settled, lambda *given: told(*given, [])):
        with pytest.raises(ConfigError) as caught:
            attempt(facts, today)
        (problem,) = [item for item in caught.value.problems if item.where == "crops.global_size"]
        assert where in problem.found
        assert "48, recorded in config.json of coda-extractor version 1" in problem.expected
        assert "crops.global_size=48" in problem.remedy


def test_the_recorded_values_themselves_may_be_stated(root, monkeypatch, facts):
    right = [f"crops.{name}={MODEL['crops'][name]}" for name in ("centre", "global_size", "local_size", "eval_grid")]
    today = read(root, monkeypatch, settings=[*right, "compute.precision=auto", "seed=7", "compute.threads=3"])
    refuse_contradictions(facts, today)
    with pytest.raises(ConfigError, match="float32"):
        refuse_contradictions(facts, read(root, monkeypatch, settings=["compute.precision=float32"]))


def test_every_parameter_of_a_run_is_stated(root, facts):
    today = Today.of(load_params(root / "params.yaml"))
    with pytest.raises(ConfigError) as caught:
        refuse_contradictions(facts, today)
    assert {item.where for item in caught.value.problems} == {
        "crops.centre", "crops.global_size", "crops.local_size", "crops.eval_grid",
    }  # fmt: skip
    refuse_contradictions(facts, today.unstated())


def test_what_no_record_tells_must_be_said_by_a_person(root, monkeypatch):
    needed = ["alignment.by"]
    with pytest.raises(ConfigError, match=r"--set alignment\.by=batch"):
        told({}, read(root, monkeypatch), needed)
    values, notes = told({}, read(root, monkeypatch, settings=["alignment.by=plate"]), needed)
    assert values == {"alignment.by": "plate"}
    assert "no record of this model tells it" in notes[0]


def test_a_record_that_left_the_choice_to_the_program_contradicts_nothing(root, monkeypatch):
    facts = {"compute.precision": Fact("auto", "runs/r/params.json")}
    stated = read(root, monkeypatch, settings=["compute.precision=float32"])
    assert told(facts, stated, ["compute.precision"])[0] == {"compute.precision": "float32"}
    values, notes = told(facts, read(root, monkeypatch), ["compute.precision"])
    assert values == {"compute.precision": "auto"}
    assert "may choose otherwise" in notes[0]
    assert joined(facts, {"compute.precision": Fact("bfloat16", "x")})["compute.precision"].value == "bfloat16"


def test_records_that_contradict_each_other_are_refused(facts):
    with pytest.raises(ConfigError, match=r"(?s)contradict each other.*coda-head"):
        joined(facts, model_facts({**MODEL, "trained": {"compute.precision": "float32"}}, "coda-head version 2"))


def test_threads_are_a_habit_that_a_person_may_change(root, monkeypatch, facts):
    known = {**facts, "compute.threads": Fact(2, "m")}
    assert settled(known, read(root, monkeypatch)).compute.threads == 2
    stated = read(root, monkeypatch, settings=["compute.threads=3"])
    assert settled(known, stated).compute.threads == 3
    assert joined(known, {"compute.threads": Fact(1, "h")})["compute.threads"].value == 2


def test_serving_reads_of_today_where_and_on_what_alone():
    assert OF_TODAY == ("device", "threads", "images")
