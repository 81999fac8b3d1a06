"""Two laboratories' plates of a few 64-pixel fields, and networks that train on them in milliseconds."""

import pytest

from coda.benchmark.setting import simulated_setting
from tests.training.conftest import fields, make_table, tiny

__all__ = ["fields", "make_table", "tiny"]

DESIGN = {
    "mechanisms": 2, "compounds_per_mechanism": 2, "negcon_wells": 2, "poscon_wells": 1, "plate_wells": 24,
    "sites_per_well": 1, "field_px": 64,
}  # fmt: skip
SHORT = (
    "pretrain.iterations=4", "pretrain.checkpoint_every=2", "head.budget.iterations=6", "supervised.iterations=6",
    "mae.pretrain.iterations=4", "mae.adaptation.iterations=2", "mae.decoder_width=16", "mae.decoder_depth=1",
    "adaptation.budget.iterations=2", "adaptation.budget.batch_size=6", "ttt.steps=2", "ttt.copies=3",
    "crops.eval_grid=1", "supervised.batch_size=8", "mae.pretrain.batch_size=6", "mae.adaptation.batch_size=6",
)  # fmt: skip


@pytest.fixture(scope="session")
def short(tiny):
    """Parameters with which all eight systems are through in a second or two."""
    return tiny(*SHORT)


@pytest.fixture(scope="session")
def plates(tmp_path_factory):
    """Folder of a benchmark; rendered plates are kept in it for all tests."""
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="session")
def setting(short, plates):
    """Two seeds, trained on lab_a and applied to lab_b."""
    return simulated_setting([3, 4], short, plates, targets=["lab_b"], design=DESIGN)
