"""The pages about drift as the trigger keeps them: built when batches ended, read from the bucket when asked for."""

import logging
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from coda.errors import CodaError
from coda.monitoring.batch_table import compact
from coda.monitoring.push import Sample
from coda.monitoring.site import build_site
from coda.monitoring.site.build import TYPES, Now, standings
from coda.monitoring.site.pages import POLICY
from coda.monitoring.standing import StandingMetrics, drift_samples, release_samples
from coda.monitoring.summaries import report_prefix
from coda.registry.drafts import release_name
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.storage.failures import ObjectNotFoundError
from coda.storage.objects import store_for
from coda.trigger.failure_page import NAME as FAILURE_PAGE
from coda.trigger.ledger import Ledger
from coda.trigger.states import LedgerState

log = logging.getLogger(__name__)

EVERY_S = 300.0
"""Seconds after which what runs and waits is told anew, also when no batch ended."""

_NEVER = datetime.min.replace(tzinfo=UTC)

COMPACT_EVERY_S = 24 * 3600.0
MAX_PAGE_BYTES = 64 * 1024 * 1024
MOST_WAITING = 50

SERVED = re.compile(
    r"^(?:site/[\w.-]+(?:/[\w.-]+)?|reports/[\w.-]+/[\w.-]+/[0-9a-f]{64}/(?:report|failure|changed-\d+)|ledger(?:/[\w.-]+){3}/failure)\.(\w+)$"
)
"""Keys of the platform bucket that are shown: pages, and nothing that a program keeps there for itself."""

POLICY_OF_REPORTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Of pages in one file: their style and pictures stand in them, and no script does anything."""


class Site:
    """Builds and shows the pages of one platform bucket."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Know the bucket; nothing is read yet.

        Args:
            settings: Where the platform bucket is.
            url: Address at which people reach these pages, without a slash at its end.
        """
        self._settings, self._url = settings, url
        self.metrics = StandingMetrics()
        self._store = store_for(settings.platform, settings)
        self._wanted = threading.Event()
        self._compacted = float("-inf")

    def want(self) -> None:
        """Have the pages built soon; for any thread."""
        self._wanted.set()

    def keep(self, stopping: threading.Event) -> None:
        """Build what changed, now and whenever that is wanted, until the service stops; trouble is a warning."""
        while not stopping.is_set():
            self._wanted.clear()
            try:
                self.build()
                if time.monotonic() - self._compacted > COMPACT_EVERY_S:
                    compact(self._store)
                    self._compacted = time.monotonic()
            except CodaError as error:
                log.warning("The pages about drift could not be built: %s", error.message)
            except Exception:
                # a defect of ours in a page must not take the trigger with it
                log.exception("The pages about drift met a defect.")
            self._wanted.wait(EVERY_S)

    def build(self) -> list[str]:
        """Build the pages that changed, return their keys, and expose what they say as metrics."""
        here = now(self._settings)
        written = build_site(self._store, here)
        seen = Sample("coda_site_read_timestamp_seconds", time.time())
        told = [*drift_samples(standings(self._store)), *release_samples(here.entries)]
        self.metrics.replace([*told, seen, Sample("coda_site_info", 1, {"url": self._url})])
        return written

    def page(self, path: str) -> tuple[int, str, bytes] | None:
        """Return status, content type and body of a page at a path; None where no page can be."""
        match = SERVED.match(path.lstrip("/"))
        kind = TYPES.get(match[1]) if match else None
        if match is None or kind is None:
            return None
        try:
            return HTTPStatus.OK, kind, self._store.get(match[0], at_most=MAX_PAGE_BYTES)
        except ObjectNotFoundError:
            return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such page (yet).\n"
        except CodaError as error:
            log.warning("The page %s could not be read: %s", match[0], error.message)
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", b"The object store is away.\n"


def policy_of(path: str) -> str:
    """Return the content security policy of a path."""
    return POLICY_OF_REPORTS if path.startswith(("/reports/", "/ledger/")) else POLICY


def now(settings: Settings) -> Now:
    """Return what serves, what runs and what waits for a person."""
    releases, ledger = ReleaseLog(settings), Ledger(store_for(settings.platform, settings))
    entries = [entry for scope in releases.scopes() for entry in releases.entries_readable(scope)]
    moved = {entry.scope: entry.at for entry in entries}  # a later release settled what was held before it
    states = sorted(_unsettled(ledger, moved), key=lambda state: state.at, reverse=True)
    running = [
        {"batch": f"{state.source}/{state.batch}", "state": state.state, "since": f"{state.at:%Y-%m-%d %H:%M} UTC"}
        for state in states
        if not state.final
    ]
    runs = {entry.release.run_id for entry in entries}
    return Now(entries, running[:MOST_WAITING], _waiting(states, runs, moved)[:MOST_WAITING])


def _unsettled(ledger: Ledger, moved: Mapping[str, datetime]) -> list[LedgerState]:
    """Return the newest states of what is open and of what was held since its source moved; the rest is never read."""
    newest = {
        mark.folder: mark.sequence
        for mark in ledger.marks.closed()
        if mark.state == "held" and mark.at > moved.get(mark.source, _NEVER)
    }
    for folder in ledger.marks.open():
        if times := ledger.times(folder):
            newest[folder] = max(times)
    found = (ledger.at(folder, number) for folder, number in newest.items())
    return [state for state in found if isinstance(state, LedgerState)]


def _waiting(states: list[LedgerState], released: set[str], moved: Mapping[str, datetime]) -> list[dict[str, str]]:
    found = []
    for state in states:
        name = f"{state.source}/{state.batch}"
        if state.waits_for_person:
            todo, page = f"coda ledger retry {name}", f"{state.version.folder}/{FAILURE_PAGE}"
        elif state.state == "held" and state.run_id not in released and state.at > moved.get(state.source, _NEVER):
            todo = f"coda registry promote {release_name(state.run_id)} --scope {state.source} --reason WHY"
            page = f"{report_prefix(state.source, state.batch, state.manifest_digest)}report.html"
        else:
            continue
        found.append(
            {"what": name, "why": state.reasons[0] if state.reasons else state.state, "todo": todo, "page": page}
        )
    return found
