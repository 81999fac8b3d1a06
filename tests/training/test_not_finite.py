"""NaN and infinity at random iterations: nothing broken is kept, and what is kept goes on to the same end."""

import numpy as np
import pytest
import torch
from broken_numbers import check_divergence, faults

from coda.errors import ConfigError
from coda.networks import artifact
from coda.networks.extractor import new_extractor
from coda.networks.finite import not_finite
from coda.training.checkpoint import Checkpoints
from coda.training.head import TokenSet, train_head
from coda.training.labels import LabelList
from coda.training.losses import Losses, NotFiniteError
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.mae.state import new_mae_state
from coda.training.methods.mae.training import train_mae
from coda.training.split import held_out
from coda.training.supervised import train_supervised

LABELS = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(3)})
MAE = (
    "mae.decoder_width=8", "mae.decoder_depth=1", "mae.decoder_heads=2", "mae.mask_ratio=0.5",
    "mae.pretrain.iterations=9", "mae.pretrain.batch_size=6", "mae.pretrain.checkpoint_every=3",
)  # fmt: skip


def bits(tensors):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


def named(fault):
    return f"{fault.place}-{fault.value}-{fault.at}"


@pytest.mark.parametrize("fault", faults(9), ids=named)
def test_dino(fields, tiny, tmp_path, fault, monkeypatch):
    """Nothing is measured but the first iteration and the last, as between the reports of a long run."""
    monkeypatch.setattr("coda.training.engine.LOGGED", 1)
    params = tiny("pretrain.iterations=9", "dino.batch_norm=true")

    def train(checkpoints):
        state = new_state(params, seed=5)
        result = train_dino(fields, params, params.pretrain, state=state, seed=5, checkpoints=checkpoints)
        return bits(state.state_dict()), result.log

    check_divergence(train, fault, tmp_path, "coda.training.methods.dino.objective.dino_loss", "pretrain.learning_rate")


@pytest.mark.parametrize("fault", faults(9), ids=named)
def test_masked_autoencoder(fields, tiny, tmp_path, fault):
    params = tiny(*MAE)

    def train(checkpoints):
        state = new_mae_state(params, seed=5)
        result = train_mae(fields, params, params.mae.pretrain, state=state, seed=5, checkpoints=checkpoints)
        return bits(state.state_dict()), result.log

    check_divergence(
        train, fault, tmp_path, "coda.training.methods.mae.training.mae_loss", "mae.pretrain.learning_rate"
    )


@pytest.mark.parametrize("fault", faults(12), ids=named)
def test_supervised(fields, tiny, tmp_path, fault):
    params = tiny("supervised.iterations=12", "supervised.batch_size=8", "supervised.checkpoint_every=4",
                  "crops.eval_grid=1")  # fmt: skip
    mask = held_out(fields.table, 1)

    def train(checkpoints):
        result = train_supervised(
            fields.take(~mask), fields.take(mask), LABELS, params, seed=1, checkpoints=checkpoints
        )
        return bits(result.extractor.state_dict()), bits(result.head.state_dict()), result.log

    check_divergence(train, fault, tmp_path, "torch.nn.functional.cross_entropy", "supervised.learning_rate")


@pytest.mark.parametrize("fault", faults(12), ids=named)
def test_head(tiny, tmp_path, fault):
    params = tiny("head.budget.iterations=12", "head.budget.checkpoint_every=4")
    source = np.random.default_rng(0)
    tokens = [torch.from_numpy(source.normal(size=(1, 40, 5, 16)).astype(np.float32)) for _ in range(2)]
    training, check = (TokenSet(part, source.integers(0, 2, 40)) for part in tokens)
    extractor = new_extractor(params, seed=0)

    def train(checkpoints):
        result = train_head(lambda _epoch: training, check, extractor, params, classes=("a", "b"), alignment="none",
                            seed=1, checkpoints=checkpoints)  # fmt: skip
        return bits(result.head.state_dict()), result.log

    check_divergence(train, fault, tmp_path, "torch.nn.functional.cross_entropy", "head.budget.learning_rate")


def test_broken_checkpoints_of_an_earlier_version_are_passed_over_and_do_not_crowd_out_new_ones(
    fields, tiny, tmp_path, monkeypatch
):
    """The state in which version 0.1 left a run for ever: both kept checkpoints are NaN."""
    params, state = tiny("pretrain.iterations=20"), new_state(tiny(), seed=5)
    train_dino(fields, params, params.pretrain, state=state, seed=5, checkpoints=Checkpoints(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "not_finite", lambda _tensors: [])
        for path in Checkpoints(tmp_path).finished():
            tensors, config = artifact.load(path)
            tensors["state.student.vit.cls_token"].fill_(float("nan"))
            artifact.save(path, tensors, config)
    written = []
    kept = Checkpoints(tmp_path, written=lambda path: written.append(sorted(p.name for p in kept.finished())))
    again = new_state(params, seed=5)
    train_dino(fields, params, params.pretrain, state=again, seed=5, checkpoints=kept)
    assert written[:3] == [["00000003"], ["00000003", "00000006"], ["00000006", "00000009"]]
    assert bits(again.state_dict()) == bits(state.state_dict())


def test_no_model_folder_holds_a_broken_number(tmp_path):
    whole, broken = torch.ones(3), torch.tensor([1.0, float("inf")])
    with pytest.raises(ConfigError, match="NaN or infinity in b"):
        artifact.save(tmp_path / "model", {"a": whole, "b": broken, "n": torch.tensor([1])}, {"kind": "any"})
    assert list(tmp_path.iterdir()) == []
    assert not_finite({"a": whole, "n": torch.tensor(3), "e": torch.zeros(0)}) == []


def test_a_loss_is_the_mean_since_the_last_report(fields, tiny, monkeypatch):
    params = tiny("pretrain.iterations=9")

    def losses():
        return [
            entry["loss"]
            for entry in train_dino(fields, params, params.pretrain, state=new_state(params, seed=5), seed=5).log
        ]

    each = losses()
    monkeypatch.setattr("coda.training.engine.LOGGED", 2)
    assert losses() == pytest.approx([each[0], np.mean(each[1:5]), np.mean(each[5:9])], rel=1e-6)


def test_the_first_broken_iteration_is_named_and_a_restart_begins_without_it():
    losses = Losses(torch.device("cpu"))
    for iteration, value in enumerate((1.0, 2.0, float("nan"), float("inf"))):
        losses.note(iteration, torch.tensor(value), torch.tensor(1.0))
    with pytest.raises(NotFiniteError, match="iteration 2"):
        losses.mean()
    other = Losses(torch.device("cpu"))
    other.note(0, torch.tensor(4.0), torch.tensor(float("inf")))
    with pytest.raises(NotFiniteError, match="iteration 0"):
        other.require_finite()
