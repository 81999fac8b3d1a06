"""What one registered version holds: verified model folders, where they came from, and MLflow's own description.

```
MLmodel, requirements.txt, ...      MLflow's: loader_module coda.registry.pyfunc, signature, requirements
data/package/model/                 the extractor or head, as `coda.networks.artifact` wrote it
data/package/state/                 adaptation state; beside an extractor only
data/package/provenance.json        run, data revisions, parameters, code, image, parent, gate report
data/package/model_card.md          the same for people
data/package/files.json             SHA-256 of every file above; its own digest is a tag of the version
data/package/*.sig                  detached signatures of model/, state/ and files.json, where a key is set
```
"""

import hashlib
import importlib.metadata
import json
import shutil
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coda.errors import ConfigError, IntegrityError, Problem
from coda.registry import signing

PACKAGE = "data/package"
MODEL, STATE, PROVENANCE, CARD, FILES = "model", "state", "provenance.json", "model_card.md", "files.json"
LOADER = "coda.registry.pyfunc"
_SAVING = threading.Lock()
"""Warning filters belong to the whole process, so one thread at a time changes them."""

REQUIREMENTS = ("coda-pipeline", "torch", "timm", "safetensors", "numpy")


@dataclass(frozen=True)
class Package:
    """One version laid out for MLflow to store as it is.

    Attributes:
        folder: What is uploaded.
        files_digest: SHA-256 of its ``files.json``, which lists all the other files.
        signed_by: Fingerprint of the key that signed it; none without a key.
    """

    folder: Path
    files_digest: str
    signed_by: str | None


def build_package(
    folder: Path, parts: Mapping[str, Path], provenance: Mapping[str, Any], card: str, *, signing_key: str | None
) -> Package:
    """Lay out one version below `folder`, for MLflow to store as it is.

    Args:
        folder: Folder to work in; must exist and be empty.
        parts: ``model`` and, beside an extractor, ``state`` -> verified model folder.
        provenance: Where the version comes from, as JSON values.
        card: The model card, Markdown.
        signing_key: PEM file of the private key to sign with; none to leave the version unsigned.

    Raises:
        IntegrityError: A model folder is not what its digests say.
        ConfigError: The signing key or its library cannot be used.
    """
    package = folder / "package"
    for name, part in parts.items():
        shutil.copytree(part, package / name)
    (package / PROVENANCE).write_text(json.dumps(dict(provenance), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (package / CARD).write_text(card, encoding="utf-8")
    with _SAVING, warnings.catch_warnings():
        # MLflow advises an input example (as JSON, one image of the paper's size takes megabytes), and its own import
        # warns about its own type hints
        warnings.filterwarnings("ignore", message=".*(input example was not provided|inferred as AnyType)")
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(folder / "mlflow"),
            loader_module=LOADER,
            data_path=str(package),
            pip_requirements=_requirements(),
            signature=_signature(read_config(package / MODEL)),
        )
    stored = folder / "mlflow"
    listing = stored / PACKAGE / FILES
    listing.write_text(json.dumps(digests_of(stored), indent=2) + "\n", encoding="utf-8")
    if signing_key is not None:
        for name in (*parts, FILES):
            signing.sign(stored / PACKAGE / name, signing_key)
    return Package(stored, _sha256(listing), signing.fingerprint(signing_key) if signing_key is not None else None)


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a version by its path, but of its list of files and of signatures."""
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILES and path.suffix != signing.SUFFIX
    }


def changed_files(folder: Path, files_digest: str, where: str) -> list[Problem]:
    """Return one problem for each file of a fetched version that is not the registered one."""
    remedy = "Do not use this version; restore its artifacts, and find out who changed them."
    listing = folder / PACKAGE / FILES
    found = _sha256(listing) if listing.is_file() else "no such file"
    if found != files_digest:
        return [Problem(f"{where}/{PACKAGE}/{FILES}", found, files_digest, remedy)]
    recorded: dict[str, str] = json.loads(listing.read_bytes())
    present = digests_of(folder)
    return [
        Problem(
            f"{where}/{name}",
            f"SHA-256 {present[name]}" if name in present else "no such file",
            f"SHA-256 {recorded[name]}" if name in recorded else "no such file",
            remedy,
        )
        for name in sorted(recorded.keys() | present.keys())
        if recorded.get(name) != present.get(name)
    ]


def read_provenance(package: Path) -> dict[str, Any]:
    """Return where a fetched version comes from, as it was written at registration.

    Raises:
        IntegrityError: The record is missing or is no JSON object.
    """
    try:
        facts = json.loads((package / PROVENANCE).read_bytes())
    except (FileNotFoundError, ValueError) as error:
        problem = Problem(str(package / PROVENANCE), str(error), "the record of its origin", "Restore the artifacts.")
        raise IntegrityError("The origin of this version cannot be read.", [problem]) from error
    return dict(facts)


def read_config(model: Path) -> dict[str, Any]:
    """Return the verified config of a model folder, with ``width`` (length of a token) where it has one."""
    from coda.networks import artifact  # brings torch, which a service that only reads the log does without

    tensors, config = artifact.load(model)
    kind = config.get("kind")
    if kind == "extractor":
        config["width"] = int(tensors["vit.cls_token"].shape[-1])
    elif kind == "head" and "width" not in config:
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
