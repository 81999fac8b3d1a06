"""What arrives becomes a first state in the ledger: landed, or refused for a manifest that cannot be used."""

import logging
import time
from collections.abc import Callable, Collection

from coda.errors import ConfigError, TransientError
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.trigger.batches import in_words, missing_files, read_arrival
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.polling import Poll
from coda.trigger.queue import Queue

log = logging.getLogger(__name__)


class Arrivals:
    """Looks at queue and landing prefix, and writes down each manifest's version once."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        metrics: TriggerMetrics,
        *,
        ignored: Callable[[], Collection[str]],
        poll: bool,
        queue: bool,
    ) -> None:
        """Set up the front ends.

        Args:
            settings: Where landing prefix and queue are.
            ledger: Where arrivals are written.
            metrics: What is counted.
            ignored: Returns the sources whose batches start nothing.
            poll: List the landing prefix.
            queue: Read the queue, when one is configured.
        """
        self.landing = store_for(settings.landing, settings)
        self._settings = settings
        self._ledger = ledger
        self._metrics = metrics
        self._ignored = ignored
        self._poll = Poll(self.landing) if poll else None
        self._queue = (
            Queue(settings.queue_url, self.landing, ledger.store, metrics) if queue and settings.queue_url else None
        )
        self._polled = float("-inf")
        self._was_ignored: frozenset[str] = frozenset()
        self._reached = False
        self.moved = time.monotonic()
        """Monotonic time of the last manifest that was looked at: a sign of life of a long look."""

    def look(self, *, wait_s: int = 0, poll_every_s: float = 0.0) -> list[LedgerState]:
        """Look everywhere once.

        Args:
            wait_s: Seconds to wait for a first message.
            poll_every_s: List the landing prefix only when the last time is so long ago.

        Returns:
            Versions that were refused as they arrived.

        Raises:
            TransientError: Object store or queue are away; what was not seen stays where it is.
        """
        refused: list[LedgerState] = []
        if self._queue is not None:
            if not self._reached:
                # received in vain, a message would come nearer to the dead-letter queue with every look and every start
                self._ledger.store.exists("ledger/claim.json")
                self.landing.exists("manifest.json")
            self._reached = False
            self._queue.drain(lambda key: self.take(key, refused), wait_s=wait_s)
            self._reached = not self._queue.doubtful
        self._look_again()
        if self._poll is not None and time.monotonic() - self._polled >= poll_every_s:
            for key in self._poll.keys():  # noqa: SIM118  not a mapping
                if self._taken(key, refused):
                    self._poll.settle(key)
            self._polled = time.monotonic()
        self._metrics.last_poll.set_to_current_time()
        return refused

    def _look_again(self) -> None:
        """Have all manifests looked at when other sources are ignored than before: a new training moved the default."""
        ignored = frozenset(self._ignored())
        if self._poll is not None and ignored != self._was_ignored:
            self._poll.forget()
        self._was_ignored = ignored

    def _taken(self, key: str, refused: list[LedgerState]) -> bool:
        """Take one key of many: what goes wrong with it alone is told, and tried again at the next look."""
        self.moved = time.monotonic()
        try:
            return self.take(key, refused)
        except (TransientError, ConfigError):
            raise
        except Exception:
            self._metrics.defects.labels(outcome="arrival").inc()
            log.exception("%s could not be taken.", self.landing.url(key))
            return False

    def take(self, key: str, refused: list[LedgerState]) -> bool:
        """Write down the manifest at `key` unless this version of it is known.

        Returns:
            True: what is at the key is in the ledger, or is nothing that belongs there.
        """
        arrival = read_arrival(self.landing, key, self._settings)
        if arrival is None or arrival.version.source in self._ignored():
            return True
        version = arrival.version
        if self._ledger.seen(version):
            self._metrics.events.labels(outcome="repeated").inc()
            return True
        if arrival.manifest is None:
            state = self._ledger.append(version, "refused", after=None, reasons=in_words(arrival.problems))
            self._metrics.events.labels(outcome="invalid").inc()
            if state is not None:
                refused.append(state)
            return True
        missing = missing_files(self.landing, version, arrival.manifest, self._settings)
        reasons = (f"waits for {missing.count} file(s)", *in_words(missing.problems)) if missing else ()
        self._ledger.append(version, "landed", after=None, reasons=reasons)
        self._metrics.events.labels(outcome="claimed").inc()
        return True
