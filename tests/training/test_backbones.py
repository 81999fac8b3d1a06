"""Families of backbones at tiny size, through everything that counts tokens.

Against timm's own forward pass and torch's counter of work; learned with DINO and MAE, resumed, stored, fitted to
others' weights, and cut down to few of them.
"""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode

from coda.errors import ConfigError, TransientError
from coda.networks.backbone import build_vit
from coda.networks.extractor import load_extractor, new_extractor, save_extractor, set_attention
from coda.networks.head import new_head
from coda.training import flops
from coda.training.checkpoint import Checkpoints
from coda.training.low_rank import LowRank
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.mae.state import new_mae_state
from coda.training.methods.mae.training import train_mae
from coda.training.trainable import trainable_names

FAMILIES = {
    "class token, learned positions": "deit_small_patch16_224",
    "registers": "vit_small_patch14_reg4_dinov2",
    "registers, rotary positions": "vit_small_patch16_dinov3",
    "rotary positions": "vit_small_patch16_rope_224",
    "learned and rotary positions, a gated MLP": "eva02_small_patch14_224",
}
SIZE = "{img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}"
SHORT = ("pretrain.iterations=6", "mae.decoder_width=8", "mae.decoder_depth=1", "mae.decoder_heads=2",
         "mae.mask_ratio=0.5", "mae.pretrain.iterations=4", "mae.pretrain.batch_size=6")  # fmt: skip


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def params(request, tiny):
    return tiny(f"extractor.arch={request.param}", f"extractor.overrides={SIZE}", *SHORT)


def images_of(side=32, count=2, stains=3):
    return torch.randn(count, stains, side, side, generator=torch.Generator().manual_seed(0))


def bits(state):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.state_dict().items()}


def test_class_token_and_patches_are_those_of_timm(params):
    extractor = new_extractor(params, seed=0).eval()
    theirs = extractor.vit.forward_features(images_of())
    kept = torch.cat([theirs[:, :1], theirs[:, extractor.prefix :]], dim=1)
    tokens = extractor(images_of())
    assert tokens.shape == (2, 1 + 16, 16)
    torch.testing.assert_close(tokens, kept, atol=1e-5, rtol=1e-5)


def test_registers_and_places_reach_the_tokens(params):
    extractor = new_extractor(params, seed=0).eval()
    with torch.no_grad():
        for name, parameter in extractor.named_parameters():
            if "gamma" in name:  # a new block of some families says next to nothing
                parameter.fill_(1.0)
    before = extractor(images_of())
    moved = extractor(images_of().roll(8, dims=3))
    assert not torch.allclose(before[:, 0], moved[:, 0], atol=1e-4), "the class token sees where patches lie"
    if extractor.prefix > 1:
        with torch.no_grad():
            extractor.vit.reg_token.normal_()
        assert not torch.allclose(before, extractor(images_of()), atol=1e-4)


@pytest.mark.parametrize("side", [16, 48])
def test_other_sizes_are_taken(params, side):
    assert new_extractor(params, seed=0)(images_of(side)).shape == (2, 1 + (side // 8) ** 2, 16)


def test_patches_that_are_kept_keep_their_places(params):
    extractor = new_extractor(params, seed=0).eval()
    whole = extractor(images_of())
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(k)) for k in range(2)])
    shuffled = extractor(images_of(), keep=order)
    expected = whole[:, 1:].gather(1, order[..., None].expand(-1, -1, 16))
    torch.testing.assert_close(shuffled[:, 1:], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shuffled[:, 0], whole[:, 0], atol=1e-5, rtol=1e-5)
    assert extractor(images_of(), keep=order[:, :5]).shape == (2, 6, 16)


def test_dino_learns_and_a_stopped_run_ends_with_the_same_bits(params, fields, tmp_path):
    def train(**options):
        state = new_state(params, seed=5)
        return train_dino(fields, params, params.pretrain, seed=5, state=state, keep_moments=False, **options)

    whole = train()
    assert bits(whole.state) != bits(new_state(params, seed=5))
    asked = iter([False] * 2 + [True])
    with pytest.raises(TransientError, match="interrupted"):
        train(checkpoints=Checkpoints(tmp_path), should_stop=lambda: next(asked))
    torch.manual_seed(999)
    assert bits(train(checkpoints=Checkpoints(tmp_path)).state) == bits(whole.state)


