"""What arrives becomes a first state in the ledger: landed, or refused for a manifest that cannot be used."""

import logging
import time
from collections.abc import Callable, Iterable

from coda.errors import ConfigError, TransientError
from coda.trigger.batch_versions import Arrival, in_words, missing_files, owner_of, read_arrival
from coda.trigger.event_source import SourceContext
from coda.trigger.event_sources import chosen
from coda.trigger.ledger import LedgerState

log = logging.getLogger(__name__)


class Arrivals:
    """Polls the event sources, and records each manifest's version once."""

    def __init__(self, context: SourceContext, events: Iterable[str], ended: Callable[[LedgerState], None]) -> None:
        """Set up the event sources.

        Args:
            context: Where arrivals are read and written, and what event sources may use.
            events: Event sources, each ``NAME`` or ``NAME=WHERE``.
            ended: Called with every version that was refused as it arrived.

        Raises:
            ConfigError: An event source is not there, or lacks a setting.
        """
        self.landing = context.landing
        self.sources = [source.make(context, where) for source, where in chosen(events).items()]
        self._context = context
        self._ended = ended
        self.moved = time.monotonic()
        """Monotonic time of the last manifest that was looked at: a sign of life of a long look."""

    def look(self, *, wait_s: int = 0, everything: bool = False) -> None:
        """Poll every event source once; one that is away keeps no other from being polled.

        Args:
            wait_s: Seconds that each may wait for a first event.
            everything: Ask for every manifest in the landing prefix, and not for some of the settled ones in turn.

        Raises:
            TransientError: Object store or queue are away; what was not seen stays where it is.
        """
        away: TransientError | None = None
        for source in self.sources:
            try:
                source.drain(self._take_apart, wait_s=wait_s, everything=everything)
            except TransientError as error:
                away = away or error
        if away is not None:
            raise away
        self._context.metrics.last_poll.set_to_current_time()

    def hasten(self, key: str) -> None:
        """Have a manifest read by the next poll; for any thread."""
        for source in self.sources:
            source.hasten(key)

    def _take_apart(self, key: str) -> bool:
        """Take one key of many: what goes wrong with it alone is logged, and tried again at the next poll."""
        self.moved = time.monotonic()
        try:
            return self.take(key)
        except (TransientError, ConfigError):
            raise
        except Exception:
            self._context.metrics.defects.labels(outcome="arrival").inc()
            log.exception("%s could not be taken.", self.landing.url(key))
            return False

    def take(self, key: str) -> bool:
        """Write down the manifest at `key` unless this version of it is known.

        Returns:
            True: what is at the key is in the ledger, or is nothing that belongs there.
        """
        if owner_of(key)[0] in self._context.ignored():
            return True
        arrival = read_arrival(self.landing, key, self._context.settings)
        if arrival is not None:
            known = not self._record(arrival)
            for source in self.sources:
                source.settle(arrival, known=known)
        return True

    def _record(self, arrival: Arrival) -> bool:
        """Write down the first state of a version; return whether there was none."""
        version, ledger, events = arrival.version, self._context.ledger, self._context.metrics.events
        if ledger.seen(version):
            events.labels(outcome="repeated").inc()
            return False
        if arrival.manifest is None:
            reasons = in_words(arrival.problems)
            state = ledger.append(version, "refused", after=None, reasons=reasons, manifest_etag=arrival.etag)
            events.labels(outcome="invalid").inc()
            if state is not None:
                self._ended(state)
            return True
        missing = missing_files(self.landing, version, arrival.manifest, self._context.settings)
        reasons = (f"waits for {missing.count} file(s)", *in_words(missing.problems)) if missing else ()
        ledger.append(version, "landed", after=None, reasons=reasons, manifest_etag=arrival.etag)
        events.labels(outcome="claimed").inc()
        return True
