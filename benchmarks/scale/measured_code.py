"""The code that is measured and that measures, as one digest: figures of two programs are never mixed."""

import hashlib
from pathlib import Path

import coda
from coda.contracts.base import digest_of_json
from coda.runners.spec import compiled_path

PACKAGE = Path(coda.__file__).resolve().parent
BESIDE = ("benchmark", "cli", "doctor")
"""Packages that neither run while something is measured, nor measure it."""

MEASURES = Path(__file__).resolve().parent
"""What measures."""


def code_digest(package: Path = PACKAGE, *others: Path) -> str:
    """Return the SHA-256 of every module that is measured or measures, and of the compiled pipeline.

    Args:
        package: Folder of the package.
        others: Files beside it; the compiled pipeline and this folder when none are given.
    """
    files = {
        path.relative_to(package).as_posix(): path
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] not in BESIDE
    }
    files |= {path.name: path for path in others or (compiled_path("adaptation"), *sorted(MEASURES.glob("*.py")))}
    return digest_of_json({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()})
