"""Training as a whole: exact resume, a stored trajectory, hand-over, and what refuses to run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from coda.errors import ConfigError, TransientError
from coda.training.checkpoint import Checkpoints
from coda.training.methods.dino.state import load_state, new_state, save_state
from coda.training.methods.dino.training import train_dino
from coda.training.progress import Progress


def train(fields, params, **options):
    options.setdefault("state", new_state(params, seed=5))
    options.setdefault("keep_moments", params.pretrain.keep_optimizer)
    return train_dino(fields, params, params.pretrain, seed=5, **options)


def bits(state):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.state_dict().items()}


DEEP = "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 3, num_heads: 2}"
"""A network in which drop path leaves something out: the rate of the first block is always 0."""


@pytest.mark.parametrize("changes", [(), (DEEP, "extractor.drop_path=0.3", "compute.precision=bfloat16")])
@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(fields, tiny, tmp_path, changes, stop_at):
    params = tiny(*changes)
    whole = train(fields, params)
    asked = iter([False] * stop_at + [True])
    with pytest.raises(TransientError, match="interrupted"):
        train(fields, params, checkpoints=Checkpoints(tmp_path), should_stop=lambda: next(asked))
    torch.manual_seed(999)  # another process has another global state
    resumed = train(fields, params, checkpoints=Checkpoints(tmp_path))
    assert bits(resumed.state) == bits(whole.state)
    assert resumed.log == whole.log


def test_drop_path_follows_the_seed_and_not_what_was_drawn_before(fields, tiny):
    ends = []
    for rate, state in ((0.3, 1), (0.3, 2), (0.0, 1)):
        torch.manual_seed(state)
        ends.append(bits(train(fields, tiny(DEEP, f"extractor.drop_path={rate}")).state))
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]


def test_resume_goes_on_from_the_checkpoint_and_not_from_the_start(fields, tiny, tmp_path):
    params, seen = tiny(), []
    asked = iter([False] * 4 + [True])
    with pytest.raises(TransientError):
        train(fields, params, checkpoints=Checkpoints(tmp_path), should_stop=lambda: next(asked))
    train(fields, params, checkpoints=Checkpoints(tmp_path), report=seen.append)
    assert [progress.done for progress in seen] == [5, 6, 7, 8]
    assert all(isinstance(progress, Progress) and progress.total == 8 for progress in seen)
    assert seen[-1].remaining_s == 0


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(fields, tiny, tmp_path):
    params = tiny()
    whole = train(fields, params, checkpoints=Checkpoints(tmp_path))
    newest = Checkpoints(tmp_path).finished()[-1]
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    again = train(fields, params, checkpoints=Checkpoints(tmp_path))
    assert bits(again.state) == bits(whole.state)


def test_a_checkpoint_of_other_data_is_refused(fields, tiny, tmp_path):
    params = tiny()
    train(fields, params, checkpoints=Checkpoints(tmp_path))
    other = replace(fields, pool=255 - fields.images)
    with pytest.raises(ConfigError, match="another experiment"):
        train(other, params, checkpoints=Checkpoints(tmp_path))


def test_only_two_checkpoints_are_kept_and_each_is_announced(fields, tiny, tmp_path):
    written = []
    params = tiny("pretrain.checkpoint_every=2")
    train(fields, params, checkpoints=Checkpoints(tmp_path, written=lambda path: written.append(path.name)))
    assert written == ["00000002", "00000004", "00000006"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000006"]


def test_stored_loss_trajectory(fields, tiny, root):
    """Eight losses of a tiny run. They change only when the method does: then look twice before storing new ones."""
    stored = json.loads((root / "tests" / "golden" / "dino_losses.json").read_text())
    losses = [entry["loss"] for entry in train(fields, tiny()).log]
    assert losses == pytest.approx(stored, rel=2e-4)


def test_teacher_is_the_moving_average_of_the_students(fields, tiny):
    params = tiny("pretrain.iterations=1", "pretrain.ema_start=0.9")
    state = new_state(params, seed=5)
    before = {name: tensor.clone() for name, tensor in state.teacher.state_dict().items()}
    train(fields, params, state=state)
    student, teacher = state.student.state_dict(), state.teacher.state_dict()
    for name, old in before.items():
        torch.testing.assert_close(teacher[name], 0.9 * old + 0.1 * student[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(before[name], student[name]) for name in before)


def test_frozen_dino_head_keeps_both_heads_to_the_bit(fields, tiny):
    params = tiny()
    state = new_state(params, seed=5)
    before = bits(state)
    train(fields, params, state=state, dino_head="frozen")
    after = bits(state)
    heads = [name for name in before if "_head." in name]
    assert heads
    assert all(before[name] == after[name] for name in heads)
    assert before["student.vit.blocks.0.mlp.fc1.weight"] != after["student.vit.blocks.0.mlp.fc1.weight"]


def test_frozen_last_layer_stays_for_its_epochs_only(fields, tiny):
    for epochs, frozen in ((100.0, True), (0.0, False)):
        params = tiny(f"pretrain.freeze_last_layer_epochs={epochs}")
        state = new_state(params, seed=5)
        before = state.student_head.last_layer.weight.detach().clone()
        train(fields, params, state=state)
        assert torch.equal(before, state.student_head.last_layer.weight) == frozen


def test_state_is_handed_over_whole_and_the_centre_is_carried_unless_told_otherwise(fields, tiny, tmp_path):
    params = tiny("pretrain.iterations=1", "dino.centre_momentum=1.0")
    state = new_state(params, seed=5)
    state.centre = torch.arange(12, dtype=torch.float32)
    save_state(tmp_path / "state", state)
    handed = load_state(tmp_path / "state")
    assert bits(handed) == bits(state)
    train(fields, params, state=handed)
    assert handed.centre.tolist() == list(range(12))
    fresh = load_state(tmp_path / "state")
    train(fields, params, state=fresh, carry_centre=False)
    assert fresh.centre.abs().max() == 0


def test_labels_cannot_reach_the_weights(fields, tiny):
    """A table with (shuffled) mechanisms is refused before the first step (`coda.training.blindness`)."""
    labelled = replace(
        fields, table=fields.table.assign(moa=np.random.default_rng(1).permutation(len(fields)).astype(str))
    )
    with pytest.raises(ConfigError, match="must not see more of a field than its index says"):
        train(labelled, tiny())


def test_plain_dino_differs_from_cross_batch_pairs(fields, tiny):
    params = tiny()
    plain = params.pairs.model_copy(update={"by": "none"})
    assert bits(train(fields, params, pairs=plain).state) != bits(train(fields, params).state)


def test_training_lowers_the_loss_and_reports_health(fields, tiny):
    params = tiny("pretrain.iterations=60", "pretrain.learning_rate=0.005")
    result = train(fields, params)
    losses = [entry["loss"] for entry in result.log]
    assert np.mean(losses[-10:]) < np.mean(losses[:5]) - 0.05
    assert result.alarms == ()
    assert set(result.log[-1]) >= {"teacher_entropy", "mean_entropy", "feature_spread", "gradient_norm", "momentum"}


def test_other_stains_are_refused(fields, tiny):
    with pytest.raises(ConfigError, match="other channels than the extractor"):
        train(replace(fields, channels=("DNA", "RNA", "AGP")), tiny())


def test_a_loss_that_is_no_number_is_refused(fields, tiny):
    params = tiny()
    state = new_state(params, seed=5)
    with torch.no_grad():
        state.student.vit.cls_token.fill_(float("nan"))
    with pytest.raises(ConfigError, match="diverged"):
        train(fields, params, state=state)


def test_the_optimizer_can_be_handed_over_too(fields, tiny, tmp_path):
    """Moments and step counts go through the kept state, and the next run begins with them."""
    params = tiny("pretrain.keep_optimizer=true", "adaptation.carry_optimizer=true", "adaptation.dino_head=trained")
    state = train(fields, params).state
    assert float(state.moments["0.step"]) == 8
    save_state(tmp_path / "state", state)
    handed = load_state(tmp_path / "state")
    assert {name: tensor.tolist() for name, tensor in handed.moments.items()} == {
        name: tensor.tolist() for name, tensor in state.moments.items()
    }
    fresh = load_state(tmp_path / "state")
    fresh.moments = {}
    one, other = train(fields, params, state=handed).state, train(fields, params, state=fresh).state
    assert float(one.moments["0.step"]) == 16
    assert float(other.moments["0.step"]) == 8
    assert bits(one) != bits(other)
    assert train(fields, tiny()).state.moments == {}


def test_moments_of_other_weights_are_refused(fields, tiny):
    params = tiny("pretrain.keep_optimizer=true", "adaptation.carry_optimizer=true", "adaptation.dino_head=trained")
    state = train(fields, params).state
    state.moments["0.exp_avg"] = state.moments["0.exp_avg"][..., :1]
    with pytest.raises(ConfigError, match="belong to other weights"):
        train(fields, params, state=state)
