"""What the trigger counts, for Prometheus to scrape; the names are those of `coda.monitoring.metric_names`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coda.errors import CodaError
from coda.monitoring.metric_names import CLOCKS_DIFFER_S
from coda.monitoring.push import create
from coda.trigger.states import LedgerState
from coda.trigger.turns import Times

DEFECTS = ("version", "arrival", "round")
MESSAGES = ("recorded", "elsewhere", "unreadable", "kept")
NOTIFICATIONS = ("delivered", "failed", "given_up")
RECORDS = ("state", "pointer")


class TriggerMetrics:
    """The trigger's metrics in a registry of their own."""

    def __init__(self) -> None:
        """Create every metric at zero."""
        self.registry = CollectorRegistry()
        self.events = self._counter("coda_trigger_events_total")
        self.claims = self._counter("coda_trigger_claims_total")
        self.runs = self._counter("coda_runs_total")
        self.waiting = self._gauge("coda_trigger_queue_length")
        self.oldest = self._gauge("coda_trigger_oldest_waiting_seconds")
        self.given_up = self._gauge("coda_trigger_dead_letters")
        self.reopening = self._gauge("coda_trigger_held_by_machines")
        self.last_failure = self._gauge("coda_last_failure_timestamp_seconds")
        self.defects = self._counter("coda_trigger_defects_total")
        self.unreadable = self._gauge("coda_trigger_unreadable_records")
        self.messages = self._counter("coda_trigger_queue_messages_total")
        self.notifications = self._counter("coda_trigger_notifications_total")
        self.last_poll = self._gauge("coda_trigger_last_poll_timestamp_seconds")
        self.requests = self._counter("coda_trigger_webhook_requests_total")
        self.lag = self._histogram("coda_trigger_lag_seconds")
        # at zero from the start: what is counted first would else be no increase of anything
        for metric, outcomes in (
            (self.defects, DEFECTS), (self.messages, MESSAGES), (self.unreadable, RECORDS),
            (self.notifications, NOTIFICATIONS),
        ):  # fmt: skip
            for outcome in outcomes:
                metric.labels(outcome=outcome)

    def claimed_after(self, created_at: datetime) -> None:
        """Count the time from a manifest's creation to its claim, unless the producer's clock is plainly wrong."""
        lag = (datetime.now(UTC) - created_at).total_seconds()
        if lag >= -CLOCKS_DIFFER_S:
            self.lag.observe(max(0.0, lag))

    def measure(self, states: Sequence[LedgerState], open_: Sequence[LedgerState], times: Times) -> None:
        """Set the metrics of a ledger survey.

        Args:
            states: Newest state of every version.
            open_: Those of them that wait or are run.
            times: When what got into the ledger.
        """
        self.waiting.set(len(open_))
        self.given_up.set(sum(state.waits_for_person for state in states))
        self.reopening.set(sum(state.reopens for state in states))
        now = datetime.now(UTC)
        ages = [(now - times.arrived(state.version)).total_seconds() for state in open_ if state.state == "landed"]
        self.oldest.set(max(0.0, *ages, 0.0))

    def _counter(self, name: str) -> Counter:
        metric = create(name, self.registry)
        return metric if isinstance(metric, Counter) else _unfit(name)

    def _gauge(self, name: str) -> Gauge:
        metric = create(name, self.registry)
        return metric if isinstance(metric, Gauge) else _unfit(name)

    def _histogram(self, name: str) -> Histogram:
        metric = create(name, self.registry)
        return metric if isinstance(metric, Histogram) else _unfit(name)


def _unfit(name: str) -> NoReturn:
    raise CodaError(f"The metric {name} is declared as another kind than the trigger counts.")
