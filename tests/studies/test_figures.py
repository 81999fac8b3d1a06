"""Figures 4, 5 and 6 from end to end on tiny plates."""

import builtins
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from coda.benchmark.setting import simulated_setting
from coda.benchmark.source_models import Training
from coda.benchmark.specs import loaded
from coda.errors import ConfigError
from coda.evaluation.predictions.prediction_levels import probabilities_of
from coda.networks.extractor import new_extractor
from coda.training.tokens import extract_tokens
from studies.figures import umap_figure as umap_module
from studies.figures.cka_figure import COMPARISONS, TOKENS, cka
from studies.figures.granularity_figure import EACH, SINGLE, WHOLE, AdaptingPart, granularity
from studies.figures.layer_tokens import layer_names, layer_tokens
from tests.benchmark.conftest import DESIGN


@pytest.fixture(scope="module")
def one_seed(short, plates):
    return simulated_setting([3], short, plates, targets=["lab_b"], design=DESIGN)


def test_layers_are_patches_blocks_and_norm(fields, short):
    extractor = new_extractor(short, seed=0)
    assert layer_names(extractor) == ("patches", "block 1", "norm")
    found = list(layer_tokens(extractor, fields, short, seed=1, batch=20))
    assert len(found) == 2
    norm = torch.from_numpy(np.concatenate([layers[-1] for layers in found]))
    whole = extract_tokens(extractor, fields, short)[:, 0]
    order = [int(torch.argmin((whole - tokens).abs().amax((1, 2)))) for tokens in norm]
    assert len(set(order)) == 40
    torch.testing.assert_close(norm, whole[order])
    again = list(layer_tokens(extractor, fields, short, seed=1, batch=20))
    np.testing.assert_array_equal(again[1][0], found[1][0])
    assert not extractor.vit.blocks[0]._forward_hooks


def test_layers_before_after_and_of_the_targets_own_model(one_seed, tmp_path):
    result = cka(one_seed, tmp_path)
    assert all(outcome.result is not None for outcome in result.outcomes), [o.cause for o in result.outcomes]
    values = result.values
    assert len(values) == len(COMPARISONS) * len(TOKENS) * 9
    assert set(values["first_layer"]) == {"patches", "block 1", "norm"}
    constant = values[(values["tokens"] == "class token") & (values["first_layer"] == "patches")]
    assert constant["cka"].isna().all()
    after = values[(values["second"] == "after") & (values["tokens"] == "all tokens")]
    same = after[after["first_layer"] == after["second_layer"]]["cka"]
    assert (same > 0.9).all()  # two steps at a small rate change little
    assert same.max() <= 1 + 1e-9
    assert (tmp_path / "cka_lab_a_lab_b.png").is_file()


def test_granularities_pool_the_parts_and_average_what_each_makes_of_all(one_seed, tmp_path):
    result = granularity(one_seed, tmp_path)
    assert all(outcome.result is not None for outcome in result.outcomes), [o.cause for o in result.outcomes]
    image = result.scores[(result.scores["level"] == "image") & (result.scores["metric"] == "accuracy")]
    on_target = image[image["target"] == "lab_b"].set_index("system")
    assert {WHOLE, "Supervised", "Dual-model-DINO", *EACH.values(), *SINGLE.values()} == set(on_target.index)
    for by, count in (("batch", 3), ("plate", 6)):
        parts = [o for o in result.outcomes if isinstance(o.job.task, AdaptingPart) and o.job.task.by == by]
        assert len(parts) == count
        wanted = [
            r["value"] for o in parts for r in o.result["scores"] if (r["level"], r["metric"]) == ("image", "accuracy")
        ]
        assert on_target.loc[SINGLE[by], "value"] == pytest.approx(np.mean(wanted))
        pooled = next(o for o in result.outcomes if getattr(o.job.task, "parts", [None])[0] == parts[0].job.task)
        table = pd.read_parquet(pooled.job.folder(one_seed.root) / "none.parquet")
        assert table["image_id"].is_unique
        for part in parts:
            own = pd.read_parquet(part.job.folder(one_seed.root) / "none.parquet").set_index("image_id")
            name = part.job.task.name
            rows = table[table["image_id"].str.startswith(f"{name}/")]
            assert len(rows) == len(table) / count
            np.testing.assert_array_equal(probabilities_of(rows), probabilities_of(own.loc[rows["image_id"]]))


@pytest.fixture
def without_umap(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "umap":
            raise ModuleNotFoundError("No module named 'umap'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_umap_learn_it_is_said_what_to_install(one_seed, tmp_path, without_umap):
    with pytest.raises(ConfigError, match=r"pip install .*benchmark"):
        umap_module.umap(one_seed, tmp_path)


def test_class_tokens_before_and_after(one_seed, tmp_path, monkeypatch):
    """With a projection that is a plain one, so that the test does not compile UMAP."""
    monkeypatch.setattr(umap_module, "umap_projection", lambda: lambda features: features[:, :2].astype(np.float64))
    result = umap_module.umap(one_seed, tmp_path)
    assert all(outcome.result is not None for outcome in result.outcomes), [o.cause for o in result.outcomes]
    found = result.coordinates
    assert found.groupby(["model", "panel"]).size().to_dict() == {
        (model, panel): count
        for model in ("dino", "cb")
        for panel, count in (("source", 50), ("before", 30), ("after", 30))
    }
    assert set(found["mechanism"]) == {*loaded(one_seed.data[3]).labels.classes, "no label"}
    before, after = (found[(found["model"] == "cb") & (found["panel"] == name)] for name in ("before", "after"))
    assert before["image_id"].tolist() == after["image_id"].tolist()
    assert not np.allclose(before[["x", "y"]], after[["x", "y"]])
    assert (tmp_path / "umap_3_lab_a_lab_b_mechanism.png").is_file()
    assert (tmp_path / "umap_coordinates.csv").is_file()
    trained = Training(one_seed.data[3], "lab_a", "cb", one_seed.params, 3, one_seed.root)
    assert trained.job().digest in {outcome.job.digest for outcome in result.outcomes}


PROJECTED_TWICE = """
import numpy as np
from studies.figures.umap_figure import umap_projection

rng = np.random.default_rng(0)
features = np.concatenate([rng.normal(size=(12, 5)), rng.normal(size=(12, 5)) + 20]).astype(np.float32)
project = umap_projection()
first = project(features)
assert first.shape == (24, 2)
assert (first == project(features)).all()
gap = np.linalg.norm(first[:12].mean(axis=0) - first[12:].mean(axis=0))
spread = max(first[:12].std(axis=0).max(), first[12:].std(axis=0).max())
assert gap > 5 * spread, (gap, spread)
"""


def test_umap_itself_is_repeatable_keeps_clusters_apart_and_warns_of_nothing(root):
    """In a process of its own, where numba need not compile, which takes longer than this."""
    if importlib.util.find_spec("umap") is None:
        pytest.skip("umap-learn is not installed")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-W", "error", "-c", PROJECTED_TWICE], env=environment, check=True)
