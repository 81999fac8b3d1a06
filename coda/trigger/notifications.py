"""Tells the operator's receiver, once, of what was refused, is held, failed, or drifts (decision 0038).

What is to be told follows from the ledger, and what was told from create-only records below ``notifications/``; so it
survives a restart and several triggers. A process that dies between a delivery and its record has it delivered again,
with the same id.
"""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from coda.contracts import Notification, NotificationLinks
from coda.contracts.notification import NotificationKind
from coda.errors import CodaError, IntegrityError
from coda.monitoring.batch_row import decode
from coda.monitoring.batch_table import MAX_BYTES, key_of, read
from coda.monitoring.site.lines import OUT_OF_HISTORY, source_of
from coda.registry.drafts import release_name
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.trigger.ledger import Ledger
from coda.trigger.logs import about
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.receiver import Answer, Receiver, send
from coda.trigger.states import LedgerState

log = logging.getLogger(__name__)

PREFIX = "notifications/"
SINCE = f"{PREFIX}since.json"
"""Made by the first trigger that had a receiver: what ended before is not told."""

EVERY_S = 300.0
"""Seconds after which the ledger is looked at, also when nothing ended here."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
"""Seconds before what was not delivered is tried again: doubled from the first to the longest."""

GIVEN_UP = timedelta(days=1)
"""Time after the end of a batch for which its notification is tried."""

ORPHANED = timedelta(minutes=10)
"""Time after which a trigger tells of what another one ended: that one is gone, or cannot reach the receiver."""

ROW_COMES = timedelta(minutes=1)
"""Time for which the row in the table of batches is waited for: it is written right after, or before, the state."""

MOST_LETTERS = 400
"""Characters of a reason that are told; the page has all of it."""

ENDS: tuple[NotificationKind, ...] = ("refused", "held", "failed")

NOT_NOW = frozenset({None, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Answers, or none, after which the other notifications wait as well; any other may be about the one alone."""

Place = tuple[str, int]
"""Folder of a batch version in the ledger, and the number of its state."""


