"""Training of the masked autoencoder: it learns without labels, goes on where it was stopped, and refuses bad input."""

import dataclasses
import json
import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from coda.errors import ConfigError, TransientError
from coda.networks.extractor import load_extractor
from coda.networks.mae import mae_loss, random_keep
from coda.training.checkpoint import Checkpoints
from coda.training.crops import Cropper
from coda.training.labels import LabelList
from coda.training.methods.mae.state import load_mae_state, new_mae_state
from coda.training.methods.mae.training import train_mae
from coda.training.pairs import PairSampler
from coda.training.randomness import generator
from coda.training.split import held_out
from coda.training.supervised import train_supervised

SHORT = (
    "mae.decoder_width=8", "mae.decoder_depth=1", "mae.decoder_heads=2", "mae.mask_ratio=0.5",
    "mae.pretrain.iterations=8", "mae.pretrain.batch_size=6", "mae.pretrain.checkpoint_every=3",
)  # fmt: skip


RANK = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from coda.config.params import Params
from coda.networks.extractor import save_extractor
from coda.training.methods.mae.state import new_mae_state, save_mae_state
from coda.plates.fieldset import FieldSet
from coda.training.distributed import joined
from coda.training.labels import LabelList
from coda.training.methods.mae.training import train_mae
from coda.training.split import held_out
from coda.training.supervised import train_supervised
folder = Path(sys.argv[1])
params = Params.model_validate_json((folder / "params.json").read_bytes())
fields = FieldSet(np.load(folder / "images.npy"), pd.read_parquet(folder / "table.parquet"), ("DNA", "AGP", "RNA"))
with joined() as world:
    result = train_mae(fields, params, params.mae.pretrain, state=new_mae_state(params, seed=5), seed=5)
    if world.first:
        save_mae_state(folder / "state", result.state)
        (folder / "losses.json").write_text(json.dumps([entry["loss"] for entry in result.log]))
    mask = held_out(fields.table, 1)
    labels = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(3)})
    result = train_supervised(fields.take(~mask), fields.take(mask), labels, params, seed=5)
    if world.first:
        save_extractor(folder / "supervised", result.extractor)
        (folder / "log.json").write_text(json.dumps(result.log))
