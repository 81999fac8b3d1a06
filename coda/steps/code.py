"""Which source files this library is: a version names a commit, a digest the bytes that run."""

import hashlib
from functools import cache
from pathlib import Path

import coda
from coda.contracts.base import digest_of_json


@cache
def code_digest() -> str:
    """Return the SHA-256 of the library's Python files by their paths, as they are installed here."""
    root = Path(coda.__file__).parent
    files = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.py"))
    }
    return digest_of_json(files)
