"""Whether an object store keeps the one promise that exactly-once rests on: `If-None-Match: *` creates once.

Some gateways, proxies and emulators take the header and ignore it. Every claim would then be won by everybody, in
silence, so the store is asked before the first claim.
"""

import os
import threading

from coda.errors import ConfigError, Problem
from coda.storage.objects import ObjectStore

KEY = "events/probe"
"""Object that is created once and stays; below a prefix where whoever claims may create."""

_ASKED: set[tuple[int, str | None, str]] = set()
_LOCK = threading.Lock()


def require_conditional_writes(platform: ObjectStore) -> None:
    """Check that a store refuses to create an object that is there; once a process, endpoint and bucket.

    Two requests at the first use of a bucket, one at every later start.

    Raises:
        ConfigError: The store overwrites; nothing was claimed yet.
        TransientError: It does not answer.
    """
    place = (os.getpid(), platform.endpoint, platform.uri)
    with _LOCK:
        if place in _ASKED:
            return
        texts = (f"{mark}: this store refuses to create an object that is there.\n".encode() for mark in ("1st", "2nd"))
        if all(platform.put_if_absent(KEY, text, "text/plain") for text in texts):
            remedy = (
                "Use a store, gateway or proxy that honours If-None-Match (AWS S3, Ceph, SeaweedFS, MinIO do); see "
                "docs/decisions/0003-release-log.md."
            )
            service = platform.endpoint or "AWS S3"
            problem = Problem(
                f"{service}, bucket {platform.bucket}",
                "a store that overwrites an object although it was asked to create it (If-None-Match: * is ignored)",
                "an object store that creates an object once",
                remedy,
            )
            raise ConfigError("Batches would be claimed by several triggers at once.", [problem])
        _ASKED.add(place)
