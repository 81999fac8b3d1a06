"""What a trigger knows of the ledger from round to round: every version that is open, and what the ended ones leave.

A quiet round is one listing, whatever ended before. Why no open version is overlooked: decision 0027.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.marks import ClosedMark, OpenMark
from coda.trigger.reopening import WELL
from coda.trigger.side_by_side import side_by_side
from coda.trigger.states import LedgerState, Survey, Unreadable
from coda.trigger.turns import NEVER

log = logging.getLogger(__name__)

COMPARE_S = 3600.0
"""Seconds between two comparisons of the whole ledger with its marks: releases before 0027 write no marks."""

FIRST_S = 60.0
"""Seconds until the second comparison, doubled each time: a trigger of an earlier release may still be ending."""

LEFT = timedelta(days=1)
"""Age of a mark without a state at which its writer counts as gone."""


@dataclass
class Ended:
    """What the versions that ended leave behind for those that are open.

    Attributes:
        served: Source -> when its last run ended.
        well: When a run last went through all its steps.
    """

    served: dict[str, datetime] = field(default_factory=dict)
    well: datetime | None = None

    def add(self, mark: ClosedMark) -> None:
        """Take a version that ended into account, as often as one likes."""
        if mark.ran:
            self.served[mark.source] = max(mark.at, self.served.get(mark.source, mark.at))
            if mark.state in WELL:
                self.well = max(mark.at, self.well or mark.at)


@dataclass(frozen=True)
class _Known:
    """What was found of one version, which holds while its marks are these.

    Attributes:
        newest: Its newest state.
        marks: Keys of its marks when its states were listed.
        holds: Whether it need not be looked into again: the state can be read, and no mark is above it.
    """

    newest: LedgerState | Unreadable
    marks: frozenset[str]
    holds: bool

    def current(self, marks: list[OpenMark]) -> bool:
        """Return whether nothing was written since."""
        own = any(mark.sequence == self.newest.sequence for mark in marks)
        return self.holds and own and all(mark.key in self.marks for mark in marks)


@dataclass
class Landed:
    """What the ledger knows of the manifests of one batch.

    Attributes:
        etags: Entity tags of all its versions.
        at: When the last of them came, or ended.
    """

    etags: set[str] = field(default_factory=set)
    at: datetime = NEVER

    def add(self, etag: str, at: datetime) -> None:
        """Add a version."""
        self.etags |= {etag} if etag else set()
        self.at = max(self.at, at)


class Rounds:
    """The open part of the ledger, as one trigger sees it. Threads may share it."""

    def __init__(self, ledger: Ledger) -> None:
        """Keep this ledger; nothing is read yet."""
        self.ended = Ended()
        self._ledger = ledger
        self._marks = ledger.marks
        self._known: dict[str, _Known] = {}
        self._compared = float("-inf")
        self._pause = FIRST_S / 2
        self._lock = threading.Lock()

    def survey(self) -> Survey:
        """Return the newest state of every version that is open, or failed; the others have ended for good.

        What is in the ledger when this is called is seen, whoever wrote it; what an earlier release wrote, within
        `COMPARE_S`.

        Raises:
            TransientError: The store is away.
        """
        with self._lock:
            if time.monotonic() - self._compared >= min(self._pause, COMPARE_S):
                self._compare()
                self._pause *= 2
            marks = self._marks.open()
            for folder in self._known.keys() - marks.keys():
                self._left(folder)
            stale = [folder for folder, found in marks.items() if not self._current(folder, found)]
            looks = side_by_side(lambda folder: self._look(folder, marks[folder]), stale)
            for folder, found in zip(stale, looks, strict=True):
                self._known.pop(folder, None)
                if isinstance(found, _Known):
                    self._known[folder] = found
                elif found is not None:
                    self._over(found)
            newest = [self._known[folder].newest for folder in sorted(self._known)]
        return Survey(
            tuple(item for item in newest if isinstance(item, LedgerState)),
            tuple(item for item in newest if isinstance(item, Unreadable)),
        )

    def landed(self) -> dict[tuple[str, str], Landed]:
        """Return source and batch -> what is known of its manifests; the whole ledger is read for this."""
        with self._lock:
            closed = self._compare()
        found: dict[tuple[str, str], Landed] = {}
        for state in self.survey().states:
            found.setdefault((state.source, state.batch), Landed()).add(
                state.manifest_etag, self._ledger.written(state)
            )
        for mark in closed:
            found.setdefault((mark.source, mark.batch), Landed()).add(mark.etag, mark.at)
        return found

    def remember(self, version: BatchVersion, etag: str) -> None:
        """Note the entity tag of a manifest whose version is in the ledger without it, so that no start reads it again.

        Args:
            version: The version.
            etag: Entity tag of the bytes that it was read from.
        """
        times = self._ledger.times(version.folder)
        state = self._ledger.at(version.folder, max(times)) if times else None
        if isinstance(state, LedgerState) and state.over and etag:
            self._marks.close(state.model_copy(update={"manifest_etag": etag}), times[state.sequence])
            self._ledger.forget(version.folder)

    def _current(self, folder: str, marks: list[OpenMark]) -> bool:
        known = self._known.get(folder)
        return known is not None and known.current(marks)

    def _left(self, folder: str) -> None:
        """Take note of a version whose last mark another program removed: it ended."""
        for mark in self._marks.closed(folder):
            self.ended.add(mark)
        del self._known[folder]
        self._ledger.forget(folder)

    def _over(self, mark: ClosedMark) -> None:
        self.ended.add(mark)
        self._ledger.forget(mark.folder)

    def _look(self, folder: str, marks: list[OpenMark]) -> _Known | ClosedMark | None:
        """Read one version; return nothing where it has no state."""
        times = self._ledger.times(folder)
        newest = max(times, default=0)
        above = [mark for mark in marks if mark.sequence > newest]
        # their writers were killed between mark and state, or wait for an answer of the store for a day
        self._marks.remove(mark for mark in above if datetime.now(UTC) - mark.written > LEFT)
        if not newest:
            return None
        known = self._known.get(folder)
        state = known.newest if known is not None and known.newest.sequence == newest else None
        if not isinstance(state, LedgerState):
            state = self._ledger.at(folder, newest)
        if isinstance(state, LedgerState) and state.over:
            return self._close(state, times[newest])
        own = [mark for mark in marks if mark.sequence == newest]
        if own:
            self._marks.remove(mark for mark in marks if mark.sequence < newest)
        else:
            # written since the marks were listed, or by an earlier release
            self._marks.announce(folder, newest)
        return _Known(state, frozenset(mark.key for mark in marks), isinstance(state, LedgerState) and not above)

    def _close(self, state: LedgerState, written: datetime) -> ClosedMark:
        folder = state.version.folder
        closed = self._marks.close(state, written)
        # listed anew: of a mark that was written since, one of a lower number must not stay when this one goes
        marks = self._marks.open(folder).get(folder, [])
        self._marks.remove(mark for mark in marks if mark.sequence <= state.sequence)
        return closed

    def _compare(self) -> list[ClosedMark]:
        """Give marks to all that have none: ledgers of earlier releases, and what such a release wrote since.

        Returns:
            The versions that ended, of those that are in the ledger.
        """
        newest = self._ledger.newest_keys()
        closed = [mark for mark in self._marks.closed() if mark.folder in newest]
        marked = {folder: marks[-1].sequence for folder, marks in self._marks.open().items()}
        for mark in closed:
            marked[mark.folder] = max(mark.sequence, marked.get(mark.folder, 0))
        lacking = [folder for folder, (number, _) in newest.items() if number > marked.get(folder, 0)]
        made = side_by_side(lambda folder: self._mark(folder, *newest[folder]), lacking)
        closed += [mark for mark in made if mark is not None]
        for mark in closed:
            self.ended.add(mark)
        if lacking:
            log.info(
                "%d version(s) of the ledger had no mark, and got one; %d of them open: an earlier release wrote them.",
                len(lacking), made.count(None),
            )  # fmt: skip
        self._compared = time.monotonic()
        return closed

    def _mark(self, folder: str, sequence: int, written: datetime) -> ClosedMark | None:
        state = self._ledger.at(folder, sequence)
        if isinstance(state, LedgerState) and state.over:
            return self._marks.close(state, written)
        self._marks.announce(folder, sequence)
        return None
