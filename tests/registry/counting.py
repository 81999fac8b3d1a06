"""How many requests a store is asked, whatever else the process does: counted where boto3 sends them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from coda.storage.objects import ObjectStore


@contextmanager
def requests_to(store: ObjectStore) -> Iterator[Counter[str]]:
    """Count the requests of this process to the service of a store, by operation; retries count."""
    counts: Counter[str] = Counter()

    def note(event_name: str, **_: object) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    events = store.client.meta.events
    events.register("before-send.s3", note)
    try:
        yield counts
    finally:
        events.unregister("before-send.s3", note)
