"""Keys that have moved: records of before stay readable, and a file with an old key is told the new one."""

import json

import pytest
import yaml

from coda.config import Params, load_params
from coda.config.moved import MOVED, SHARED
from coda.errors import ConfigError

OLD_DINO = {
    "pool": "mean", "teacher_temperature": 0.05, "teacher_temperature_start": 0.03,
    "teacher_temperature_warmup_epochs": 7.0, "ema_start": 0.98, "freeze_last_layer_epochs": 2.0,
}  # fmt: skip


def as_before(params):
    """Write parameters down as the versions before 0017 did, with values of their own."""
    values = json.loads(params.model_dump_json())
    for name in OLD_DINO:
        for section in (values["pretrain"], values["adaptation"]["budget"], values["extractor"]):
            section.pop(name, None)
    values["dino"] |= OLD_DINO
    del values["split"], values["alignment"]
    del values["pretrain"]["fields"], values["adaptation"]["fields"], values["adaptation"]["source_batch_size"]
    del values["pretrain"]["keep_optimizer"], values["supervised"]["plateau_factor"]
    values["head"] |= {"validation_batches": 2, "plateau_factor": 0.3}
    values["adaptation"] |= {"align_by": "plate", "align_wells": "negcon", "carry_optimizer": True}
    return values


@pytest.fixture
def paper(root):
    return load_params(root / "params.yaml")


def test_stored_parameters_of_before_mean_what_they_meant(paper):
    found = Params.model_validate_json(json.dumps(as_before(paper)))
    assert (found.alignment.by, found.alignment.wells) == ("plate", "negcon")
    assert found.split.validation_batches == 2
    assert found.extractor.pool == "mean"
    assert found.head.plateau_factor == found.supervised.plateau_factor == 0.3
    assert found.pretrain.keep_optimizer
    assert found.adaptation.carry_optimizer
    for budget in (found.pretrain, found.adaptation.budget):
        assert {name: getattr(budget, name) for name in OLD_DINO if name != "pool"} == {
            name: value for name, value in OLD_DINO.items() if name != "pool"
        }
    # what could not be said before is what was done before
    assert (found.split.by, found.pretrain.fields, found.adaptation.fields) == ("batch", "all", "all")
    # what was not moved is as it was
    assert found.mae == paper.mae
    assert Params.model_validate_json(found.model_dump_json()) == found


def test_stored_parameters_that_are_wrong_are_still_refused(paper):
    values = as_before(paper) | {"split": 3}
    with pytest.raises(ValueError, match="split"):
        Params.model_validate_json(json.dumps(values))
    values = as_before(paper)
    values["dino"]["ema_begin"] = 0.9
    with pytest.raises(ValueError, match="ema_begin"):
        Params.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("key", sorted(MOVED))
def test_an_old_key_is_an_error_that_names_the_new_ones_wherever_it_is_written(root, tmp_path, key):
    section, _, name = key.rpartition(".")
    value = {"align_by": "plate", "align_wells": "all", "pool": "mean", "validation_batches": 1}.get(name, 0.5)
    overlay, base = tmp_path / "mine.yaml", tmp_path / "params.yaml"
    overlay.write_text(yaml.safe_dump({section: {name: value}}))
    whole = yaml.safe_load((root / "params.yaml").read_text())
    whole[section][name] = value
    base.write_text(yaml.safe_dump(whole))
    for arguments in (
        (root / "params.yaml", [overlay], []),
        (root / "params.yaml", [], [f"{key}={value}"]),
        (base, [], []),
    ):
        with pytest.raises(ConfigError) as error:
            load_params(*arguments)
        (problem,) = error.value.problems
        assert key in problem.where
        for new in MOVED[key]:
            assert new in problem.remedy
            assert _is_there(load_params(root / "params.yaml").model_dump(), new)


def test_a_key_that_was_shared_has_its_value_in_both_places(root):
    values = load_params(root / "params.yaml").model_dump()
    assert all(_is_there(values, key) for pair in SHARED.items() for key in pair)


def _is_there(values, path):
    for key in path.split("."):
        if key not in values:
            return False
        values = values[key]
    return True
