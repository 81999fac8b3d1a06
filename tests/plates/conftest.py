"""Fixtures of this package."""

import sys
from pathlib import Path

import pytest

from coda.config import load_params
from coda.steps.ingest import ingest

sys.path.insert(0, str(Path(__file__).parent))

from batches import SETTINGS, deliver
from servers import moto_server

__all__ = ["moto_server"]


@pytest.fixture
def small_params(root):
    """The demo's parameters in one process, changed by dotted settings."""

    def make(*changes):
        base = ["ingest.workers=1", "ingest.illumination.min_fields=4", *changes]
        return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], base)

    return make


@pytest.fixture
def run(small_params, tmp_path):
    """Ingest a delivery and return its report; the dataset is `tmp_path / "out"`."""

    def go(delivery, *changes, out=None):
        return ingest([delivery.uri], out or tmp_path / "out", params=small_params(*changes), settings=SETTINGS)[0]

    return go


@pytest.fixture(scope="session")
def delivered(tmp_path_factory):
    """A sound delivery of two plates; tests must not change it."""
    return deliver(tmp_path_factory.mktemp("delivery") / "lab_a" / "b1", plates=2)


@pytest.fixture(scope="session")
def dataset(delivered, root, tmp_path_factory):
    """The dataset folder made of `delivered`; tests must not change it."""
    out = tmp_path_factory.mktemp("dataset")
    params = load_params(
        root / "params.yaml",
        [root / "params" / "demo.yaml"],
        ["ingest.workers=1", "ingest.illumination.min_fields=4"],
    )
    ingest([delivered.uri], out, params=params, settings=SETTINGS)
    return out
