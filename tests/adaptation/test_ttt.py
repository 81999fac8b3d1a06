"""Test-time training: each image on its own, everything reset to the bit, the head untouched, SGD as written out."""

import dataclasses

import numpy as np
import pytest
import torch

from coda.adaptation.ttt import predict_with_ttt
from coda.errors import ConfigError, TransientError
from coda.networks.head import new_head
from coda.networks.mae import mae_loss, random_keep
from coda.training.checkpoint import Checkpoints
from coda.training.crops import Cropper, turned_at_random
from coda.training.engine import tensors_digest
from coda.training.methods.mae.state import new_mae_state
from coda.training.randomness import generator
from coda.training.tokens import extract_tokens, field_probabilities

SHORT = (
    "mae.decoder_width=8", "mae.decoder_depth=1", "mae.decoder_heads=2", "mae.mask_ratio=0.5", "ttt.steps=3",
    "ttt.copies=6", "ttt.learning_rate=0.5", "ttt.checkpoint_every=2", "crops.eval_grid=1",
)  # fmt: skip


@pytest.fixture
def setting(tiny, make_plates):
    def build(*changes, alignment="none"):
        params = tiny(*SHORT, *changes)
        state = new_mae_state(params, seed=1)
        head = new_head(params, state.encoder, ("a", "b", "c"), alignment, seed=2)
        return state, head, make_plates().take(np.arange(7)), params

    return build


def with_ttt(params, **changes):
    return params.model_copy(update={"ttt": params.ttt.model_copy(update=changes)})


def test_weights_after_are_those_before_and_the_head_is_untouched(setting):
    state, head, fields, params = setting()
    before, kept = tensors_digest(state.state_dict()), tensors_digest(head.state_dict())
    found = predict_with_ttt(state, head, fields, params, seed=0)
    assert tensors_digest(state.state_dict()) == before
    assert tensors_digest(head.state_dict()) == kept
    assert all(p.grad is None for p in head.parameters())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_neither_order_nor_company_changes_a_prediction(setting):
    state, head, fields, params = setting()
    whole = predict_with_ttt(state, head, fields, params, seed=0)
    order = np.array([4, 2, 6, 0, 1, 3, 5])
    assert np.array_equal(predict_with_ttt(state, head, fields.take(order), params, seed=0), whole[order])
    assert np.array_equal(predict_with_ttt(state, head, fields.take(np.array([3])), params, seed=0), whole[[3]])
    assert not np.array_equal(predict_with_ttt(state, head, fields, params, seed=1), whole)


@pytest.mark.parametrize("flips", ["true", "false"])
def test_one_image_as_written_out(setting, flips):
    """Momentum, reset, masks and the mean over crops, step by step with plain tensors."""
    state, head, fields, params = setting(f"ttt.flips={flips}", "crops.eval_grid=2")
    curve = [predict_with_ttt(state, head, fields, with_ttt(params, steps=steps), seed=0) for steps in (1, 2, 3)]
    assert {found.shape for found in curve} == {(7, 3)}
    cropper = Cropper(torch.from_numpy(fields.images), params.crops)
    for place in (0, 5):
        own = new_mae_state(params, seed=1)
        learn = [*own.encoder.parameters(), own.decoder.mask_token]
        speed = [torch.zeros_like(weight) for weight in learn]
        crops = cropper.grid_crops(torch.tensor([place]))[0]
        for step in range(4):
            with torch.no_grad():
                expected = head(own.encoder(crops)).softmax(dim=-1).mean(dim=0).numpy()
            if step:
                np.testing.assert_allclose(curve[step - 1][place], expected, atol=1e-5)
            source = generator(0, f"ttt {fields.table['image_id'][place]}", step)
            copies = crops[[0, 1, 2, 3, 0, 1]]
            if flips == "true":
                copies = turned_at_random(copies, params.crops, source)
            keep = random_keep(6, 4, 0.5, source)
            loss = mae_loss(own.decoder(own.encoder(copies, keep), keep, (2, 2)), copies, keep, 8, norm_pixels=True)
            gradients = torch.autograd.grad(loss, learn)
            with torch.no_grad():
                for weight, past, gradient in zip(learn, speed, gradients, strict=True):
                    past.mul_(0.9).add_(gradient)
                    weight.sub_(0.5 * past)


def test_steps_of_no_length_are_the_unadapted_system(setting):
    state, head, fields, params = setting("crops.eval_grid=2")
    still = predict_with_ttt(state, head, fields, with_ttt(params, learning_rate=1e-30), seed=0)
    plain = field_probabilities(head, extract_tokens(state.encoder, fields, params), params)
    np.testing.assert_allclose(still, plain, atol=1e-5)
    assert np.abs(predict_with_ttt(state, head, fields, params, seed=0) - plain).max() > 1e-4


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_stopped_run_goes_on_with_the_next_image(setting, tmp_path, stop_at):
    state, head, fields, params = setting()
    before = tensors_digest(state.state_dict())
    whole = predict_with_ttt(state, head, fields, params, seed=0)
    asked, kept, seen = iter([False] * stop_at + [True]), Checkpoints(tmp_path), []
    with pytest.raises(TransientError):
        predict_with_ttt(state, head, fields, params, seed=0, checkpoints=kept, should_stop=lambda: next(asked))
    assert tensors_digest(state.state_dict()) == before
    again = predict_with_ttt(
        state, head, fields, params, seed=0, checkpoints=kept, report=lambda p: seen.append(p.done)
    )
    assert np.array_equal(again, whole)
    assert seen == list(range(stop_at + 1, 8))
    other = dataclasses.replace(fields, pool=255 - fields.images, rows=None)
    with pytest.raises(ConfigError, match="another experiment"):
        predict_with_ttt(state, head, other, params, seed=0, checkpoints=kept)


def test_a_head_on_standardised_tokens_is_refused(setting):
    state, head, fields, params = setting(alignment="standardise")
    with pytest.raises(ConfigError, match="no batch statistics"):
        predict_with_ttt(state, head, fields, params, seed=0)


def test_turns_are_symmetries_of_the_square_and_all_of_them_occur(tiny):
    params = tiny("crops.flips=true", "crops.rotations=true")
    image = torch.arange(9.0).view(1, 1, 3, 3)
    turned = turned_at_random(image.repeat(200, 1, 1, 1), params.crops, generator(0, "x", 0))
    expected = {
        tuple(torch.rot90(side, k, (-2, -1)).flatten().tolist()) for k in range(4) for side in (image, image.flip(-1))
    }
    assert {tuple(one.flatten().tolist()) for one in turned} == expected
