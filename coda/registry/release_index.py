"""Which entry of the release log binds which release: derived from the log, to find one without reading all of it.

``index/releases.json`` names the release of each entry by the entry's key and entity tag. The log alone is the truth:
what a release says is read from its entry, and an entry that the index lacks, or knows with another tag, is read too.
An index that is missing, cut or behind therefore costs requests and changes no answer; whoever promotes brings it up to
date, as far as it may write there. It lies outside the log, where nothing is ever written over.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from pydantic import Field

from coda.contracts.base import Contract
from coda.errors import CodaError
from coda.storage.objects import ObjectInfo, ObjectStore
from coda.storage.records import MAX_RECORD_BYTES, find_record

log = logging.getLogger(__name__)

KEY = "index/releases.json"


class ReleaseIndex(Contract):
    """The entries of the release log that were read once."""

    entries: dict[str, tuple[str, str]] = Field(description="Key of an entry -> its entity tag and its release id.")

    def release_of(self, item: ObjectInfo) -> str | None:
        """Return the release id of a listed entry; none where the entry must be read to know it."""
        etag, release_id = self.entries.get(item.key, ("", ""))
        return release_id if etag == item.etag else None


def read_index(store: ObjectStore) -> ReleaseIndex:
    """Return the index, or an empty one where there is none that this process can read."""
    try:
        found = find_record(store, KEY, ReleaseIndex, at_most=4 * MAX_RECORD_BYTES)
    except CodaError as error:
        log.info("The index of the release log is not used: %s", error.message)
        found = None
    return found or ReleaseIndex(entries={})


def update_index(store: ObjectStore, listed: Iterable[ObjectInfo], release_of: Callable[[str], str | None]) -> None:
    """Add what the index lacks; nothing depends on it, so a store that refuses or is away is no error here.

    Args:
        store: The platform bucket.
        listed: All entries of the log.
        release_of: Key of an entry -> its release id; none where it cannot be read.
    """
    try:
        index = read_index(store)
        named: Mapping[str, tuple[str, str | None]] = {
            item.key: (item.etag, index.release_of(item) or release_of(item.key)) for item in listed
        }
        entries = {key: (etag, name) for key, (etag, name) in named.items() if name is not None}
        if entries != index.entries:
            body = ReleaseIndex(entries=entries).to_json().encode()
            store.put(KEY, body, content_type="application/json")
    except CodaError as error:
        log.info("The index of the release log was not brought up to date: %s", error.message)
