"""torch.compile as an option: the same training, but for rounding."""

import shutil
from functools import partial

import pytest
import torch

from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler uses its old parts


def losses(fields, params):
    state = new_state(params, seed=2)
    return [entry["loss"] for entry in train_dino(fields, params, params.pretrain, state=state, seed=2).log]


DEEP = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}",
    "extractor.drop_path=0.5",
)  # fmt: skip


def require_equal(fields, tiny, *changes):
    plain, compiled = (
        losses(fields, tiny(f"compute.compile={word}", "pretrain.iterations=4", *changes)) for word in ("false", "true")
    )
    torch.compiler.reset()
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert plain[0] != plain[-1]


def test_the_step_is_captured_whole_and_learns_the_same(fields, tiny, monkeypatch):
    """Without the code generator, which needs a C++ compiler and a minute; one graph a module, or an error."""
    seen = []

    def graph(module, **options):
        seen.append(type(module).__name__)
        return compile_(module, **options)

    compile_ = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", graph)
    require_equal(fields, tiny, *DEEP)
    assert len(seen) == 2  # student and teacher


@pytest.mark.services
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_the_generated_code_learns_the_same(fields, tiny):
    require_equal(fields, tiny)
