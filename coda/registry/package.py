"""What one registered version holds: verified model folders, where they came from, and MLflow's own description.

```
MLmodel, requirements.txt, ...      MLflow's: loader_module coda.registry.pyfunc, signature, requirements
data/package/model/                 the extractor or head, as `coda.networks.artifact` wrote it
data/package/state/                 adaptation state; beside an extractor only
data/package/provenance.json        run, data revisions, parameters, parent
```
"""

import importlib.metadata
import json
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coda.errors import ConfigError, Problem

PACKAGE = "data/package"
LOADER = "coda.registry.pyfunc"
_SAVING = threading.Lock()
"""Warning filters belong to the whole process, so one thread at a time changes them."""

REQUIREMENTS = ("coda-pipeline", "torch", "timm", "safetensors", "numpy")


def build_package(folder: Path, model: Path, state: Path | None, provenance: Mapping[str, Any]) -> Path:
    """Lay out one version below `folder`, for MLflow to store as it is.

    Args:
        folder: Folder to work in; must exist and be empty.
        model: Verified model folder.
        state: Verified model folder of the adaptation state, beside an extractor.
        provenance: Where the version comes from, as JSON values.

    Returns:
        The folder to upload.

    Raises:
        IntegrityError: A model folder is not what its digests say.
    """
    package = folder / "package"
    shutil.copytree(model, package / "model")
    if state is not None:
        shutil.copytree(state, package / "state")
    (package / "provenance.json").write_text(json.dumps(dict(provenance), indent=2, sort_keys=True) + "\n")
    with _SAVING, warnings.catch_warnings():
        # MLflow advises an input example (as JSON, one image of the paper's size takes megabytes), and its own import
        # warns about its own type hints
        warnings.filterwarnings("ignore", message=".*(input example was not provided|inferred as AnyType)")
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(folder / "mlflow"),
            loader_module=LOADER,
            data_path=str(package),
            pip_requirements=[f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS],
            signature=_signature(read_config(package / "model")),
        )
    return folder / "mlflow"


def read_config(model: Path) -> dict[str, Any]:
    """Return the verified config of a model folder, with ``width`` (length of a token) where it has one."""
    from coda.networks import artifact  # brings torch, which a service that only reads the log does without

    tensors, config = artifact.load(model)
    kind = config.get("kind")
    if kind == "extractor":
        config["width"] = int(tensors["vit.cls_token"].shape[-1])
    elif kind == "head":
        config["width"] = int(tensors["projector.weight"].shape[1])
    return config


def require_kind(config: Mapping[str, Any], kind: str, model: Path) -> None:
    """Refuse a model folder of another kind."""
    if config.get("kind") != kind:
        problem = Problem(str(model), f"kind {config.get('kind')!r}", f"kind {kind!r}", "Give the right model folder.")
        raise ConfigError("This is another kind of model.", [problem])


def _requirements() -> list[str]:
    # a local build ('2.13.0+cpu') is the same release to whoever installs it elsewhere
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _signature(config: Mapping[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    floats, width = np.dtype(np.float32), config["width"]
    if config["kind"] == "extractor":
        inputs = TensorSpec(floats, (-1, len(config["channels"]), -1, -1))
        outputs = TensorSpec(floats, (-1, -1, width))
    else:
        inputs = TensorSpec(floats, (-1, -1, width))
        outputs = TensorSpec(floats, (-1, len(config["classes"])))
    return ModelSignature(inputs=Schema([inputs]), outputs=Schema([outputs]))
