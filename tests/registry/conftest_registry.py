"""Tiny models, and services whose MLflow database is made once."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers import Moto, moto_server

from coda.config import Params
from coda.contracts import ReleaseRecord
from coda.networks.extractor import Extractor, save_extractor
from coda.networks.head import new_head, save_head
from coda.networks.state import new_state, save_state
from coda.registry import Provenance, register_extractor, register_head
from coda.settings import Settings

__all__ = ["moto_server"]

CLASSES = ("actin", "kinase", "tubulin")


@dataclass(frozen=True)
class Trained:
    """Folders as the training steps leave them."""

    pretrained: Path
    heads: Path


@pytest.fixture(scope="session")
def tiny_params(demo_params: Params) -> Params:
    extractor = {"overrides": {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 3}}
    dino = {"prototypes": 16, "hidden_dim": 16, "bottleneck_dim": 8}
    return demo_params.model_copy(
        update={
            "extractor": demo_params.extractor.model_copy(update=extractor),
            "dino": demo_params.dino.model_copy(update=dino),
            "head": demo_params.head.model_copy(update={"depth": 1}),
        }
    )


def train(folder: Path, params: Params, seed: int) -> Trained:
    state = new_state(params, seed=seed)
    save_state(folder / "pretrained" / "state", state)
    save_extractor(folder / "pretrained" / "extractor", state.teacher)
    for number, alignment in enumerate(("none", "standardise")):
        head = new_head(params, state.teacher, CLASSES, alignment, seed=seed + number)
        save_head(folder / "heads" / alignment, head, {"labels.json": b"{}"})
    return Trained(folder / "pretrained", folder / "heads")


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

    from coda.networks.state import load_state

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


def provenance(run_id: str = "run-1", source: str = "lab_a") -> Provenance:
    return Provenance(run_id=run_id, source=source, params_digest="0" * 64)


@pytest.fixture
def release_of(services: Settings) -> Callable[..., ReleaseRecord]:
    """Register folders and bind them: (trained, release id, alignment) -> release record."""

    def make(folders: Trained, name: str = "rel-1", alignment: str = "none") -> ReleaseRecord:
        facts = provenance(run_id=f"run-of-{folders.pretrained.parent.name}")
        extractor = register_extractor(
            folders.pretrained / "extractor", folders.pretrained / "state", facts, settings=services
        )
        heads = {
            way: register_head(folders.heads / way, extractor, facts, settings=services)
            for way in ("none", "standardise")
        }
        return ReleaseRecord(
            release_id=name, source="lab_a", created_at=datetime.now(UTC), method="source", extractor=extractor,
            head=heads[alignment], alignment=alignment, heads=tuple(heads.values()), run_id="run-1",
            params_digest="0" * 64, gate_sentence="It is good.", approver="gate",
        )  # fmt: skip

    return make


def load(folder: Path) -> Extractor:
    from coda.networks.extractor import load_extractor

    return load_extractor(folder)
