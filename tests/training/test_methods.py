"""The door of self-supervision: every method behind one protocol, stored states of before, and what a plan refuses."""

import json
import pkgutil
import re

import numpy as np
import pytest

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import PairingPolicy
from coda.config import Params, load_params
from coda.config.params import Mae
from coda.errors import ConfigError, IntegrityError
from coda.networks.artifact import folder_digest
from coda.networks.extractor import new_extractor, save_extractor
from coda.training import methods
from coda.training.methods.base import SslMethod, SslTask
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.registry import NAMES, load_state, method_of

OF_BEFORE = {
    "adaptation_state": ("dino", "e54ce6205a3556958fb3f977bcf69ebefcb10e250af8a39e54cfda2fdea73644"),
    "mae_state": ("mae", "4a3aeda3f9c5d7ad19e46c5bdd7c4da0257e4c0c05cc6a97239c491bc6818b3c"),
}
"""Folder in tests/golden, written before methods were chosen -> its method, and the digest it was recorded with."""


def bits(state):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.state_dict().items()}


def test_every_folder_is_a_method_of_its_name_and_has_a_section():
    folders = {module.name for module in pkgutil.iter_modules(methods.__path__) if module.ispkg}
    assert folders == set(NAMES)
    kinds = set()
    for name in NAMES:
        method = method_of(name)
        assert isinstance(method, SslMethod)
        assert method.name == name
        assert name in Params.model_fields
        kinds.add(method.kind)
    assert len(kinds) == len(NAMES)


@pytest.mark.parametrize("name", OF_BEFORE)
def test_a_state_of_before_is_read_and_written_again_to_the_bit(root, name, tmp_path):
    method, recorded = OF_BEFORE[name]
    folder = root / "tests" / "golden" / name
    state = load_state(folder, recorded)
    assert state.method == method
    assert method_of(method).save_state(tmp_path / "again", state) == recorded
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_only_states_are_read_as_states(root, tiny, tmp_path):
    save_extractor(tmp_path / "extractor", new_extractor(tiny(), seed=0))
    with pytest.raises(ConfigError, match="kind 'extractor'"):
        load_state(tmp_path / "extractor")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IntegrityError, match="not a model folder"):
        load_state(tmp_path / "empty")
    golden = root / "tests" / "golden" / "mae_state"
    with pytest.raises(IntegrityError, match="not the one that was recorded"):
        load_state(golden, "0" * 64)
    # a claim that only the unverified config makes chooses who verifies, and no more
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in golden.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "config.json").write_text((golden / "config.json").read_text().replace("mae_state", "adaptation_state"))
    with pytest.raises(IntegrityError, match=r"config\.json"):
        load_state(copy)


def test_dino_through_the_door_is_dino(fields, tiny, root):
    params, method = tiny(), method_of("dino")
    direct, state = new_state(params, seed=5), method.new_state(params, seed=5)
    log = train_dino(fields, params, params.pretrain, state=direct, seed=5).log
    result = method.train(state, params, SslTask(fields, "pretrain", params.pairs, 5))
    assert bits(state) == bits(direct)
    assert result.log == log
    stored = json.loads((root / "tests" / "golden" / "dino_losses.json").read_text())
    assert [entry["loss"] for entry in result.log] == pytest.approx(stored, rel=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_pretrains_is_kept_and_adapts(fields, tiny, tmp_path, name):
    params = tiny(f"ssl.method={name}", "adaptation.candidates=[unadapted, aligned, oda]", "mae.pretrain.iterations=4",
                  "mae.adaptation.iterations=3", "adaptation.budget.iterations=3")  # fmt: skip
    method = method_of(name)
    state = method.new_state(params, seed=0)
    anchors = np.arange(len(fields)) % 2 == 0
    result = method.train(state, params, SslTask(fields, "pretrain", params.pairs, 0, anchors=anchors))
    assert {"loss", "learning_rate", "gradient_norm", "feature_spread"} <= set(result.log[-1])
    assert result.pairs.anchors == anchors.sum()
    digest = method.save_state(tmp_path / "state", state)
    kept = load_state(tmp_path / "state", digest)
    assert bits(kept) == bits(state)
    adapted = adapt_extractor(kept, fields, params, PairingPolicy("oda", "none", 0.0, ""), seed=1)
    assert adapted.iterations == method.optimization(params, "adapt").iterations == 3
    assert bits(kept) != bits(state)
    assert adapted.state.extractor is kept.extractor
    assert folder_digest(tmp_path / "state") == digest


def test_a_state_is_not_adapted_by_another_method(fields, tiny):
    params = tiny("ssl.method=mae", "adaptation.candidates=[unadapted, aligned, oda]")
    with pytest.raises(ConfigError, match=r"Set ssl\.method=dino"):
        adapt_extractor(new_state(tiny(), seed=0), fields, params, PairingPolicy("oda", "none", 0.0, ""), seed=0)


def test_a_decoder_other_than_the_states_is_refused(fields, tiny):
    changes = ("ssl.method=mae", "adaptation.candidates=[unadapted, aligned, oda]")
    state = method_of("mae").new_state(tiny(*changes), seed=0)
    with pytest.raises(ConfigError, match=r"Set mae\.decoder_depth=2"):
        adapt_extractor(
            state, fields, tiny(*changes, "mae.decoder_depth=1"), PairingPolicy("oda", "none", 0.0, ""), seed=0
        )


def test_what_a_method_cannot_do_is_told_with_the_parameters(tiny, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        tiny("ssl.method=mae", "adaptation.trainable=norms", "adaptation.stopping.every=2")
    problems = {problem.where: problem for problem in caught.value.problems}
    assert set(problems) == {"adaptation.candidates", "adaptation.trainable", "adaptation.stopping.every"}
    assert problems["adaptation.candidates"].found == "coda, coda+aligned, coda+coral"
    typed = re.search(r"adaptation\.candidates=\[.*?\]", problems["adaptation.candidates"].remedy)
    assert tiny("ssl.method=mae", typed[0]).adaptation.candidates == (
        "unadapted", "classical", "aligned", "coral", "oda", "oda+aligned", "oda+coral",
    )  # fmt: skip
    monkeypatch.setattr(Mae, "adapts_by", frozenset())
    with pytest.raises(ConfigError, match=r"cannot adapt.*\.candidates=\[unadapted, classical, aligned, coral\]"):
        tiny("ssl.method=mae")


def test_parameters_of_before_there_was_a_choice_mean_dino(root, tmp_path):
    lines = (root / "params.yaml").read_text().splitlines(keepends=True)
    place = lines.index("ssl:\n")
    (tmp_path / "params.yaml").write_text("".join(lines[:place] + lines[place + 2 :]))
    params = load_params(tmp_path / "params.yaml")
    assert params.ssl.method == "dino"
    kept = params.model_dump(mode="json", exclude={"ssl"})
    assert Params.model_validate_json(json.dumps(kept)) == params
    assert load_params(tmp_path / "params.yaml", [], ["ssl.method=dino"]) == params


def test_steps_name_no_method(root):
    named = re.compile(r"train_dino|train_mae|DinoState|MaeState|methods\.(dino|mae)\b")
    places = [path for folder in ("coda/steps", "components", "pipelines") for path in (root / folder).rglob("*.py")]
    assert len(places) > 20
    assert [str(path) for path in places if named.search(path.read_text())] == []
