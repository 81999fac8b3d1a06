"""What an event source is: one way in which manifests below the landing prefix are announced to the trigger."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar, Self

from coda.settings import Settings
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import Arrival
from coda.trigger.ledger import Ledger
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.rounds import Rounds

Take = Callable[[str], bool]
"""Records the manifest at a key below the landing prefix; see `EventSource` for what its answer means."""


@dataclass(frozen=True)
class SourceContext:
    """What an event source may use.

    Attributes:
        settings: Where the services are.
        landing: Store at the landing prefix.
        ledger: The ledger; its store is the platform bucket.
        rounds: What is known of the ledger.
        metrics: What is counted.
        ignored: Returns the laboratories whose batches start nothing.
        take: `Trigger.take`, for sources that receive events at any time, in threads of their own.
    """

    settings: Settings
    landing: ObjectStore
    ledger: Ledger
    rounds: Rounds
    metrics: TriggerMetrics
    ignored: Callable[[], Collection[str]]
    take: Take


class EventSource:
    """A source of keys of manifests; a sub-class is selected by its name, once it stands in `event_sources`.

    A source that is polled (a listing, a queue) has `drain`; one that events are pushed to (HTTP) has `start` and
    `stop`, and hands keys to `SourceContext.take`. Either way:

    - True means that what is at the key is in the ledger, or is nothing that belongs there. Nothing is acknowledged
      before.
    - False is about one key alone, and is in the log: the key is kept for later, and the next one is taken.
    - An exception (`TransientError`: a service is away; `ConfigError`) passes through, and what was not taken stays
      where it is.

    Attributes:
        name: What ``--events`` takes.
        says: What it is, for whoever selects one.
        polled: Whether it is polled; else events are pushed to it, while the trigger serves.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    polled: ClassVar[bool] = True

    @classmethod
    def make(cls, context: SourceContext, where: str) -> Self:
        """Return the source at a place.

        Args:
            context: What it may use.
            where: What stands behind ``NAME=``; empty for its default, where there is one.

        Raises:
            ConfigError: There is no such place.
        """
        raise NotImplementedError

    @property
    def description(self) -> str:
        """Which one this is, as a part of a sentence: "the queue https://..."."""
        raise NotImplementedError

    def drain(self, take: Take, *, wait_s: int = 0, everything: bool = False) -> int:
        """Hand all keys that are there now to `take`; for the thread that polls.

        Args:
            take: Gets each key.
            wait_s: Seconds that may be waited for a first event.
            everything: Leave nothing for a later poll.

        Returns:
            Events that are done with.

        Raises:
            TransientError: The source, or what is behind `take`, is away.
        """
        del take, wait_s, everything
        return 0

    def start(self) -> None:
        """Begin to hand keys to `SourceContext.take`."""

    def stop(self) -> None:
        """Take nothing more, and let what is being taken come to its end."""

    def hasten(self, key: str) -> None:
        """Hand over a key at the next poll, where this source can; for any thread."""

    def settle(self, arrival: Arrival, *, known: bool) -> None:
        """Note a manifest that is in the ledger now, whichever source announced it; for any thread.

        Args:
            arrival: What was read.
            known: Whether this version was in the ledger before.
        """
