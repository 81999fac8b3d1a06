"""DINOv2: masks by count, losses against other computations, exact resume, processes, and that it is one folder."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from coda.config.params import Params
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.networks import artifact
from coda.networks.extractor import new_extractor
from coda.training.checkpoint import Checkpoints
from coda.training.methods.base import SslTask
from coda.training.methods.dinov2.losses import koleo_loss, patch_loss, updated_patch_centre
from coda.training.methods.dinov2.masks import Masks, block_mask, draw_masks
from coda.training.methods.dinov2.method import METHOD

SHORT = (
    "ssl.method=dinov2",
    "extractor.overrides={img_size: 16, patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}",
)


def bits(state):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.state_dict().items()}


def train(fields, params, state=None, **options):
    state = state if state is not None else METHOD.new_state(params, seed=5)
    return METHOD.train(state, params, SslTask(fields, "pretrain", params.pairs, 5, **options))


@settings(deadline=None)
@given(rows=st.integers(2, 15), columns=st.integers(2, 15), part=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_so_many_patches_are_hidden(rows, columns, part, seed):
    count = 1 + round(part * (rows * columns - 2))
    hidden = block_mask((rows, columns), count, np.random.default_rng(seed))
    assert hidden.shape == (rows, columns)
    assert hidden.sum() == count


def test_blocks_are_hidden_and_not_scattered_patches():
    """Neighbours of hidden patches are hidden far more often than chance would have it."""
    rng = np.random.default_rng(0)
    masks = np.stack([block_mask((14, 14), 50, rng) for _ in range(50)])
    alike = (masks[:, :, 1:] & masks[:, :, :-1]).sum() / masks[:, :, :-1].sum()
    assert alike > 0.6  # 50 of 196 patches: 0.26 by chance


def test_the_share_of_views_and_the_ratios_of_patches_are_those_asked_for():
    drawn = draw_masks(64, (14, 14), share=0.5, ratio=(0.1, 0.5), rng=np.random.default_rng(1))
    counts = drawn.sum(dim=1)
    masked = counts[counts > 0].sort().values / 196
    assert len(masked) == 32
    # one from each of 32 equal steps between both bounds
    steps = np.linspace(0.1, 0.5, 33)
    slack = 0.5 / 196 + 1e-9
    assert all(low - slack <= ratio <= high + slack for ratio, low, high in zip(masked, steps, steps[1:], strict=False))
    assert (counts[:32] > 0).sum() not in (0, 32)  # in any order
    one = draw_masks(3, (2, 2), share=0.1, ratio=(0.0, 0.0), rng=np.random.default_rng(1))
    assert one.sum() == 1
    most = draw_masks(3, (2, 2), share=1.0, ratio=(1.0, 1.0), rng=np.random.default_rng(1))
    assert most.sum(dim=1).tolist() == [3, 3, 3]


def test_the_patch_loss_is_that_of_a_loop_over_views_and_patches():
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 6, 9, 12))  # six views of nine patches, twelve prototypes
    centre, hidden = rng.normal(size=12), rng.random((6, 9)) < 0.4
    hidden[2] = False
    expected = 0.0
    for view in range(6):
        own = [
            -(softmax((teacher[view, patch] - centre) / 0.05) * log_softmax(student[view, patch] / 0.1)).sum()
            for patch in range(9)
            if hidden[view, patch]
        ]
        expected += np.mean(own) / 6 if own else 0.0
    masks = Masks.of(torch.from_numpy(hidden), torch.device("cpu"))
    found = patch_loss(
        torch.from_numpy(student).flatten(0, 1)[masks.places], torch.from_numpy(teacher).flatten(0, 1)[masks.places],
        torch.from_numpy(centre), masks.weights, 6, student_temperature=0.1, teacher_temperature=0.05,
    )  # fmt: skip
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_guess_that_knows_nothing_costs_the_logarithm_of_the_prototypes():
    masks = Masks.of(torch.ones(4, 5, dtype=torch.bool), torch.device("cpu"))
    logits = torch.zeros(20, 12)
    found = patch_loss(logits, torch.randn(20, 12, generator=torch.Generator().manual_seed(0)), torch.zeros(12),
                       masks.weights, 4, student_temperature=0.1, teacher_temperature=0.04)  # fmt: skip
    assert float(found) == pytest.approx(math.log(12), rel=1e-5)


def test_koleo_is_that_of_all_distances():
    features = torch.randn(17, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30
    directions = features / features.norm(dim=1, keepdim=True)
    distances = torch.cdist(directions, directions) + torch.eye(17) * 10
    expected = -distances.min(dim=1).values.log().mean()
    assert float(koleo_loss(features)) == pytest.approx(float(expected), rel=1e-5)


def test_koleo_pushes_the_nearest_two_apart_and_bears_equal_features():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-0.2, -1.0]], requires_grad=True)
    koleo_loss(features).backward()
    moved = (features - 0.01 * features.grad).detach()
    assert float(koleo_loss(moved)) < float(koleo_loss(features.detach()))
    alike = torch.ones(3, 4, requires_grad=True)
    loss = koleo_loss(alike)
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert torch.isfinite(alike.grad).all()


def test_the_patch_centre_moves_to_the_mean_of_the_patches():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    found = updated_patch_centre(torch.ones(3), logits, 0.9)
    np.testing.assert_allclose(found.numpy(), 0.9 + 0.1 * logits.numpy().mean(axis=0), rtol=1e-5)


def test_the_student_sees_the_token_and_nothing_of_a_hidden_patch(tiny):
    extractor = new_extractor(tiny(*SHORT), seed=0).eval()
    one, other = torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(3, 16, dtype=torch.bool)
    hidden[:, 5] = True
    other = torch.cat([other[:, :, :, :4], one[:, :, :, 4:]], dim=-1)  # patches 0, 4, 8, 12 differ
    token = torch.randn(16, generator=torch.Generator().manual_seed(1))
    plain = extractor(one)
    assert torch.equal(extractor(one, hidden=(torch.zeros_like(hidden), token)), plain)
    assert not torch.allclose(extractor(one, hidden=(hidden, token)), plain)
    hidden[:] = False
    hidden[:, ::4] = True
    torch.testing.assert_close(extractor(one, hidden=(hidden, token)), extractor(other, hidden=(hidden, token)))


def test_both_losses_are_logged_and_everything_learns(fields, tiny):
    params = tiny(*SHORT, "pretrain.freeze_last_layer_epochs=0", "extractor.drop_path=0.1")
    before = bits(METHOD.new_state(params, seed=5))
    result = train(fields, params)
    assert {"loss", "patch_loss", "koleo", "teacher_entropy"} <= set(result.log[-1])
    after = bits(result.state)
    # a bias of keys has no gradient, and one that all prototypes share has none either
    same = {name for name in before if before[name] == after[name]}
    assert {name.partition(".")[0] for name in same} <= {"student", "teacher", "student_head", "teacher_head"}
    assert not {"mask_token", "patch_centre", "centre"} & same
    assert not any("patch_head" in name for name in same)


def test_without_its_losses_it_is_not_dino_for_the_student_sees_less(fields, tiny):
    heavy = train(fields, tiny(*SHORT, "dinov2.koleo_weight=5.0")).state
    assert bits(heavy) != bits(train(fields, tiny(*SHORT)).state)
    with pytest.raises(ConfigError, match="the smaller share comes first"):
        tiny(*SHORT, "dinov2.mask_ratio=[0.5, 0.1]")


@pytest.mark.parametrize("head", ["frozen", "prototypes_frozen"])
def test_a_frozen_head_is_both_heads(fields, tiny, head):
    params = tiny(*SHORT, f"adaptation.dino_head={head}", "adaptation.budget.iterations=3",
                  "adaptation.budget.batch_size=6")  # fmt: skip
    state = METHOD.new_state(params, seed=5)
    before = bits(state)
    METHOD.train(state, params, SslTask(fields, "adapt", params.pairs, 5))
    after = bits(state)
    frozen = [n for n in before if "_head." in n and (head == "frozen" or "last_layer" in n)]
    assert len({name.partition(".")[0] for name in frozen}) == 4
    assert all(before[name] == after[name] for name in frozen)
    assert before["student.vit.blocks.0.mlp.fc1.weight"] != after["student.vit.blocks.0.mlp.fc1.weight"]


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_stopped_run_is_bit_identical_to_one_that_was_not(fields, tiny, tmp_path, stop_at):
    params = tiny(*SHORT)
    whole = train(fields, params)
    asked = iter([False] * stop_at + [True])
    with pytest.raises(TransientError, match="interrupted"):
        train(fields, params, checkpoints=Checkpoints(tmp_path), should_stop=lambda: next(asked))
    torch.manual_seed(999)
    np.random.seed(999)  # noqa: NPY002 - another process has another global state
    resumed = train(fields, params, checkpoints=Checkpoints(tmp_path))
    assert bits(resumed.state) == bits(whole.state)
    assert resumed.log == whole.log


def test_a_checkpoint_of_other_weights_of_losses_is_refused(fields, tiny, tmp_path):
    train(fields, tiny(*SHORT), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(ConfigError, match="another experiment"):
        train(fields, tiny(*SHORT, "dinov2.patch_weight=2.0"), checkpoints=Checkpoints(tmp_path))


def test_a_kept_state_is_whole_and_a_changed_one_is_refused(fields, tiny, tmp_path):
    params = tiny(*SHORT, "pretrain.keep_optimizer=true")
    state = train(fields, params).state
    digest = METHOD.save_state(tmp_path / "state", state)
    kept = METHOD.load_state(tmp_path / "state", digest)
    assert bits(kept) == bits(state)
    assert kept.moments.keys() == state.moments.keys() != set()
    assert METHOD.save_state(tmp_path / "again", kept) == digest
    tensors, config = artifact.load(tmp_path / "state")
    for changed in ({**tensors, "mask_token": torch.zeros(3)}, {n: t for n, t in tensors.items() if n != "centre"}):
        artifact.save(tmp_path / "changed", changed, config)
        with pytest.raises(IntegrityError, match="not those of its config"):
            METHOD.load_state(tmp_path / "changed")


RANK = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from coda.config.params import Params
from coda.plates.fieldset import FieldSet
from coda.training.distributed import joined
from coda.training.methods.base import SslTask
from coda.training.methods.dinov2.method import METHOD
folder = Path(sys.argv[1])
params = Params.model_validate_json((folder / "params.json").read_bytes())
fields = FieldSet(np.load(folder / "images.npy"), pd.read_parquet(folder / "table.parquet"), ("DNA", "AGP", "RNA"))
with joined() as world:
    state = METHOD.new_state(params, seed=5)
    result = METHOD.train(state, params, SslTask(fields, "pretrain", params.pairs, 5))
    if world.first:
        METHOD.save_state(folder / "state", state)
        (folder / "log.json").write_text(json.dumps(result.log))
"""


