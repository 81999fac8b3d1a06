"""ObjectTree: a prefix of object storage as a tree of files that no manifest describes yet."""

from collections.abc import Iterator

from coda.errors import ConfigError, Problem
from coda.plates.junk import is_junk
from coda.plates.tree import TreeFile, absent, too_large
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.objects import ObjectInfo, ObjectStore


class ObjectTree:
    """Files below the prefix of a store. Objects whose key ends in '/' stand for folders, and are left out."""

    def __init__(self, store: ObjectStore) -> None:
        """Keep the store; nothing is listed yet."""
        self.store = store
        self._seen: dict[str, ObjectInfo] = {}

    @property
    def where(self) -> str:
        """The prefix, as an `s3://` address."""
        return self.store.uri

    def walk(self, under: str = "") -> Iterator[TreeFile]:
        """Yield the files below a folder of the tree page by page, in the order of their keys; no marks are kept.

        Raises:
            TransientError: The storage is away.
            ConfigError: There is no such bucket, or it may not be listed.
        """
        return (TreeFile(info.key, info.size) for info in self._list(under))

    def files(self, under: str = "") -> list[TreeFile]:
        """Return the files below a folder of the tree; see `coda.plates.tree.Tree.files`."""
        found = []
        for info in self._list(under):
            self._seen[info.key] = info
            found.append(TreeFile(info.key, info.size))
        return sorted(found)

    def _list(self, under: str) -> Iterator[ObjectInfo]:
        prefix = f"{under.strip('/')}/" if under.strip("/") else ""
        return (info for info in self.store.list(prefix) if not (info.key.endswith("/") or is_junk(info.key)))

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `coda.plates.tree.Tree.read`."""
        try:
            return self.store.get(path, at_most=at_most)
        except ObjectNotFoundError as error:
            raise absent(self.where, path) from error
        except ObjectTooLargeError as error:
            raise too_large(self.where, path, self.store.size(path) or 0, at_most) from error

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None when there is none; known files are not asked for again."""
        known = self._seen.get(path)
        return known.size if known is not None else self.store.size(path)

    def mark(self, path: str) -> str:
        """Return what changes whenever a listed file is replaced: its entity tag; '' for one never listed."""
        known = self._seen.get(path)
        return known.etag if known is not None else ""

    def stored_sha256(self, path: str) -> str | None:
        """Return the SHA-256 that the service itself keeps of a listed file; None where it keeps none."""
        known = self._seen.get(path)
        return self.store.sha256(path) if known is not None and known.has_sha256 else None

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks; see `coda.storage.objects.ObjectStore.blocks`."""
        try:
            yield from self.store.blocks(path)
        except ObjectNotFoundError as error:
            raise absent(self.where, path) from error

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write a file, over whatever was there."""
        if self.store.unsigned:
            raise _read_only(self.where)
        self.store.put(path, data, content_type)

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """Write a file unless there is one, and return whether it was written."""
        if self.store.unsigned:
            raise _read_only(self.where)
        return self.store.put_if_absent(path, data, content_type)


def _read_only(where: str) -> ConfigError:
    remedy = "Name a place of your own with --out; the images stay where they are."
    problem = Problem(where, "a place that is read without credentials", "a place that may be written", remedy)
    return ConfigError(f"Nothing can be written to {where}.", [problem])
