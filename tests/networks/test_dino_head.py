"""The DINO head: norms, sizes and BatchNorm."""

import pytest
import torch

from coda.networks.dino_head import DinoHead, new_dino_head

PAPER = {"width": 384, "hidden_dim": 2048, "bottleneck_dim": 256, "prototypes": 4096, "batch_norm": False}


def test_size_of_the_paper():
    weights = sum(p.numel() for p in DinoHead(PAPER).parameters())
    assert weights == pytest.approx(6.56e6, rel=2e-3)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_logits_are_cosines_whatever_the_size_of_the_last_layer(batch_norm):
    head = DinoHead({"width": 8, "hidden_dim": 16, "bottleneck_dim": 4, "prototypes": 10, "batch_norm": batch_norm})
    features = torch.randn(6, 8)
    logits = head(features)
    with torch.no_grad():
        head.last_layer.weight *= torch.rand(10, 1) + 0.5
    torch.testing.assert_close(head(features), logits)
    weight = head.last_layer.weight / head.last_layer.weight.norm(dim=1, keepdim=True)
    hidden = head.mlp(features)
    torch.testing.assert_close(logits, (hidden / hidden.norm(dim=1, keepdim=True)) @ weight.T)


def test_batch_norm_uses_the_batch_in_training_and_evaluation_alike(demo_params):
    head = new_dino_head(demo_params.dino, 8, seed=0)
    features = torch.randn(6, 8)
    assert torch.equal(head.train()(features), head.eval()(features))
    assert not list(head.buffers())


def test_first_weights_are_set_by_the_seed(demo_params):
    one, other, third = (new_dino_head(demo_params.dino, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.last_layer.weight, other.last_layer.weight)
    assert not torch.equal(one.last_layer.weight, third.last_layer.weight)
