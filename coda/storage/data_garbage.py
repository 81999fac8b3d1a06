"""Objects behind the data registry that no commit names any more: what DVC pushed and nobody can ask for.

Kept is every version of every batch that the newest commit still lists, and every revision the caller names. Stray is
the rest: pushed by a run that ended before its commit, or of a batch that somebody removed from the registry.
"""

import json
from collections.abc import Collection
from datetime import datetime

from coda.contracts import DataRevision
from coda.errors import IntegrityError, Problem
from coda.settings import Settings
from coda.storage.clone import Clone, cloned, digest_in
from coda.storage.objects import ObjectInfo, ObjectStore, store_for
from coda.storage.programs import git

OBJECTS = "files/md5/"


def stray_objects(kept: Collection[DataRevision], *, settings: Settings, before: datetime) -> list[ObjectInfo]:
    """Return the objects that neither the registry nor `kept` names and that were last written before a time.

    Args:
        kept: Revisions that stay whatever the registry says: those that models and releases came from.
        settings: Where the registry and its remote are.
        before: Age limit, with time zone: what is younger may belong to a commit that is just being made.

    Raises:
        IntegrityError: The list of files of a version that must stay is missing: nothing can be said to be stray.
        TransientError: Git or the object store does not answer.
    """
    named = named_objects(kept, settings=settings)
    store = store_for(settings.data_remote, settings)
    return [item for item in store.list(OBJECTS) if item.modified < before and item.key not in named]


def named_objects(kept: Collection[DataRevision], *, settings: Settings) -> set[str]:
    """Return the key of every object that the registry or `kept` names; see `stray_objects`."""
    store = store_for(settings.data_remote, settings)
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        digests = {item.digest for item in kept} | _named_digests(clone)
    keys = {_key(digest) for digest in digests}
    for digest in sorted(digests):
        keys |= {_key(entry["md5"]) for entry in _listing(store, digest)}
    return keys


def _named_digests(clone: Clone) -> set[str]:
    """Return the digest of every version of every batch that the newest commit lists."""
    present = set(git(clone.folder, "ls-tree", "-r", "--name-only", "HEAD", "--", "data/").split())
    digests = set()
    for entry in git(clone.folder, "log", "--format=%x00%H", "--name-only", "HEAD", "--", "data/").split("\0")[1:]:
        commit, *names = entry.split()
        for name in names:
            path = name.removesuffix(".dvc")
            pointer = clone.pointer(path, commit) if name in present else None
            if pointer is not None:  # none: this commit removed the batch, and a later one brought it again
                digests.add(digest_in(pointer, path))
    return digests


def _listing(store: ObjectStore, digest: str) -> list[dict[str, str]]:
    content = store.find(_key(digest))
    if content is None:
        remedy = "Restore the object; nothing is collected while a version that must stay is not whole."
        problem = Problem(store.url(_key(digest)), "nothing", "the list of files of a batch", remedy)
        raise IntegrityError("The store behind the data registry is not whole.", [problem])
    return list(json.loads(content))


def _key(digest: str) -> str:
    return f"{OBJECTS}{digest[:2]}/{digest[2:]}"
