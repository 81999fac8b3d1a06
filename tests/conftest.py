"""Fixtures every test may use, and how tests are shared between processes."""

import atexit
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from coda.config import Params, load_params

ROOT = Path(__file__).resolve().parent.parent
THREADS = max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))

# nothing timed is asserted: a machine that does other work besides fails no test
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


class WholeFiles(LoadFileScheduling):
    """A file's tests run in one process, for they share what is slow to make; those of the whole loop as well."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/flow" if nodeid.startswith("tests/flow/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log) -> WholeFiles:
    return WholeFiles(config, log)


def pytest_collection_finish() -> None:
    # what is loaded by now stays: without this, every collection of garbage searches through all of it
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # copairs brings a library that complains of what is still there at the very end; a step freezes all of it
    atexit.unregister(gc.freeze)
    gc.unfreeze()


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """Give torch its threads again: steps set them for the whole process, and with their number sums are rounded."""
    torch.set_num_threads(THREADS)
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


@pytest.fixture(scope="session")
def answers_ipv6() -> bool:
    """Whether this machine has the address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as asked:
            asked.bind(("::1", 0))
    except OSError:
        return False
    return True