"""


def bits(state):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.state_dict().items()}


def train(fields, params, **options):
    options.setdefault("state", new_mae_state(params, seed=5))
    return train_mae(fields, params, params.mae.pretrain, seed=5, **options)


@pytest.mark.parametrize("changes", [(), ("compute.precision=bfloat16",)])
@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(fields, tiny, tmp_path, changes, stop_at):
    params = tiny(*SHORT, *changes)
    whole = train(fields, params)
    asked = iter([False] * stop_at + [True])
    with pytest.raises(TransientError, match="interrupted"):
        train(fields, params, checkpoints=Checkpoints(tmp_path), should_stop=lambda: next(asked))
    torch.manual_seed(999)
    resumed = train(fields, params, checkpoints=Checkpoints(tmp_path))
    assert bits(resumed.state) == bits(whole.state)
    assert resumed.log == whole.log


def test_the_first_loss_is_that_of_the_first_batch_computed_apart(fields, tiny):
    params = tiny(*SHORT, "pairs.control_share=1")
    state = new_mae_state(params, seed=5)
    drawn = PairSampler(fields.table, params.pairs.model_copy(update={"by": "none"})).batch(5, 0, 6)[0]
    rows = torch.from_numpy(drawn)
    cropper = Cropper(torch.from_numpy(fields.images), params.crops)
    images = cropper.random_crops(rows, 16, generator(5, "mae crops", 0), jitter=True)
    keep = random_keep(6, 4, 0.5, generator(5, "masks", 0))
    with torch.no_grad():
        predicted = state.decoder(state.encoder(images, keep), keep, (2, 2))
    expected = float(mae_loss(predicted, images, keep, 8, norm_pixels=True))
    assert train(fields, params, state=state).log[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_loss_falls_and_both_networks_learn(fields, tiny):
    """All fields show bars, always at the same place: what is hidden can be known from where it is."""
    params = tiny(*SHORT, "mae.pretrain.iterations=100", "mae.pretrain.learning_rate=0.01", "crops.centre=16",
                  "crops.rotations=false", "crops.flips=false", "mae.norm_pixels=false")  # fmt: skip
    bars = np.tile(np.repeat([20, 200, 90, 140], 4), 2).astype(np.uint8)
    alike = dataclasses.replace(fields, pool=fields.images // 8 + bars[None, None, :, None] // 2)
    state = new_mae_state(params, seed=5)
    before = bits(state)
    result = train(alike, params, state=state)
    losses = [entry["loss"] for entry in result.log]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert result.alarms == ()
    assert all(math.isfinite(entry["feature_spread"]) for entry in result.log)
    assert {name for name, content in bits(state).items() if content == before[name]} == set()
    assert not state.encoder.training


def test_a_later_training_starts_from_the_state_it_is_given(fields, tiny):
    params = tiny(*SHORT)
    first = train(fields, params)
    adapted = train(fields, params, state=first.state)
    assert adapted.log[0]["loss"] != first.log[0]["loss"]
    assert adapted.log[0]["learning_rate"] == first.log[0]["learning_rate"]


def test_other_data_or_another_start_do_not_take_the_checkpoint(fields, tiny, tmp_path):
    params = tiny(*SHORT)
    train(fields, params, checkpoints=Checkpoints(tmp_path))
    other = dataclasses.replace(fields, pool=255 - fields.images)
    with pytest.raises(ConfigError, match="another experiment"):
        train(other, params, checkpoints=Checkpoints(tmp_path))
    with pytest.raises(ConfigError, match="another experiment"):
        train(fields, params, checkpoints=Checkpoints(tmp_path), state=new_mae_state(params, seed=6))


def test_other_stains_are_refused(fields, tiny):
    params = tiny(*SHORT)
    with pytest.raises(ConfigError, match="other channels than the extractor"):
        train(dataclasses.replace(fields, channels=("DNA", "RNA", "AGP")), params)


def test_labels_would_change_nothing(fields, tiny):
    params = tiny(*SHORT)
    shuffled = fields.table.sample(frac=1, random_state=0).reset_index(drop=True)
    table = fields.table.assign(Metadata_Compound=shuffled["Metadata_Compound"].to_numpy())
    plain = train(fields, params)
    again = train(dataclasses.replace(fields, table=table), params)
    assert bits(plain.state) == bits(again.state)


def test_features_that_are_all_alike_raise_an_alarm(fields, tiny):
    params = tiny(*SHORT, "mae.pretrain.learning_rate=1e-9", "mae.pretrain.learning_rate_end=0")
    state = new_mae_state(params, seed=5)
    with torch.no_grad():
        state.encoder.vit.norm.weight.zero_()
        state.encoder.vit.norm.bias.fill_(1)
    assert train(fields, params, state=state).alarms == ("the encoder's features are the same for all images",)


def test_two_processes_learn_what_one_does(fields, tiny, tmp_path, root):
    params = tiny(*SHORT, "supervised.iterations=8", "supervised.batch_size=6", "crops.eval_grid=1")
    (tmp_path / "params.json").write_text(params.model_dump_json())
    np.save(tmp_path / "images.npy", fields.images)
    fields.table.to_parquet(tmp_path / "table.parquet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}  # fmt: skip
    arguments = [sys.executable, "-c", RANK, str(tmp_path)]
    processes = [subprocess.Popen(arguments, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    alone = train(fields, params)
    losses = json.loads((tmp_path / "losses.json").read_text())
    assert losses == pytest.approx([entry["loss"] for entry in alone.log], rel=1e-4)
    together = load_mae_state(tmp_path / "state").state_dict()
    for name, tensor in alone.state.state_dict().items():
        torch.testing.assert_close(together[name], tensor.detach(), atol=2e-4, rtol=1e-3, msg=name)
    mask = held_out(fields.table, 1)
    labels = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(3)})
    single = train_supervised(fields.take(~mask), fields.take(mask), labels, params, seed=5)
    shared_log = json.loads((tmp_path / "log.json").read_text())
    assert len(shared_log) == len(single.log)
    for ours, theirs in zip(shared_log, single.log, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    trained = load_extractor(tmp_path / "supervised").state_dict()
    for name, tensor in single.extractor.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, atol=2e-4, rtol=1e-3, msg=name)
