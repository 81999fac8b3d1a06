"""Model folders made by somebody who may write to the registry: digests agree with themselves, contents mean harm."""

import hashlib
import json
import pickle  # noqa: TID251 - the attack itself
import socket
import struct

import pytest
import torch

from coda.contracts.base import digest_of_json
from coda.errors import CodaError, IntegrityError
from coda.networks import artifact
from coda.networks.extractor import load_extractor, save_extractor
from coda.networks.head import SOURCE_STATISTICS, load_head, load_source_statistics, save_head
from coda.training.methods.dino.state import load_state, new_state, save_state


@pytest.fixture(scope="module")
def params(root):
    from coda.config import load_params

    small = ["extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
             "dino.prototypes=12", "dino.hidden_dim=16", "dino.bottleneck_dim=8", "head.depth=1",
             "head.num_heads=2"]  # fmt: skip
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], small)


@pytest.fixture(scope="module")
def state(params):
    return new_state(params, seed=0)


@pytest.fixture
def folder(state, tmp_path):
    save_extractor(tmp_path / "model", state.teacher)
    return tmp_path / "model"


def resealed(folder, **files):
    """Write files and a list of digests that agrees with all that is there: what an insider would do."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    digests = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name != "digests.json"
    }
    (folder / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")
    return digest_of_json(digests)


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


def test_a_pickle_called_safetensors_is_refused_and_not_run(folder, tmp_path):
    trace = tmp_path / "ran"
    digest = resealed(folder, weights__safetensors=pickle.dumps(Bomb(trace)))
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_extractor(folder, digest)
    torch.save({"x": Bomb(trace)}, folder / "weights.safetensors")
    digest = resealed(folder)
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_extractor(folder, digest)
    assert not trace.exists()


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}', b"\0" * 4),
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', b"\0" * 4),
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}', b"\0" * 6
        ),
        header(b'{"a":{"dtype":"object","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
        header(b"[" * 100_000),
        header(b"not json at all"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(folder, weights):
    digest = resealed(folder, weights__safetensors=weights)
    with pytest.raises(IntegrityError):
        load_extractor(folder, digest)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arch": "hf-hub:evil/model"}, "plain name"),
        ({"arch": "local-dir:/etc"}, "plain name"),
        ({"arch": "__import__('os').system('true')"}, "plain name"),
        ({"arch": ["a"]}, "plain name"),
        ({"arch": "no_such_network"}, "can be built"),
        ({"arch": "vit_giant_patch14_clip_224"}, "shape"),
        ({"overrides": {"embed_dim": 10**9}}, "whole number"),
        ({"overrides": {"depth": 10**6}}, "whole number"),
        ({"overrides": {"embed_dim": True}}, "whole number"),
        ({"overrides": {"act_layer": "os.system"}}, "whole number"),
        ({"overrides": "x"}, "whole number"),
        ({"overrides": {"checkpoint_path": 1}}, "can be built"),
        ({"channels": 7}, "can be built"),
        ({"channels": ["DNA"] * 7}, "shape"),
        ({"drop_path": "x"}, "can be built"),
    ],
)
def test_a_config_asks_for_no_place_and_no_giant(folder, change, told, monkeypatch):
    def connect(*_):
        pytest.fail("a config made the program connect to something")

    config = json.loads((folder / "config.json").read_text())
    digest = resealed(folder, config__json=json.dumps({**config, **change}).encode())
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(IntegrityError) as caught:
        load_extractor(folder, digest)
    assert told in str(caught.value)


@pytest.mark.parametrize("config", [b"[]", b'"x"', b"{", b"[" * 100_000, b"\xff", b'{"kind": ' + b"1" * 5000 + b"}"])
def test_a_config_that_is_no_mapping_is_refused(folder, config):
    digest = resealed(folder, config__json=config)
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_extractor(folder, digest)


def test_another_kind_of_network_is_refused_by_its_name(folder):
    config = json.loads((folder / "config.json").read_text())
    for kind in ("head", "os.system", None):
        digest = resealed(folder, config__json=json.dumps({**config, "kind": kind}).encode())
        with pytest.raises(CodaError, match="another kind"):
            load_extractor(folder, digest)


def test_a_link_in_a_model_folder_is_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "extra").symlink_to(secret)
    with pytest.raises(IntegrityError, match="leads elsewhere"):
        load_extractor(folder, resealed(folder))
    (folder / "extra").unlink()
    (folder / "weights.safetensors").rename(tmp_path / "weights")
    (folder / "weights.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(IntegrityError, match="a link"):
        artifact.load(folder)


def test_weights_of_another_network_are_told_tensor_by_tensor(folder, params, state, tmp_path):
    tensors, config = artifact.load(folder)
    name = next(iter(tensors))
    artifact.save(folder, {**tensors, name: torch.zeros(3), "intruder": torch.zeros(1)}, config)
    with pytest.raises(IntegrityError) as caught:
        load_extractor(folder)
    assert {problem.where.rpartition(": ")[2] for problem in caught.value.problems} == {name, "intruder"}


def test_head_and_state_are_rebuilt_with_the_same_care(params, state, tmp_path):
    from coda.networks.head import new_head

    head = new_head(params, state.teacher, ("a", "b"), "none", seed=1)
    save_head(tmp_path / "head", head, {SOURCE_STATISTICS: header(b"{}")})
    assert load_head(tmp_path / "head").classes == ("a", "b")
    with pytest.raises(IntegrityError, match="statistics"):
        load_source_statistics(tmp_path / "head")
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    digest = resealed(tmp_path / "head", config__json=json.dumps({**config, "classes": ["a"] * 9}).encode())
    with pytest.raises(IntegrityError, match="classifier"):
        load_head(tmp_path / "head", digest)
    save_state(tmp_path / "state", state)
    restored = load_state(tmp_path / "state")
    for name, tensor in state.state_dict().items():
        assert torch.equal(restored.state_dict()[name], tensor), name
    config = json.loads((tmp_path / "state" / "config.json").read_text())
    config["dino_head"]["prototypes"] = 10**9
    digest = resealed(tmp_path / "state", config__json=json.dumps(config).encode())
    with pytest.raises(IntegrityError, match="prototypes"):
        load_state(tmp_path / "state", digest)
    tensors, config = state.state_dict(), state.config()
    artifact.save(tmp_path / "state", {**tensors, "intruder": torch.zeros(1)}, config)
    with pytest.raises(IntegrityError, match="intruder"):
        load_state(tmp_path / "state")
