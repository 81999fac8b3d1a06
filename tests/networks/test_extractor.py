"""The extractor: its positions against the formula, its patches against the convolution, its first weights."""

import math

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from coda.config import Params, load_params
from coda.errors import ConfigError, IntegrityError
from coda.networks.extractor import (
    Extractor,
    load_extractor,
    new_extractor,
    pool_tokens,
    save_extractor,
    set_attention,
)
from coda.networks.head import load_head, load_source_statistics, new_head, save_head
from coda.networks.weights import repeat_channels, resize_positions

TINY = "extractor.overrides={img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}"


@pytest.fixture
def tiny(root):
    def build(*changes: str) -> Params:
        overlay = root / "params" / "demo.yaml"
        return load_params(root / "params.yaml", [overlay], [TINY, "head.depth=1", "head.num_heads=2", *changes])

    return build


def bicubic_by_the_formula(grid, size):
    """Keys' cubic convolution with a = -0.75, half-pixel centres, borders repeated, no antialiasing."""

    def weight(x):
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    side, out = len(grid), []
    for i in range(size):
        place = (i + 0.5) * side / size - 0.5
        first = math.floor(place) - 1
        out.append(sum(weight(place - k) * grid[min(max(k, 0), side - 1)] for k in range(first, first + 4)))
    return torch.stack(out)


