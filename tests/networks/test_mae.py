"""The masked autoencoder: masks, positions and loss against plain loops; the encoder against the whole extractor."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from coda.config import load_params
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, ConfigError, IntegrityError
from coda.networks import artifact
from coda.networks.extractor import new_extractor
from coda.networks.mae import mae_loss, random_keep, sine_positions
from coda.training.methods.mae.state import load_mae_state, new_mae_state, save_mae_state

SMALL = (
    "extractor.overrides={img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}", "crops.global_size=32",
    "crops.local_size=16", "head.depth=1", "head.num_heads=2", "mae.decoder_width=8", "mae.decoder_depth=1",
    "mae.decoder_heads=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], SMALL)


@pytest.fixture
def state(params):
    return new_mae_state(params, seed=3)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@given(patches=st.integers(2, 200), ratio=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_exactly_the_right_number_stays_and_none_twice(patches, ratio, seed):
    hidden = round(patches * ratio)
    if not 0 < hidden < patches:
        with pytest.raises(ValueError, match="at least one"):
            random_keep(3, patches, ratio, source(seed))
        return
    keep = random_keep(3, patches, ratio, source(seed))
    assert keep.shape == (3, patches - hidden)
    for row in keep.tolist():
        assert len(set(row)) == len(row)
        assert set(row) <= set(range(patches))


def test_every_patch_stays_equally_often_and_images_have_their_own_masks():
    count, patches = 8000, 12
    keep = random_keep(count, patches, 0.75, source())
    often = torch.bincount(keep.flatten(), minlength=patches).double()
    expected, spread = count * 0.25, math.sqrt(count * 0.25 * 0.75)
    assert (often - expected).abs().max() < 5 * spread
    assert len({tuple(sorted(row)) for row in keep.tolist()}) > 200  # of 220 possible
    assert torch.equal(keep, random_keep(count, patches, 0.75, source()))
    assert not torch.equal(keep, random_keep(count, patches, 0.75, source(1)))


def test_positions_are_sines_and_cosines_of_column_and_row():
    width, rows, columns = 12, 3, 4
    found = sine_positions((rows, columns), width)
    for row in range(rows):
        for column in range(columns):
            for place, value in ((0, column), (width // 2, row)):
                for k in range(width // 4):
                    angle = value / 10_000 ** (k / (width // 4))
                    own = found[row * columns + column]
                    assert own[place + k] == pytest.approx(math.sin(angle), abs=1e-6)
                    assert own[place + width // 4 + k] == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("normed", [True, False])
def test_loss_is_that_of_a_plain_loop_over_hidden_patches(normed):
    size, images = 4, torch.rand((3, 2, 8, 12), generator=source())
    keep = random_keep(3, 6, 0.5, source(1))
    predicted = torch.randn((3, 6, 2 * size * size), generator=source(2))
    terms = []
    for image in range(3):
        for patch in set(range(6)) - set(keep[image].tolist()):
            row, column = divmod(patch, 3)
            pixels = [
                float(images[image, channel, row * size + y, column * size + x])
                for channel in range(2) for y in range(size) for x in range(size)
            ]  # fmt: skip
            if normed:
                mean = sum(pixels) / len(pixels)
                variance = sum((pixel - mean) ** 2 for pixel in pixels) / (len(pixels) - 1)
                pixels = [(pixel - mean) / math.sqrt(variance + 1e-6) for pixel in pixels]
            errors = [(float(p) - pixel) ** 2 for p, pixel in zip(predicted[image, patch], pixels, strict=True)]
            terms.append(sum(errors) / len(errors))
    assert len(terms) == 9
    loss = float(mae_loss(predicted, images, keep, size, norm_pixels=normed))
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_visible_patches_do_not_count(state):
    images, keep = torch.rand((2, 3, 32, 32), generator=source()), random_keep(2, 16, 0.75, source())
    predicted = torch.randn((2, 16, 192), generator=source(1))
    before = mae_loss(predicted, images, keep, 8, norm_pixels=True)
    changed = predicted.clone()
    changed[torch.arange(2)[:, None], keep] += 100
    assert torch.equal(mae_loss(changed, images, keep, 8, norm_pixels=True), before)
    hidden = (set(range(16)) - set(keep[0].tolist())).pop()
    changed[0, hidden] += 1
    assert mae_loss(changed, images, keep, 8, norm_pixels=True) != before


def test_the_encoder_sees_visible_patches_alone(state):
    encoder, keep = state.encoder.eval(), random_keep(2, 16, 0.75, source())
    images = torch.rand((2, 3, 32, 32), generator=source())
    tokens = encoder(images, keep)
    assert tokens.shape == (2, 5, 16)
    other = torch.rand((2, 3, 32, 32), generator=source(5))
    for image in range(2):
        for patch in keep[image].tolist():
            row, column = divmod(patch, 4)
            place = (image, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            other[place] = images[place]
    assert torch.equal(encoder(other, keep), tokens)


def test_with_all_patches_kept_the_encoder_is_the_extractor(state):
    images = torch.rand((2, 3, 32, 32), generator=source())
    order = torch.stack([torch.randperm(16, generator=source(n)) for n in range(2)])
    whole, kept = state.encoder(images), state.encoder(images, order)
    torch.testing.assert_close(kept[:, 0], whole[:, 0], atol=1e-5, rtol=1e-5)
    for image in range(2):
        torch.testing.assert_close(kept[image, 1:], whole[image, 1:][order[image]], atol=1e-5, rtol=1e-5)


def test_decoder_puts_tokens_where_they_came_from(state):
    """Shuffling the visible tokens with their places changes nothing: the decoder has no other order."""
    decoder, keep = state.decoder.eval(), random_keep(1, 16, 0.5, source())
    tokens = torch.randn((1, 9, 16), generator=source())
    order = torch.randperm(8, generator=source(1))
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    found = decoder(tokens, keep, (4, 4))
    assert found.shape == (1, 16, 3 * 8 * 8)
    torch.testing.assert_close(decoder(shuffled, keep[:, order], (4, 4)), found)
    assert not torch.allclose(decoder(shuffled, keep, (4, 4)), found)


def test_a_grid_first_seen_in_inference_can_be_trained_on_later(state):
    images, keep = torch.rand((1, 3, 24, 40), generator=source()), random_keep(1, 15, 0.5, source())
    with torch.inference_mode():
        state.decoder(state.encoder(images, keep), keep, (3, 5))
    mae_loss(state.decoder(state.encoder(images, keep), keep, (3, 5)), images, keep, 8, norm_pixels=False).backward()
    assert state.decoder.embed.weight.grad.any()


def test_gradient_reaches_every_weight_of_both_networks(state):
    images, keep = torch.rand((2, 3, 32, 32), generator=source()), random_keep(2, 16, 0.75, source())
    predicted = state.decoder(state.encoder(images, keep), keep, (4, 4))
    mae_loss(predicted, images, keep, 8, norm_pixels=True).backward()
    for network in (state.encoder, state.decoder):
        silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []


def test_the_encoder_starts_like_every_extractor(params, root, state):
    plain = new_extractor(params, seed=3)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(state.encoder.state_dict()[name], tensor), name
    missing = load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [*SMALL, "extractor.weights=/none"])
    with pytest.raises(ConfigError, match="first weights"):
        new_mae_state(missing, seed=3)


def test_stains_beyond_three_start_from_the_first_layer_repeated(params, root, tmp_path):
    import safetensors.torch

    plain = new_extractor(params, seed=1)
    path = tmp_path / "start.safetensors"
    safetensors.torch.save_file({n.removeprefix("vit."): t for n, t in plain.state_dict().items()}, path)
    more = [*SMALL, f"extractor.weights={path}", "extractor.channels=[DNA, ER, RNA, AGP, Mito]"]
    state = new_mae_state(load_params(root / "params.yaml", [root / "params" / "demo.yaml"], more), seed=0)
    layer, before = (network.vit.patch_embed.proj.weight for network in (state.encoder, plain))
    torch.testing.assert_close(layer[:, 4], before[:, 1] * 3 / 5)
    assert state.decoder.predictor.out_features == 5 * 8 * 8


def test_kept_and_rebuilt_to_the_bit(state, tmp_path):
    digest = save_mae_state(tmp_path / "mae", state)
    again = load_mae_state(tmp_path / "mae", digest)
    assert again.state_dict().keys() == state.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in state.state_dict().items())
    assert again.config() == state.config()


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("decoder", {"hidden_dim": 10**9}, "whole number"),
        ("decoder", {"depth": 10**6}, "whole number"),
        ("decoder", {"num_heads": True}, "whole number"),
        ("decoder", {"num_heads": 3}, "cannot have"),
        ("decoder", {"hidden_dim": 16}, "shape"),
        ("decoder", {"stains": "os.system"}, "whole number"),
        ("decoder", {"patch_size": 60_000}, "shape"),
        ("encoder", {"arch": "hf-hub:evil/model"}, "plain name"),
        ("encoder", {"channels": 7}, "can be built"),
    ],
)
def test_a_hostile_config_is_refused(state, tmp_path, part, change, told):
    save_mae_state(tmp_path / "mae", state)
    tensors, config = artifact.load(tmp_path / "mae")
    artifact.save(tmp_path / "mae", tensors, {**config, part: {**config[part], **change}})
    with pytest.raises(IntegrityError) as caught:
        load_mae_state(tmp_path / "mae")
    assert told in str(caught.value)


def test_other_kinds_other_tensors_and_changed_bytes_are_refused(state, tmp_path):
    save_mae_state(tmp_path / "mae", state)
    tensors, config = artifact.load(tmp_path / "mae")
    for wrong in ({**config, "kind": "extractor"}, {**config, "decoder": None}, {"kind": "mae_state"}):
        artifact.save(tmp_path / "mae", tensors, wrong)
        with pytest.raises(CodaError):
            load_mae_state(tmp_path / "mae")
    artifact.save(tmp_path / "mae", {**tensors, "intruder": torch.zeros(1)}, config)
    with pytest.raises(IntegrityError, match="intruder"):
        load_mae_state(tmp_path / "mae")
    save_mae_state(tmp_path / "mae", state)
    with pytest.raises(IntegrityError, match="not the one that was recorded"):
        load_mae_state(tmp_path / "mae", digest_of_json({}))
    path = tmp_path / "mae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "decoder": {}}))
    with pytest.raises(IntegrityError):
        load_mae_state(tmp_path / "mae")


def test_impossible_parameters_are_told_together(root):
    wrong = [*SMALL, "mae.decoder_heads=3", "mae.mask_ratio=0.99", "ttt.copies=2"]
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", [root / "params" / "demo.yaml"], wrong)
    assert {problem.where for problem in caught.value.problems} == {"mae.decoder_width", "mae.mask_ratio", "ttt.copies"}


def test_reconstruction_is_learned(state):
    """Two hundred steps on one image bring the error of its hidden patches to half of that of guessing the mean."""
    images = F.interpolate(torch.rand((1, 3, 4, 4), generator=source()), size=(32, 32)).expand(8, -1, -1, -1)
    optimizer = torch.optim.Adam([*state.encoder.parameters(), *state.decoder.parameters()], lr=0.005)
    losses = []
    for number in range(200):
        keep = random_keep(8, 16, 0.5, source(number))
        predicted = state.decoder(state.encoder(images, keep), keep, (4, 4))
        loss = mae_loss(predicted, images, keep, 8, norm_pixels=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < float(images.var()) / 2
