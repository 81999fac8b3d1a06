"""Tiny models, and services whose MLflow database is made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Moto, moto_server
from tiny_models import Trained, bind, provenance, tiny, train

from coda.config import Params
from coda.contracts import ReleaseRecord
from coda.networks.extractor import Extractor, save_extractor
from coda.settings import Settings
from coda.training.methods.dino.state import save_state

__all__ = ["Trained", "moto_server", "provenance"]


@pytest.fixture(scope="session")
def tiny_params(demo_params: Params) -> Params:
    return tiny(demo_params)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params) -> Trained:
    return train(tmp_path_factory.mktemp("trained"), tiny_params, seed=1)


@pytest.fixture(scope="session")
def other_line(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params) -> Trained:
    """Another training run: same shapes, other weights."""
    return train(tmp_path_factory.mktemp("other"), tiny_params, seed=50)


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params, trained: Trained) -> Path:
    """A folder with ``extractor`` and ``state``, as adaptation leaves them: `trained`'s, a little changed."""
    import torch

    from coda.training.methods.dino.state import load_state

    folder = tmp_path_factory.mktemp("adapted")
    state = load_state(trained.pretrained / "state")
    with torch.no_grad():
        state.teacher.vit.cls_token += 0.01
    save_state(folder / "state", state)
    save_extractor(folder / "extractor", state.teacher)
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, moto_server: Moto) -> Path:
    """An MLflow database without models; making its tables takes seconds."""
    from coda.registry import list_versions

    folder = tmp_path_factory.mktemp("database")
    assert list_versions(moto_server.settings(folder)) == []
    return folder / "mlflow.db"


@pytest.fixture
def services(moto_server: Moto, tmp_path: Path, empty_database: Path) -> Settings:
    settings = moto_server.settings(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return settings


@pytest.fixture
def release_of(services: Settings) -> Callable[..., ReleaseRecord]:
    """Register folders and bind them: (trained, release id, alignment) -> release record."""

    def make(folders: Trained, name: str = "rel-1", alignment: str = "none") -> ReleaseRecord:
        return bind(folders, services, name, alignment)

    return make


def load(folder: Path) -> Extractor:
    from coda.networks.extractor import load_extractor

    return load_extractor(folder)