def test_two_processes_learn_what_one_does(fields, tiny, tmp_path, root):
    """Hidden patches, their centre and KoLeo's neighbours are those of the whole batch."""
    params = tiny(*SHORT, "dinov2.koleo_weight=1.0", "extractor.drop_path=0.1", "dino.batch_norm=false")
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
    log = json.loads((tmp_path / "log.json").read_text())
    # an entry's mean loss is that of all processes; KoLeo is the whole batch's in each of them
    for name in ("loss", "koleo"):
        assert [entry[name] for entry in log] == pytest.approx([entry[name] for entry in alone.log], rel=1e-3)
    together = METHOD.load_state(tmp_path / "state").state_dict()
    for name, tensor in alone.state.state_dict().items():
        if not name.endswith("attn.qkv.bias"):  # a key's bias has no gradient but rounding, which AdamW makes large
            torch.testing.assert_close(together[name], tensor.detach(), atol=5e-4, rtol=2e-3, msg=name)


def test_it_is_one_folder_and_its_section_of_the_parameters(root):
    """Nothing else of the program names it: what a method needs is behind the door."""
    naming = {
        str(path.relative_to(root))
        for folder in ("coda", "components", "pipelines", "benchmarks", "studies")
        for path in (root / folder).rglob("*.py")
        if "dinov2" in path.read_text().lower() and "methods/dinov2/" not in str(path)
    }
    naming -= {  # backbones whose weights have that name
        "coda/networks/backbone.py",
    }
    assert naming == {"coda/config/params.py"}
    assert "dinov2" in Params.model_fields
    assert "dinov2:" in Path(root / "params.yaml").read_text()
