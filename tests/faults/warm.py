"""Imported by the process that children are forked from: all that a run imports on its way."""

import importlib

from coda.networks.torchvision_shim import ensure_torchvision
from tests.faults import chain

LATE = (
    "alembic.command", "great_expectations", "imagecodecs", "matplotlib.pyplot", "mlflow.pyfunc", "mlflow.models",
    "mlflow.store.artifact.local_artifact_repo", "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store", "sklearn.decomposition", "sklearn.manifold", "timm", "zarr",
)  # fmt: skip
"""Modules that steps import where they use them."""

ensure_torchvision()
for name in LATE:
    importlib.import_module(name)

__all__ = ["chain"]
