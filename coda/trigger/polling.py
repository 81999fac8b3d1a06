"""Polling: manifests below the landing prefix that are new or changed since the last look."""

from collections.abc import Iterator

from coda.storage.objects import ObjectStore
from coda.trigger.batches import is_manifest


class Poll:
    """Lists the landing prefix; finds what no event told of. Remembers entity tags, so settled ones cost no reads."""

    def __init__(self, landing: ObjectStore) -> None:
        """Look below the landing prefix."""
        self.landing = landing
        self._settled: dict[str, tuple[int, str]] = {}
        self._seen: dict[str, tuple[int, str]] = {}

    def keys(self) -> Iterator[str]:
        """Yield the key of every manifest that is not settled as it is now."""
        seen = {item.key: (item.size, item.etag) for item in self.landing.list() if is_manifest(item.key)}
        self._seen = seen
        self._settled = {key: mark for key, mark in self._settled.items() if seen.get(key) == mark}
        for key in seen:
            if key not in self._settled:
                yield key

    def settle(self, key: str) -> None:
        """Look at a manifest again only when it changed."""
        if key in self._seen:
            self._settled[key] = self._seen[key]

    def forget(self) -> None:
        """Look at every manifest again: what settled them is no longer so."""
        self._settled.clear()
