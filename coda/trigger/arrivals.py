"""What arrives becomes a first state in the ledger: landed, or refused for a manifest that cannot be used."""

import logging
import time
from collections.abc import Callable, Collection

from coda.errors import ConfigError, TransientError
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.trigger.batch_versions import Arrival, in_words, missing_files, owner_of, read_arrival
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.polling import Poll
from coda.trigger.queue import Queue
from coda.trigger.rounds import Rounds

log = logging.getLogger(__name__)


class Arrivals:
    """Polls queue and landing prefix, and records each manifest's version once."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        metrics: TriggerMetrics,
        *,
        rounds: Rounds,
        ignored: Callable[[], Collection[str]],
        poll: bool,
        queue: bool,
    ) -> None:
        """Set up the front ends.

        Args:
            settings: Where landing prefix and queue are.
            ledger: Where arrivals are written.
            metrics: What is counted.
            rounds: What is known of the ledger.
            ignored: Returns the sources whose batches start nothing.
            poll: List the landing prefix.
            queue: Read the queue, when one is configured.
        """
        self.landing = store_for(settings.landing, settings)
        self._settings = settings
        self._ledger = ledger
        self._metrics = metrics
        self._rounds = rounds
        self._ignored = ignored
        self._poll = Poll(self.landing, rounds.landed, ignored) if poll else None
        self._queue = (
            Queue(settings.queue_url, self.landing, ledger.store, metrics) if queue and settings.queue_url else None
        )
        self._polled = float("-inf")
        self._reached = False
        self.moved = time.monotonic()
        """Monotonic time of the last manifest that was looked at: a sign of life of a long look."""

    def look(self, *, wait_s: int = 0, poll_every_s: float = 0.0, everything: bool = False) -> list[LedgerState]:
        """Poll everything once.

        Args:
            wait_s: Seconds to wait for a first message.
            poll_every_s: List the landing prefix only when the last time is so long ago.
            everything: Ask for every manifest in the landing prefix, and not for some of the settled ones in turn.

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
        if self._poll is not None and time.monotonic() - self._polled >= poll_every_s:
            for key in self._poll.keys(everything=everything):
                self._polled_key(key, refused)
            self._polled = time.monotonic()
        self._metrics.last_poll.set_to_current_time()
        return refused

    def hasten(self, key: str) -> None:
        """Have a manifest read by the next poll; for any thread."""
        if self._poll is not None:
            self._poll.hasten(key)

    def _polled_key(self, key: str, refused: list[LedgerState]) -> None:
        """Take one key of many: what goes wrong with it alone is logged, and tried again at the next poll."""
        self.moved = time.monotonic()
        try:
            known = self._take(key, refused)
            if known is not None:
                # without its tag in the ledger it was read for nothing: not again by the next start
                self._rounds.remember(known.version, known.etag)
        except (TransientError, ConfigError):
            raise
        except Exception:
            self._metrics.defects.labels(outcome="arrival").inc()
            log.exception("%s could not be taken.", self.landing.url(key))

    def take(self, key: str, refused: list[LedgerState]) -> bool:
        """Write down the manifest at `key` unless this version of it is known.

        Returns:
            True: what is at the key is in the ledger, or is nothing that belongs there.
        """
        self._take(key, refused)
        return True

    def _take(self, key: str, refused: list[LedgerState]) -> Arrival | None:
        """Write down the manifest at `key`; return it when its version was in the ledger before."""
        if owner_of(key)[0] in self._ignored():
            return None
        arrival = read_arrival(self.landing, key, self._settings)
        if arrival is None:
            return None
        recorded = self._record(arrival, refused)
        if self._poll is not None:
            self._poll.settle(key, arrival.etag)
        return None if recorded else arrival

    def _record(self, arrival: Arrival, refused: list[LedgerState]) -> bool:
        """Write down the first state of a version; return whether there was none."""
        version = arrival.version
        if self._ledger.seen(version):
            self._metrics.events.labels(outcome="repeated").inc()
            return False
        if arrival.manifest is None:
            reasons = in_words(arrival.problems)
            state = self._ledger.append(version, "refused", after=None, reasons=reasons, manifest_etag=arrival.etag)
            self._metrics.events.labels(outcome="invalid").inc()
            if state is not None:
                refused.append(state)
            return True
        missing = missing_files(self.landing, version, arrival.manifest, self._settings)
        reasons = (f"waits for {missing.count} file(s)", *in_words(missing.problems)) if missing else ()
        self._ledger.append(version, "landed", after=None, reasons=reasons, manifest_etag=arrival.etag)
        self._metrics.events.labels(outcome="claimed").inc()
        return True
