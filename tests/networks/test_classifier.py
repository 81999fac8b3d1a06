"""The linear head: what it reads of the tokens, and how it is kept."""

import pytest
import torch

from coda.config import load_params
from coda.errors import ConfigError, IntegrityError
from coda.networks import artifact
from coda.networks.classifier import load_linear_head, new_linear_head, save_linear_head
from coda.networks.extractor import new_extractor

SMALL = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}", "crops.global_size=16",
    "crops.local_size=8", "head.num_heads=2",
)  # fmt: skip


@pytest.fixture
def build(root):
    def build(pool="mean", seed=0):
        params = load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [*SMALL, f"extractor.pool={pool}"])
        return new_linear_head(params, new_extractor(params, seed=0), ("a", "b", "c"), seed=seed)

    return build


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_logits_are_a_linear_map_of_the_pooled_token(build, pool):
    head, tokens = build(pool), torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0))
    weight, bias = head.classifier.weight, head.classifier.bias
    pooled = tokens[:, 0] if pool == "cls" else sum(tokens[:, k] for k in range(5)) / 5
    torch.testing.assert_close(head(tokens), pooled @ weight.T + bias)
    assert head.classes == ("a", "b", "c")
    assert head.alignment == "none"


def test_first_weights_follow_the_seed(build):
    one, again, other = (build(seed=seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_kept_and_rebuilt_frozen(build, tmp_path):
    head = build()
    digest = save_linear_head(tmp_path / "head", head, {"why": "test"})
    again = load_linear_head(tmp_path / "head", digest)
    assert torch.equal(again.classifier.weight, head.classifier.weight)
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.training


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 10**9}, "whole number"),
        ({"classes": ["a"] * 9}, "shape"),
        ({"classes": 3}, "can be built"),
        ({"pool": "max"}, "neither"),
    ],
)
def test_a_hostile_config_is_refused(build, tmp_path, change, told):
    save_linear_head(tmp_path / "head", build())
    tensors, config = artifact.load(tmp_path / "head")
    artifact.save(tmp_path / "head", tensors, {**config, **change})
    with pytest.raises(IntegrityError) as caught:
        load_linear_head(tmp_path / "head")
    assert told in str(caught.value)
    artifact.save(tmp_path / "head", tensors, {**config, "kind": "head"})
    with pytest.raises(ConfigError, match="another kind"):
        load_linear_head(tmp_path / "head")
