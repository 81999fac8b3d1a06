"""Heads in two processes: tokens to the bit, and the heads of one process but for rounding."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from coda.local.offline import offline_settings
from coda.steps.pretrain import pretrain
from coda.steps.train_head import train_head

CHANGES = (
    "pretrain.iterations=3", "head.budget.iterations=30", "head.budget.batch_size=8", "head.depth=1",
    "head.budget.checkpoint_every=10", "head.budget.learning_rate=0.003", "head.plateau_patience=50",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(dataset, params, tmp_path_factory):
    """Heads of one process and of two, on the same extractor."""
    folder = tmp_path_factory.mktemp("heads")
    settings = offline_settings(folder / "work")
    tables = [pd.read_parquet(path) for path in dataset.rglob("index.parquet")]
    names = sorted({name for table in tables for name in table["Metadata_Compound"] if name != "DMSO"})
    rows = [f"{name},moa_{number % 2}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["Metadata_Compound,moa", *rows]) + "\n")
    pretrain(dataset, folder / "pre", params=params(*CHANGES), settings=settings, run_id="r")
    numbers = {}
    for count in (1, 2):
        own = params(*CHANGES, f"compute.processes={count}")
        numbers[count] = train_head(
            dataset, folder / "pre", str(folder / "labels.csv"), folder / str(count), params=own, settings=settings,
            run_id=f"r{count}",
        )  # fmt: skip
    return folder, numbers


@pytest.mark.parametrize("alignment", ["none", "standardise"])
def test_two_processes_train_the_heads_of_one(trained, alignment):
    folder, _ = trained
    one, two = (folder / count / alignment for count in "12")
    first, second = (safetensors.numpy.load_file(at / "weights.safetensors") for at in (one, two))
    assert set(first) == set(second)
    # softmax takes the keys' bias off again, so that its gradient is rounding, which AdamW scales up to whole steps
    for name, tensor in first.items():
        if not name.endswith(".qkv.bias"):
            np.testing.assert_allclose(second[name], tensor, atol=2e-4, rtol=2e-3, err_msg=name)
    logs = [json.loads((folder / count / "training.json").read_text())["heads"][alignment]["log"] for count in "12"]
    assert len(logs[0]) == len(logs[1]) >= 10
    assert logs[0][-1]["train_loss"] < logs[0][0]["train_loss"], "the comparison needs something learned"
    # statistics come from tokens that were computed by turns: the bits of one process
    names = {path.name for path in one.iterdir()} - {"weights.safetensors", "digests.json", "config.json"}
    assert len(names) >= 3
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_both_tell_the_same_numbers(trained):
    _, numbers = trained
    same = {name for name in numbers[1] if not name.endswith("_seconds")}
    assert {name: numbers[1][name] for name in same} == pytest.approx({name: numbers[2][name] for name in same})
