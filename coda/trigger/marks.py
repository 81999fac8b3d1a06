"""Marks beside the ledger: which versions are open, and how the others ended, all in the names of empty objects.

They save listing what ended long ago; what is true of a version, its states alone say (decision 0027).
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from coda.storage.objects import ObjectStore
from coda.trigger.states import LedgerState

OPEN = "ledger-open/"
CLOSED = "ledger-closed/"

_VERSION = r"(?P<version>[^/]+/[^/]+/[0-9a-f]{16})"
_OPEN = re.compile(rf"^{OPEN}{_VERSION}/(?P<sequence>\d{{4,}})-[0-9a-f]+$")
_CLOSED = re.compile(
    rf"^{CLOSED}{_VERSION}/(?P<sequence>\d{{4,}})-(?P<state>[a-z_]+)-(?P<ran>[01])-(?P<at>\d+)-(?P<etag>[0-9A-Za-z-]*)$"
)
_ETAG = re.compile(r"^[0-9A-Za-z-]{1,80}$")


@dataclass(frozen=True)
class OpenMark:
    """Somebody was about to write a state.

    Attributes:
        key: Its object.
        folder: Folder of the version in the ledger.
        sequence: Number of the state.
        written: When the store got it.
    """

    key: str
    folder: str
    sequence: int
    written: datetime


@dataclass(frozen=True)
class ClosedMark:
    """A version ended for good.

    Attributes:
        folder: Folder of the version in the ledger.
        source: Its source.
        batch: Its batch.
        sequence: Number of its last state.
        state: That state.
        ran: Whether it had a run.
        at: When the store got that state.
        etag: Entity tag of its manifest; empty where it is not known.
    """

    folder: str
    source: str
    batch: str
    sequence: int
    state: str
    ran: bool
    at: datetime
    etag: str


class Marks:
    """The marks of one platform bucket. Threads may share it."""

    def __init__(self, platform: ObjectStore) -> None:
        """Use the platform bucket."""
        self._store = platform

    def announce(self, folder: str, sequence: int) -> None:
        """Say that a state is about to be written, under a name that nobody else has."""
        self._store.put(f"{OPEN}{_version(folder)}/{sequence:04d}-{os.urandom(6).hex()}", b"")

    def open(self, folder: str = "") -> dict[str, list[OpenMark]]:
        """Return folder in the ledger -> its marks in the order of their numbers, of all versions or of one."""
        found: dict[str, list[OpenMark]] = {}
        for item in self._store.list(f"{OPEN}{_version(folder)}/" if folder else OPEN):
            if match := _OPEN.match(item.key):
                mark = OpenMark(item.key, f"ledger/{match['version']}", int(match["sequence"]), item.modified)
                found.setdefault(mark.folder, []).append(mark)
        return {name: sorted(marks, key=lambda mark: mark.sequence) for name, marks in found.items()}

    def remove(self, marks: Iterable[OpenMark]) -> None:
        """Remove marks from the lowest number up, so that none is ever left alone by the removal of a later one."""
        for mark in sorted(marks, key=lambda mark: mark.sequence):
            self._store.delete(mark.key)

    def closed(self, folder: str = "") -> Iterator[ClosedMark]:
        """Yield the versions that ended for good, all of them or one."""
        for item in self._store.list(f"{CLOSED}{_version(folder)}/" if folder else CLOSED):
            if match := _CLOSED.match(item.key):
                source, batch, _ = match["version"].split("/")
                yield ClosedMark(
                    f"ledger/{match['version']}", source, batch, int(match["sequence"]), match["state"],
                    match["ran"] == "1", _time(int(match["at"])), match["etag"],
                )  # fmt: skip

    def close(self, state: LedgerState, written: datetime) -> ClosedMark:
        """Say that a version ended for good; whoever says it again says the same.

        Args:
            state: Its last state, which is in the ledger.
            written: When the store got that state.
        """
        folder, ran = state.version.folder, state.attempt > 0
        etag = state.manifest_etag if _ETAG.match(state.manifest_etag) else ""
        microseconds = round(written.timestamp() * 1e6)
        name = f"{state.sequence:04d}-{state.state}-{int(ran)}-{microseconds}-{etag}"
        self._store.put_if_absent(f"{CLOSED}{_version(folder)}/{name}", b"")
        at = _time(microseconds)
        return ClosedMark(folder, state.source, state.batch, state.sequence, state.state, ran, at, etag)


def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _version(folder: str) -> str:
    return folder.removeprefix("ledger/")
