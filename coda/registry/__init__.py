"""The registry: extractor and head versions in MLflow, and the append-only log of releases that bind them.

`fetch` and `fetch_state` bring verified model folders; `ReleaseLog` says what serves a source, and moves the pointer.
MLflow itself is imported on first use only.
"""

from coda.registry.pair import verify_release
from coda.registry.promotion import promote, rollback
from coda.registry.registering import Provenance, name_heads, register_extractor, register_head
from coda.registry.releases import DEFAULT_SCOPE, ConflictError, ReleaseLog
from coda.registry.versions import EXTRACTOR, HEAD, Version, describe, fetch, fetch_state, find, list_versions

__all__ = [
    "DEFAULT_SCOPE",
    "EXTRACTOR",
    "HEAD",
    "ConflictError",
    "Provenance",
    "ReleaseLog",
    "Version",
    "describe",
    "fetch",
    "fetch_state",
    "find",
    "list_versions",
    "name_heads",
    "promote",
    "register_extractor",
    "register_head",
    "rollback",
    "verify_release",
]
