"""First weights of extractor and head: both from what was asked for, and both records say from what."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from coda.errors import ConfigError
from coda.networks.extractor import new_extractor, save_extractor
from coda.networks.head import load_head, new_head, save_head


@pytest.fixture
def weights_file(tiny, tmp_path):
    """A safetensors file in timm's names, as `extractor.weights` takes it: the tiny network with other weights."""
    network = new_extractor(tiny("extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 2, "
                                 "num_heads: 2}"), seed=77).vit  # fmt: skip
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file({**tensors, "head.weight": torch.zeros(3, 16)}, tmp_path / "first.safetensors")
    return tmp_path / "first.safetensors"


def deep(path):
    return (
        f"extractor.weights={path}",
        "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}",
    )


def test_extractor_and_head_start_from_the_file_and_say_so(tiny, weights_file, tmp_path):
    params = tiny(*deep(weights_file))
    extractor = new_extractor(params, seed=0)
    head = new_head(params, extractor, ("a", "b"), "none", seed=0)
    first, digest = load_file(weights_file), hashlib.sha256(weights_file.read_bytes()).hexdigest()
    shared = [name for name in head.state_dict() if name.startswith(("blocks.0.", "norm."))]
    assert len(shared) == 14
    for name in shared:
        assert torch.equal(head.state_dict()[name], first[name]), name
        assert torch.equal(extractor.vit.state_dict()[name], first[name]), name
    save_extractor(tmp_path / "extractor", extractor)
    save_head(tmp_path / "head", head, {})
    for folder in ("extractor", "head"):
        record = json.loads((tmp_path / folder / "config.json").read_text())["initial_weights"]
        assert record.endswith(f":{weights_file.name}:{digest}")
    load_head(tmp_path / "head")


def test_a_random_start_is_recorded_too(tiny):
    extractor = new_extractor(tiny(), seed=3)
    assert new_head(tiny(), extractor, ("a",), "none", seed=4).config["initial_weights"] == "random:4"


def test_a_head_that_the_file_cannot_start_is_refused_with_a_remedy_that_works(tiny, weights_file):
    params = tiny(*deep(weights_file), "head.depth=3")
    extractor = new_extractor(params, seed=0)
    with pytest.raises(ConfigError, match="cannot start") as error:
        new_head(params, extractor, ("a", "b"), "none", seed=0)
    (problem,) = error.value.problems
    assert "blocks.2." in problem.where
    assert "Lower head.depth" in problem.remedy
    new_head(tiny(*deep(weights_file), "head.depth=2"), extractor, ("a", "b"), "none", seed=0)


def test_a_head_that_would_start_from_other_weights_than_its_extractor_is_refused(tiny, weights_file, tmp_path):
    asked = tiny(*deep(weights_file))
    extractor = new_extractor(asked, seed=0)
    at_random = tiny(*deep(weights_file), "extractor.weights=random")
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights_file).items()}, other)
    for params, network in (
        (at_random, extractor),
        (tiny(*deep(other)), extractor),
        (asked, new_extractor(at_random, seed=0)),
    ):
        with pytest.raises(ConfigError, match="other weights than its extractor") as error:
            new_head(params, network, ("a",), "none", seed=0)
        assert network.config["initial_weights"] in error.value.problems[0].expected
    # an extractor of before 0017 may say nothing of it, and where the file lies does not matter
    del extractor.config["initial_weights"]
    new_head(at_random, extractor, ("a",), "none", seed=0)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights_file.read_bytes())
    new_head(tiny(*deep(moved)), new_extractor(asked, seed=0), ("a",), "none", seed=0)
