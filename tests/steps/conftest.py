"""Three small batches, ingested once, that steps are trained on in several ways."""

import pytest
from servers import moto_server

from coda.config import load_params
from coda.local.offline import offline_settings
from coda.simulation import Design, plan_experiment, simulate_batch
from coda.steps.ingest import ingest

__all__ = ["moto_server"]

SMALL = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
    "crops.centre=32", "crops.global_size=16", "crops.local_size=8",
    "dino.prototypes=12", "dino.hidden_dim=16", "dino.bottleneck_dim=8",
    "head.num_heads=2", "pretrain.iterations=80", "pretrain.batch_size=8", "pretrain.checkpoint_every=10",
    "ingest.workers=1", "compute.threads=1", "compute.precision=float32",
)  # fmt: skip


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, root):
    """Three batches of one plate each, ingested."""
    folder = tmp_path_factory.mktemp("plates")
    params = load_params(root / "params.yaml", [root / "params" / "demo.yaml"], SMALL)
    design = Design(mechanisms=2, compounds_per_mechanism=2, negcon_wells=2, poscon_wells=0, plate_wells=24,
                    sites_per_well=1, field_px=64)  # fmt: skip
    experiment = plan_experiment(3, design)
    for batch in ("b1", "b2", "b3"):
        simulate_batch(experiment, "lab_a", batch, [f"{batch}_p1"], folder / "raw", workers=1)
    manifests = [str(folder / "raw" / "lab_a" / batch / "manifest.json") for batch in ("b1", "b2", "b3")]
    ingest(manifests, folder / "dataset", params=params, settings=offline_settings(folder / "work"))
    return folder / "dataset"


@pytest.fixture(scope="session")
def params(root):
    def build(*changes):
        return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [*SMALL, *changes])

    return build


@pytest.fixture(scope="session")
def small():
    return SMALL
