"""One network as a folder that can be verified: safetensors, JSON and a digest of every file. Nothing is unpickled."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from coda.contracts.base import digest_of_json
from coda.durable import give_name
from coda.errors import ConfigError, IntegrityError, Problem, raise_if_any
from coda.networks.finite import not_finite

REMEDY = "Do not use this model; fetch it from the registry again, and find out who changed it."
WEIGHTS, CONFIG, DIGESTS = "weights.safetensors", "config.json", "digests.json"


def save(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], extra: Mapping[str, bytes] | None = None
) -> str:
    """Write a network whole or not at all, replacing what is there.

    Args:
        folder: Model folder to write; its parents are made.
        tensors: Weights by name; copied to the CPU, contiguous.
        config: Everything needed to rebuild the network, as JSON values, with its ``kind``.
        extra: Further files by plain name (label list, token statistics), covered by the digest as well.

    Returns:
        The digest of the folder: SHA-256 of the canonical mapping from file name to SHA-256.

    Raises:
        ConfigError: A weight is NaN or infinite; nothing is written.
    """
    _require_finite(folder, tensors)
    files = {
        WEIGHTS: safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}),
        CONFIG: (json.dumps(dict(config), indent=2, sort_keys=True) + "\n").encode(),
        **(extra or {}),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files[DIGESTS] = _written(digests)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        if folder.exists():
            # a folder cannot replace a folder that has files: move the old one aside, so a crash loses neither
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.replace(old / "was")
            give_name(draft, folder)
            shutil.rmtree(old)
        else:
            give_name(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest_of_json(digests)


def _require_finite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    names = not_finite(tensors)
    if names:
        found = f"NaN or infinity in {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
        remedy = "Do not use this network; train it again with --set compute.precision=float32, or at a lower rate."
        raise ConfigError("A network that is broken is not kept.", [Problem(str(folder), found, "numbers", remedy)])


def load(folder: Path, expected_digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify every byte of a model folder, then read it.

    Args:
        folder: Model folder as `save` wrote it.
        expected_digest: Digest that the registry or a release recorded for it.

    Returns:
        Weights on the CPU, and the config.

    Raises:
        IntegrityError: A file is missing, changed or not listed, or the folder's digest is not the expected one; all
            of them together, each naming the file.
    """
    files = _verified(folder, expected_digest)
    try:
        tensors = safetensors.torch.load(files[WEIGHTS])
        config = json.loads(files[CONFIG])
        if not isinstance(config, dict):
            message = "a config that is no mapping"
            raise ValueError(message)  # noqa: TRY004, TRY301
    except (SafetensorError, ValueError, RecursionError) as error:
        problem = Problem(
            str(folder), str(error)[:300], "safetensors and JSON", "Fetch the model from the registry again."
        )
        raise IntegrityError(f"The model in {folder} cannot be read.", [problem]) from error
    return tensors, config


def extra_file(folder: Path, name: str, expected_digest: str | None = None) -> bytes:
    """Return a further file of a model folder, after verifying the whole folder; see `load`."""
    files = _verified(folder, expected_digest)
    if name not in files:
        problem = Problem(f"{folder}/{name}", "no such file", "a file of the model", "Fetch or train the model again.")
        raise IntegrityError(f"The model in {folder} is not complete.", [problem])
    return files[name]


def folder_digest(folder: Path) -> str:
    """Return the digest of a model folder, after verifying every byte; see `load` for the errors."""
    files = _verified(folder, None)
    return digest_of_json(json.loads(files[DIGESTS]))


def _verified(folder: Path, expected_digest: str | None) -> dict[str, bytes]:
    # bytes are read once, so what is parsed is what was verified
    present = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    links = [
        Problem(str(path), "a link", "a file of the model", REMEDY) for path in present.values() if path.is_symlink()
    ]
    raise_if_any(IntegrityError, f"The model in {folder} leads elsewhere.", links)
    if DIGESTS not in present:
        problem = Problem(f"{folder}/{DIGESTS}", "no such file", "the list of digests", "Fetch the model again.")
        raise IntegrityError(f"{folder} is not a model folder.", [problem])
    files = {DIGESTS: present[DIGESTS].read_bytes()}
    digests = _digest_list(folder, files[DIGESTS])
    problems = []
    for name in sorted({WEIGHTS, CONFIG, *digests}):
        if name not in present or not present[name].is_file():
            problems.append(Problem(f"{folder}/{name}", "no such file", "a file of the model", REMEDY))
            continue
        files[name] = present[name].read_bytes()
        found = hashlib.sha256(files[name]).hexdigest()
        if found != digests.get(name):
            problems.append(Problem(f"{folder}/{name}", f"SHA-256 {found}", f"SHA-256 {digests.get(name)}", REMEDY))
    problems.extend(
        Problem(f"{folder}/{name}", "a file that is not listed", f"only files in {DIGESTS}", REMEDY)
        for name in sorted(set(present) - set(digests) - {DIGESTS, WEIGHTS, CONFIG})
    )
    if files[DIGESTS] != _written(digests):
        # even white space that JSON ignores is not changed unnoticed
        problems.append(Problem(f"{folder}/{DIGESTS}", "bytes that were changed", "the list as it was saved", REMEDY))
    digest = digest_of_json(digests)
    if expected_digest is not None and digest != expected_digest:
        problems.append(Problem(str(folder), f"digest {digest}", f"digest {expected_digest}", REMEDY))
    raise_if_any(IntegrityError, f"The model in {folder} is not the one that was recorded.", problems)
    return files


def _digest_list(folder: Path, content: bytes) -> dict[str, str]:
    try:
        digests = json.loads(content)
    except (ValueError, RecursionError):
        digests = None
    if isinstance(digests, dict) and all(isinstance(value, str) for value in digests.values()):
        return digests
    problem = Problem(f"{folder}/{DIGESTS}", "no mapping of file names to digests", "JSON", "Fetch the model again.")
    raise IntegrityError(f"The list of digests of {folder} cannot be read.", [problem])


def _written(digests: dict[str, str]) -> bytes:
    return (json.dumps(digests, indent=2) + "\n").encode()