@pytest.mark.parametrize("size", [(6, 6), (3, 5), (9, 4)])
def test_positions_are_resized_bicubically_without_antialiasing(size):
    positions = torch.randn(1, 1 + 14 * 14, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float()
    found = resize_positions(positions, size, 1)
    grid = positions[0, 1:].view(14, 14, 5)
    rows = bicubic_by_the_formula(grid, size[0])
    expected = bicubic_by_the_formula(rows.transpose(0, 1), size[1]).transpose(0, 1)
    torch.testing.assert_close(found[0, 1:], expected.reshape(-1, 5), atol=1e-5, rtol=1e-4)
    assert torch.equal(found[0, 0], positions[0, 0])
    smoothed = F.interpolate(grid.permute(2, 0, 1)[None], size=size, mode="bicubic", antialias=True)
    if max(size) < 14 and size == (6, 6):
        assert (smoothed[0].permute(1, 2, 0).reshape(-1, 5) - found[0, 1:]).abs().max() > 0.01


def test_positions_stay_differentiable_at_another_resolution(tiny):
    extractor = new_extractor(tiny(), seed=0)
    generator = torch.Generator().manual_seed(0)
    tokens = extractor(torch.randn(1, 3, 16, 24, generator=generator))
    # not the plain sum: after a layer norm it is constant, and its gradient is rounding alone
    (tokens * torch.randn(tokens.shape, generator=generator)).sum().backward()
    assert extractor.vit.pos_embed.grad[0, 1:].abs().sum() > 0


def test_all_tokens_after_the_final_norm_as_timm_computes_them(tiny):
    extractor = new_extractor(tiny(), seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = extractor(images)
    assert tokens.shape == (2, 1 + 16, 16)
    torch.testing.assert_close(tokens, extractor.vit.forward_features(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "count"), [(16, 16, 5), (24, 40, 16), (64, 8, 9)])
def test_any_multiple_of_the_patch_is_taken(tiny, height, width, count):
    assert new_extractor(tiny(), seed=0)(torch.randn(1, 3, height, width)).shape == (1, count, 16)


def test_other_sizes_and_stains_are_refused(tiny):
    extractor = new_extractor(tiny(), seed=0)
    for shape in ((1, 3, 20, 16), (1, 5, 16, 16)):
        with pytest.raises(ValueError, match="3 stains and patches of 8 px"):
            extractor(torch.zeros(shape))


def test_explicit_and_fused_attention_agree(tiny):
    extractor = new_extractor(tiny(), seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    results = []
    for attention in ("explicit", "sdpa"):
        set_attention(extractor, attention)
        assert {block.attn.fused_attn for block in extractor.vit.blocks} == {attention == "sdpa"}
        results.append(extractor(images))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_a_random_start_is_set_by_its_seed_and_leaves_the_global_state_alone(tiny):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other, third = (new_extractor(tiny(), seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["vit.pos_embed"], third["vit.pos_embed"])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_first_layer_is_repeated_cyclically_and_keeps_the_size_of_activations(channels):
    weight = torch.randn(4, 3, 2, 2)
    fitted = repeat_channels(weight, channels)
    for c in range(channels):
        torch.testing.assert_close(fitted[:, c], weight[:, c % 3] * 3 / channels)
    if channels == 3:
        assert torch.equal(fitted, weight)


def test_a_safetensors_file_is_fitted_to_stains_and_size(tiny, tmp_path):
    source = new_extractor(tiny(), seed=0)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({**source.vit.state_dict(), "head.weight": torch.zeros(2, 16)}, path)
    five = tiny(
        f"extractor.weights={path}", "extractor.channels=[DNA, ER, RNA, AGP, Mito]",
        "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}",
    )  # fmt: skip
    fitted = new_extractor(five, seed=1)
    assert torch.equal(fitted.vit.norm.weight, source.vit.norm.weight)
    assert torch.equal(fitted.vit.blocks[1].attn.qkv.weight, source.vit.blocks[1].attn.qkv.weight)
    torch.testing.assert_close(fitted.vit.pos_embed, resize_positions(source.vit.pos_embed, (2, 2), 1))
    assert str(path) in fitted.config["initial_weights"]


def test_weights_of_another_network_are_refused_with_every_tensor(tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"vit": torch.zeros(1), "norm.weight": torch.zeros(3)}, path)
    with pytest.raises(ConfigError) as caught:
        new_extractor(tiny(f"extractor.weights={path}"), seed=0)
    places = {problem.where for problem in caught.value.problems}
    assert {"extractor.weights: vit", "extractor.weights: norm.weight", "extractor.weights: cls_token"} <= places


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_weights_that_cannot_be_read_are_no_silent_random_start(tiny, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="random on purpose"):
        new_extractor(tiny(f"extractor.weights={path}"), seed=0)


def test_a_missing_hub_is_a_clear_message(tiny, monkeypatch):
    def away(*_arguments, **_options):
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", away)
    with pytest.raises(ConfigError, match="nothing was trained") as caught:
        new_extractor(tiny("extractor.weights=imagenet", "extractor.arch=deit_small_patch16_224"), seed=0)
    assert "random on purpose" in caught.value.problems[0].remedy


@pytest.mark.parametrize("arch", ["vit_of_nobody", "resnet18", "deit_small_distilled_patch16_224"])
def test_networks_that_do_not_fit_the_method_are_refused(tiny, arch):
    with pytest.raises(ConfigError, match="cannot be built"):
        new_extractor(tiny(f"extractor.arch={arch}"), seed=0)


def test_model_folder_round_trip_and_tampering(tiny, tmp_path):
    extractor = new_extractor(tiny("extractor.drop_path=0.2"), seed=0)
    digest = save_extractor(tmp_path / "m", extractor, {"params_digest": "x"})
    loaded = load_extractor(tmp_path / "m", digest)
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(images), extractor.eval()(images))
    assert loaded.channels == ("DNA", "AGP", "RNA")
    assert loaded.config["provenance"] == {"params_digest": "x"}
    with pytest.raises(ConfigError, match="kind 'head'"):
        load_head(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(IntegrityError):
        load_extractor(tmp_path / "m", digest)


def test_pooling():
    tokens = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(pool_tokens(tokens, "cls"), tokens[:, 0])
    assert torch.equal(pool_tokens(tokens, "mean"), (tokens[:, 0] + tokens[:, 1] + tokens[:, 2]) / 3)


def test_head_reads_all_tokens_and_owns_nothing_it_does_not_train(tiny):
    params = tiny()
    extractor = new_extractor(params, seed=0)
    head = new_head(params, extractor, ("a", "b", "c"), "none", seed=0)
    tokens = torch.randn(2, 17, 16)
    logits = head(tokens)
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert not [n for n, _ in head.named_parameters() if "pos_embed" in n or "cls_token" in n or "patch" in n]
    changed = tokens.clone()
    changed[:, 5] += torch.randn(16)
    assert not torch.allclose(head(changed), logits)


def test_head_folder_holds_labels_and_statistics_under_one_digest(tiny, tmp_path):
    from coda.networks.alignment import fit_statistics

    params = tiny()
    head = new_head(params, Extractor(new_extractor(params, seed=0).config), ("a", "b"), "standardise", seed=0)
    stats = fit_statistics(torch.randn(50, 16))
    extra = {"labels.json": b"{}", "source_statistics.safetensors": stats.to_bytes()}
    digest = save_head(tmp_path / "h", head, extra)
    loaded = load_head(tmp_path / "h", digest)
    assert (loaded.classes, loaded.alignment) == (("a", "b"), "standardise")
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(load_source_statistics(tmp_path / "h", digest).covariance, stats.covariance)
    (tmp_path / "h" / "labels.json").write_bytes(b"{ }")
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        load_head(tmp_path / "h", digest)