def test_mae_learns(params, fields):
    result = train_mae(fields, params, params.mae.pretrain, seed=5, state=new_mae_state(params, seed=5))
    assert np.isfinite([entry["loss"] for entry in result.log]).all()
    assert bits(result.state) != bits(new_mae_state(params, seed=5))


def test_a_model_folder_gives_the_same_tokens(params, tmp_path):
    extractor = new_extractor(params, seed=0)
    digest = save_extractor(tmp_path / "m", extractor)
    assert torch.equal(load_extractor(tmp_path / "m", digest)(images_of()), extractor.eval()(images_of()))


def test_weights_of_another_size_and_three_stains_are_fitted(params, tiny, tmp_path):
    arch, small = params.extractor.arch, SIZE.replace("img_size: 32", "img_size: 16")
    source = new_extractor(tiny(f"extractor.arch={arch}", f"extractor.overrides={small}"), seed=3)
    safetensors.torch.save_file(source.vit.state_dict(), tmp_path / "w.safetensors")
    five = "extractor.channels=[DNA, ER, RNA, AGP, Mito]"
    fitted = new_extractor(
        tiny(
            f"extractor.arch={arch}", f"extractor.overrides={SIZE}", five, f"extractor.weights={tmp_path}/w.safetensors"
        ),
        seed=0,
    )
    own, theirs = dict(fitted.named_parameters()), dict(source.named_parameters())
    assert own["vit.patch_embed.proj.weight"].shape[1] == 5
    same = [name for name in own if name.startswith(("vit.blocks", "vit.cls_token", "vit.reg_token", "vit.norm"))]
    assert len(same) > 10
    assert all(torch.equal(own[name], theirs[name]) for name in same)
    assert fitted(images_of(stains=5)).shape == (2, 17, 16)


def test_a_head_reads_its_tokens(params):
    extractor = new_extractor(params, seed=0)
    head = new_head(params, extractor, ("a", "b", "c"), "none", seed=1)
    logits = head(extractor(images_of()))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_parts_and_low_rank_know_its_weights(params):
    extractor = new_extractor(params, seed=0)
    first = trainable_names(extractor, "first_blocks", 1)
    assert {name for name, _ in extractor.named_parameters() if name.endswith(("cls_token", "reg_token"))} <= first
    assert first <= {name for name, _ in extractor.named_parameters()}
    assert len(LowRank(extractor, rank=2, scale=1.0, seed=0).parameters()) > 0


def test_work_is_that_of_torchs_counter(params):
    extractor = new_extractor(params, seed=0).eval()
    set_attention(extractor, "explicit")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        extractor(images_of(count=1))
    assert flops.extractor_forward(extractor, 32) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("deit_small_distilled_patch16_224", "VisionTransformerDistilled"),
        ("vit_small_patch16_rope_mixed_224", "learned for each block"),
        ("vit_base_patch16_siglip_224", "class token"),
        ("resnet18", ""),
    ],
)
def test_others_are_refused_with_what_to_choose(arch, why):
    with pytest.raises(ConfigError, match="cannot be built") as caught:
        build_vit(arch, 3, {}, drop_path=0.0)
    assert why in caught.value.problems[0].found


@pytest.mark.parametrize(("arch", "crop", "fits"), [("vit_small_patch14_reg4_dinov2", 28, True),
                                                    ("vit_small_patch14_reg4_dinov2", 32, False)])  # fmt: skip
def test_crops_must_fit_the_patches_that_the_name_says(tiny, arch, crop, fits):
    changes = (f"extractor.arch={arch}", "extractor.overrides={embed_dim: 16, depth: 1, num_heads: 2}",
               f"crops.global_size={crop}", "crops.local_size=14")  # fmt: skip
    if fits:
        assert tiny(*changes).extractor.patch_size == 14
        return
    with pytest.raises(ConfigError) as caught:
        tiny(*changes)
    assert any("a multiple of 14" in problem.expected for problem in caught.value.problems)
