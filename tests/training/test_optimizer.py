"""Groups, clipping and the moving average."""

import torch
from torch import nn

from coda.networks.extractor import new_extractor
from coda.training.optimizer import clip_global_norm, new_optimizer, parameter_groups, set_rates, update_ema


def test_biases_and_norms_are_not_decayed_but_tokens_and_positions_are(tiny):
    extractor = new_extractor(tiny(), seed=0)
    decayed, plain = parameter_groups([extractor])
    names = {id(parameter): name for name, parameter in extractor.named_parameters()}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    assert {"vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight"} <= decayed_names
    assert all(p.ndim == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_rates_reach_the_right_group():
    optimizer = new_optimizer([nn.Linear(2, 2)], torch.device("cpu"))
    set_rates(optimizer, learning_rate=0.3, weight_decay=0.7)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.3, 0.7), (0.3, 0.0)]


def test_clipping_uses_one_norm_for_all_and_leaves_out_what_has_no_gradient():
    layer = nn.Linear(2, 1)
    optimizer = new_optimizer([layer], torch.device("cpu"))
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert float(clip_global_norm(optimizer, 1.0)) == 5
    assert torch.allclose(layer.weight.grad, torch.tensor([[0.6, 0.0]]))
    layer.bias.grad = None
    layer.weight.grad = torch.tensor([[3.0, 0.0]])
    assert float(clip_global_norm(optimizer, 1.0)) == 3


def test_moving_average():
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.75 * teacher.weight.detach() + 0.25 * student.weight.detach()
    update_ema([teacher], [student], 0.75)
    torch.testing.assert_close(teacher.weight.detach(), expected)
