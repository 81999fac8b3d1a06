"""Objects behind the data registry that no commit names any more: what DVC pushed and nobody can ask for.

Kept is every version of every batch that the newest commit still lists, and every revision the caller names. Stray is
the rest: pushed by a run that ended before its commit, or of a batch that somebody removed from the registry.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime

from coda.contracts import DataRevision
from coda.errors import IntegrityError, Problem
from coda.settings import Settings
from coda.storage.clone import OBJECTS, Clone, cloned, digest_in, entries_in, object_key
from coda.storage.objects import ObjectInfo, ObjectStore, store_for
from coda.storage.programs import git


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
    store = store_for(settings.data_remote, settings)
    named: set[str] = set()
    for digest in sorted(_digests(kept, settings)):
        listing = _listing(store, digest)
        if listing is None:
            remedy = "Restore the object; nothing is collected while a version that must stay is not whole."
            problem = Problem(store.url(object_key(digest)), "nothing", "the list of files of a batch", remedy)
            raise IntegrityError("The store behind the data registry is not whole.", [problem])
        named |= {object_key(digest), *listing}
    return [item for item in store.list(OBJECTS) if item.modified < before and item.key not in named]


def lost_objects(deleted: Collection[str], kept: Collection[DataRevision], *, settings: Settings) -> list[str]:
    """Return the keys that were deleted, are still away, and that a version of a batch names by now."""
    store = store_for(settings.data_remote, settings)
    named: set[str] = set()
    for digest in _digests(kept, settings):
        # a list of files that went as well says nothing of its files any more; its own key is reported
        named |= {object_key(digest), *(_listing(store, digest) or ())}
    return sorted(key for key in named & set(deleted) if not store.exists(key))


def _digests(kept: Collection[DataRevision], settings: Settings) -> set[str]:
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        return {item.digest for item in kept} | _named_digests(clone)


def _named_digests(clone: Clone) -> set[str]:
    """Return the digest of every version of every batch that the newest commit lists."""
    present = set(git(clone.folder, "ls-tree", "-r", "--name-only", "HEAD", "--", "data/").split())
    versions = []
    for entry in git(clone.folder, "log", "--format=%x00%H", "--name-only", "HEAD", "--", "data/").split("\0")[1:]:
        commit, *names = entry.split()
        versions += [(name.removesuffix(".dvc"), commit) for name in names if name in present]
    pointers = zip(versions, clone.pointers(versions), strict=True)
    # none: this commit removed the batch, and a later one brought it again
    return {digest_in(pointer, path) for (path, _), pointer in pointers if pointer is not None}


def _listing(store: ObjectStore, digest: str) -> set[str] | None:
    """Return the keys of all files of a version of a batch, or none where its list is gone.

    Raises:
        IntegrityError: The list is not the one that was recorded: what it leaves out would be taken for stray.
    """
    content = store.find(object_key(digest))
    if content is None:
        return None
    where = store.url(object_key(digest))
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest.removesuffix(".dir"):
        remedy = "Restore the object from a backup; find out who changed it. Nothing is collected until then."
        problem = Problem(where, "other bytes", f"MD5 {digest.removesuffix('.dir')}", remedy)
        raise IntegrityError("The store behind the data registry is not whole.", [problem])
    return {object_key(entry.md5) for entry in entries_in(content, where)}