class Notifier:
    """Finds due notifications and sends them. One thread uses it; `want` is for any."""

    def __init__(self, settings: Settings, receiver: Receiver, metrics: TriggerMetrics, owner: str) -> None:
        """Know the ledger and the receiver; nothing is read yet.

        Args:
            settings: Where platform bucket and landing prefix are.
            receiver: Who is told.
            metrics: What is counted.
            owner: Name of this trigger in the ledger.
        """
        self._store = store_for(settings.platform, settings)
        self._landing = store_for(settings.landing, settings)
        self._ledger = Ledger(self._store, owner)
        self._receiver, self._metrics = receiver, metrics
        self._wanted = threading.Event()
        self._settled: set[Place] = set()
        self._pending: dict[Place, list[Notification]] = {}
        self._delivered: set[str] = set()

    def want(self) -> None:
        """Have the ledger read soon; for any thread."""
        self._wanted.set()

    def keep(self, stopping: threading.Event) -> None:
        """Send notifications until the service stops; a failure is a warning, and is tried again ever later."""
        troubles = 0
        while not stopping.is_set():
            self._wanted.clear()
            try:
                troubles = 0 if self.round() else troubles + 1
            except CodaError as error:
                log.warning("Notifications wait: %s", error.message)
                troubles += 1
            except Exception:
                # a defect of ours in a notification must not take the trigger with it
                log.exception("The notifications met a defect.")
                troubles += 1
            if troubles:
                stopping.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(20, troubles - 1)))
            else:
                self._wanted.wait(EVERY_S)

    def begin(self) -> datetime:
        """Return since when ends are notified, by the store's clock; of the first call ever: since now."""
        found = self._store.info(SINCE)
        if found is None:
            self._store.put_if_absent(SINCE, b"{}\n")
            found = self._store.info(SINCE)
        return found.modified if found is not None else datetime.now(UTC)

    def round(self) -> bool:
        """Read the ledger once and deliver what is due; return whether the receiver took all of it.

        Raises:
            TransientError: The object store is away.
        """
        since = self.begin()
        now = since + timedelta(seconds=self._store.age_s(SINCE) or 0.0)
        newest = {(folder, number): at for folder, (number, at) in self._ledger.newest_marked().items() if at >= since}
        for place in [place for place in self._pending if now - newest.get(place, since) > GIVEN_UP]:
            self._give_up(self._pending.pop(place))
        due = {place: at for place, at in newest.items() if now - at <= GIVEN_UP}
        self._settled &= due.keys()
        for place in sorted(due.keys() - self._settled, key=lambda item: (due[item], item)):
            if place not in self._pending:
                notes = self._notes(place, now - due[place])
                if notes is None:
                    continue  # later
                self._pending[place] = notes
            failed = self._tell(self._pending[place])
            if failed is None:
                del self._pending[place]
                self._settled.add(place)
            elif failed.status in NOT_NOW:
                return False
        return not self._pending

    def _tell(self, notes: list[Notification]) -> Answer | None:
        """Deliver and record; return the answer by which one of them was not taken."""
        for note in list(notes):
            key = f"{PREFIX}{note.id}.json"
            if note.id not in self._delivered and not self._store.exists(key):
                answer = send(self._receiver, note)
                self._metrics.notifications.labels(outcome="delivered" if answer.taken else "failed").inc()
                if not answer.taken:
                    # not the words of an answer: a page of an error may say the address back
                    said = f"it answered {answer.status}" if answer.status else answer.words
                    log.warning("%s did not take the notification %s: %s", self._receiver.host, note.id, said)
                    return answer
                self._delivered.add(note.id)
                log.info("%s was notified: %s", self._receiver.host, note.id)
            self._store.put_if_absent(key, note.to_json().encode())
            notes.remove(note)
        return None

    def _give_up(self, notes: list[Notification]) -> None:
        for note in notes:
            self._metrics.notifications.labels(outcome="given_up").inc()
            log.error("The notification %s could not be delivered for a day, and is given up.", note.id)

    def _notes(self, place: Place, age: timedelta) -> list[Notification] | None:
        """Return the notifications of a state; None when that is to be asked later."""
        state = self._ledger.at(*place)
        if not isinstance(state, LedgerState) or not state.final or state.reopens:
            return []
        if state.owner != self._ledger.owner and age < ORPHANED:
            return None
        page = self._page(state)
        if page is None and age < ROW_COMES:
            return None
        return list(self._told(state, page or ""))

    def _told(self, state: LedgerState, page: str) -> Iterator[Notification]:
        wanted = self._receiver.on
        for kind in ENDS:
            if state.state == kind and kind in wanted:
                reasons = [reason for reason in state.reasons if "coda ledger retry" not in reason]
                yield self._note(state, kind, " ".join(reasons), page)
        if "drift" in wanted and state.state not in OUT_OF_HISTORY:
            frame = read(self._store, source=state.source)
            drift = "" if frame.empty else source_of(state.source, frame).drift_from(state.batch, state.manifest_digest)
            if drift:
                yield self._note(state, "drift", drift, page)

    def _note(self, state: LedgerState, kind: NotificationKind, reason: str, page: str) -> Notification:
        reason = " ".join(reason.split()) or "No reason was recorded."
        if len(reason) > MOST_LETTERS:
            reason = f"{reason[:MOST_LETTERS]}..."
        links = NotificationLinks(
            report=self._link(page) if page else "", site=self._link(f"site/source/{state.source}.html")
        )
        todo = self._todo(state, kind)
        version = f"{state.source}/{state.batch}/{state.manifest_digest[:16]}"
        return Notification(
            id=f"{version}/{state.sequence:04d}-{kind}", kind=kind, source=state.source, batch=state.batch,
            manifest_digest=state.manifest_digest, state=state.state, reason=reason, what_to_do=todo, links=links,
            at=state.at, text=text_of(kind, f"{state.source}/{state.batch}", reason, todo, links),
        )  # fmt: skip

    def _todo(self, state: LedgerState, kind: str) -> str:
        name = f"{state.source}/{state.batch}"
        if kind == "failed":
            return f"When the reason is put right: `coda ledger retry {name}`"
        if kind == "held":
            release = release_name(state.run_id)
            return (
                "Read the report. To release it all the same: "
                f"`coda registry promote {release} --scope {state.source} --reason WHY`"
            )
        if kind == "refused":
            manifest = self._landing.url(state.manifest_key)
            return f"Have the batch delivered again without the fault; to look at it: `coda manifest check {manifest}`"
        return (
            "Look at the page of the source; if the change was meant, nothing. "
            f"Every number: `coda monitoring history --source {state.source} --csv {state.source}.csv`"
        )

    def _page(self, state: LedgerState) -> str | None:
        """Return the key of the page about a batch version; None where the table of batches has no row of it yet."""
        key = key_of(state.source, state.batch, state.manifest_digest)
        body = self._store.find(key, at_most=MAX_BYTES)
        if body is None:
            return None
        try:
            return str(decode(body, self._store.url(key))["page"][0].as_py() or "")
        except IntegrityError as error:
            log.warning("%s", error, extra=about(state))
            return ""

    def _link(self, key: str) -> str:
        return f"{self._receiver.site_url}/{key}" if self._receiver.site_url else self._store.url(key)


HEADINGS = {
    "refused": "was refused", "held": "is held for a person", "failed": "failed", "drift": "drifts",
    "test": "is a test: notifications arrive",
}  # fmt: skip


def text_of(kind: NotificationKind, name: str, reason: str, todo: str, links: NotificationLinks) -> str:
    """Return a notification as text for a chat; what others wrote mentions nobody and is no markup there."""
    for letter, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "@\N{ZERO WIDTH SPACE}")):
        reason = reason.replace(letter, harmless)
    places = [f"Report: {links.report}"] if links.report else []
    places += [f"Source: {links.site}"] if links.site else []
    return "\n".join([f"CODA: {name} {HEADINGS[kind]}.", reason, todo, *places])


def trial() -> Notification:
    """Return the notification by which an operator tries the receiver."""
    links, reason, todo = NotificationLinks(), "Somebody tried the receiver.", "Nothing."
    at = datetime.now(UTC)
    return Notification(
        id=f"test/{at:%Y%m%dT%H%M%S%fZ}", kind="test", source="coda", batch="notification", manifest_digest="0" * 64,
        state="test", reason=reason, what_to_do=todo, links=links, at=at,
        text=text_of("test", "coda/notification", reason, todo, links),
    )  # fmt: skip
