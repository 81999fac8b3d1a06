"""A small delivered batch, made once; tests that change it take a copy."""

import shutil
from pathlib import Path

import pytest

from coda.simulation import Design, Experiment, plan_experiment, simulate_batch


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    design = Design(
        mechanisms=3, compounds_per_mechanism=2, negcon_wells=3, poscon_wells=1, plate_wells=24, field_px=48
    )  # fmt: skip
    return plan_experiment(7, design)


@pytest.fixture(scope="session")
def deliveries(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with batch_1 (two plates) of every laboratory."""
    out = tmp_path_factory.mktemp("deliveries")
    for laboratory in ("lab_a", "lab_b", "lab_c"):
        simulate_batch(experiment, laboratory, "batch_1", ("plate_1", "plate_2"), out, workers=1)
    return out


@pytest.fixture
def delivery(deliveries: Path, tmp_path: Path) -> Path:
    """A copy of one batch folder that a test may break."""
    return Path(shutil.copytree(deliveries / "lab_b" / "batch_1", tmp_path / "batch_1"))
