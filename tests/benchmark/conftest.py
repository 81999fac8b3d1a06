"""Two laboratories' plates of a few 64-pixel fields, and networks that train on them in milliseconds."""

import pytest

from coda.benchmark.setting import simulated_setting
from coda.settings import Settings
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment, write_labels
from coda.steps.ingest import ingest
from tests.training.conftest import fields, make_table, tiny

__all__ = ["fields", "make_table", "tiny"]

SETTINGS = Settings(
    landing="s3://landing", platform="s3://platform", mlflow_uri="sqlite://", data_registry="x",
    data_remote="s3://platform/dvc", checkpoints="x",
)  # fmt: skip
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


@pytest.fixture(scope="session")
def ingested_plates(short, tmp_path_factory):
    """Ingested plates of two laboratories, and the label table."""
    folder = tmp_path_factory.mktemp("plates")
    experiment = plan_experiment(5, Design.model_validate(DESIGN))
    uris = []
    for source, batch in (("lab_a", "b1"), ("lab_a", "b2"), ("lab_a", "b3"), ("lab_b", "b1"), ("lab_b", "b2")):
        simulate_batch(experiment, source, batch, [f"{source}_{batch}"], folder / "delivered", workers=1)
        uris.append(str(folder / "delivered" / source / batch / "manifest.json"))
    ingest(uris, folder / "dataset", params=short, settings=SETTINGS)
    write_labels(experiment, folder / "labels.csv")
    return folder
