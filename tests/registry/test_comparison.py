"""Two sides compared: numpy on the safetensors is the oracle for distances, dictionaries for parameters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from coda.networks import artifact
from coda.registry.comparison import block_distances, block_of, flat


def test_distances_of_an_adapted_extractor(trained, adapted: Path) -> None:
    before, after = trained.pretrained / "extractor", adapted / "extractor"
    found = block_distances(before, after)
    a, b = (load_file(folder / artifact.WEIGHTS) for folder in (before, after))
    moved = {name for name in a if not np.array_equal(a[name], b[name])}
    assert moved == {"vit.cls_token"}
    expected = np.linalg.norm(b["vit.cls_token"] - a["vit.cls_token"]) / np.linalg.norm(a["vit.cls_token"])
    assert found["cls_token"] == pytest.approx(expected, rel=1e-5)
    assert {block for block, distance in found.items() if distance} == {"cls_token"}
    assert {block_of(name) for name in a} == set(found)


def test_a_block_gathers_its_tensors(tmp_path: Path) -> None:
    base = {"vit.blocks.0.a": torch.ones(3), "vit.blocks.0.b": torch.ones(1), "vit.blocks.10.a": torch.ones(2),
            "vit.blocks.2.a": torch.zeros(2), "norm.weight": torch.ones(2)}  # fmt: skip
    artifact.save(tmp_path / "a", base, {"kind": "extractor"})
    other = {**base, "vit.blocks.0.a": torch.full((3,), 2.0), "vit.blocks.10.a": torch.ones(5)}
    del other["norm.weight"]
    artifact.save(tmp_path / "b", other, {"kind": "extractor"})
    found = block_distances(tmp_path / "a", tmp_path / "b")
    assert list(found) == ["block 0", "block 2", "block 10", "norm"]
    assert found["block 0"] == pytest.approx((3 / 4) ** 0.5)
    assert (found["block 2"], found["block 10"], found["norm"]) == (0.0, None, None)


_names = st.text("abc", min_size=1, max_size=3)
_values = st.recursive(st.integers() | st.booleans(), lambda inner: st.dictionaries(_names, inner, max_size=3))


@given(st.dictionaries(_names, _values, max_size=4))
def test_flat_loses_no_leaf(params: dict) -> None:
    for path, text in flat(params):
        value = params
        for step in path.split("."):
            value = value[step]
        assert str(value) == text

    def leaves(value: object) -> int:
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    assert len(list(flat(params))) == leaves(params)
