"""Fixtures every test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coda.config import Params, load_params

ROOT = Path(__file__).resolve().parent.parent
THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """Give torch back its threads: steps set them for the whole process, and with their number sums are rounded."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tables and images that lie beside the checkout in CI; a user's clone has none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared real data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def demo_params() -> Params:
    """The parameters of the demo."""
    return load_params(ROOT / "params.yaml", [ROOT / "params" / "demo.yaml"])
