"""The append-only release log in the platform bucket: one object an entry, the highest sequence is the pointer.

A promotion creates ``releases/<scope>/<sequence>.json`` on the condition that nobody has created it yet. That one
conditional write is the compare-and-swap: it works on every object store that knows If-None-Match (decision 0003).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from coda.contracts import PointerEntry, ReleaseRecord
from coda.errors import CodaError, IntegrityError, Problem
from coda.settings import Settings
from coda.storage.objects import ObjectStore, store_for

DEFAULT_SCOPE = "default"
"""Scope that serves every source without a release of its own, and that adaptation starts from."""

PREFIX = "releases"


class ConflictError(CodaError):
    """Somebody else moved the pointer in the meantime; look at what serves now, then decide again."""


class ReleaseLog:
    """What serves which source, now and at any time before."""

    def __init__(self, settings: Settings) -> None:
        """Use the platform bucket of these settings; nothing is read yet."""
        self.store: ObjectStore = store_for(settings.platform, settings)

    def scopes(self) -> list[str]:
        """Return all scopes that ever had a release, in alphabetical order."""
        return sorted(self.store.folders(f"{PREFIX}/"))

    def history(self, scope: str) -> list[PointerEntry]:
        """Return all entries of a scope, the oldest first.

        Raises:
            IntegrityError: An entry is missing in the middle, or is not what its name says.
        """
        keys = [info.key for info in self.store.list(f"{PREFIX}/{scope}/")]
        entries = [PointerEntry.parse(self.store.get(key), self.store.url(key)) for key in keys]
        for place, entry in enumerate(entries, start=1):
            if entry.sequence != place or entry.scope != scope:
                found = f"entry {entry.sequence} of scope {entry.scope!r}"
                remedy = "An entry was deleted or changed. Restore the bucket's own version of it."
                problem = Problem(self.store.url(keys[place - 1]), found, f"entry {place} of scope {scope!r}", remedy)
                raise IntegrityError("The release log is not whole.", [problem])
        return entries

    def entries(self) -> Iterator[PointerEntry]:
        """Yield all entries of all scopes, scope by scope, the oldest of each first."""
        for scope in self.scopes():
            yield from self.history(scope)

    def entry(self, scope: str) -> PointerEntry | None:
        """Return the newest entry of a scope, or none; only the newest is read."""
        newest = max((info.key for info in self.store.list(f"{PREFIX}/{scope}/")), default=None)
        return None if newest is None else PointerEntry.parse(self.store.get(newest), self.store.url(newest))

    def current(self, scope: str) -> ReleaseRecord | None:
        """Return the release that serves exactly this scope, or none; see `serving` for the fallback."""
        entry = self.entry(scope)
        return None if entry is None else entry.release

    def serving(self, source: str) -> ReleaseRecord | None:
        """Return the release that serves a source: its own, else the default's, else none."""
        return self.current(source) or self.current(DEFAULT_SCOPE)

    def released(self, release_id: str) -> ReleaseRecord | None:
        """Return a release that serves or served some scope, by its id; none when it never did."""
        return next((entry.release for entry in self.entries() if entry.release.release_id == release_id), None)

    def at(self, scope: str, time: datetime) -> PointerEntry | None:
        """Return the entry that was in force at a time (with time zone), or none before the first."""
        before = [entry for entry in self.history(scope) if entry.at <= time]
        return before[-1] if before else None

    def during(self, scope: str, start: datetime, end: datetime) -> list[PointerEntry]:
        """Return the entries that were in force at some time from `start` to `end` (both with time zone)."""
        entries = self.history(scope)
        inside = [entry for entry in entries if start < entry.at <= end]
        before = [entry for entry in entries if entry.at <= start]
        return [*before[-1:], *inside]

    def append(
        self,
        release: ReleaseRecord,
        scope: str,
        *,
        action: Literal["promote", "rollback"],
        by: str,
        reason: str,
        after: int,
    ) -> PointerEntry:
        """Write the entry that follows number `after`.

        Args:
            release: What is to serve.
            scope: Source, or 'default'.
            action: What the entry is.
            by: Who moved the pointer.
            reason: Why, in words.
            after: Sequence of the entry the decision was based on; 0 when there was none.

        Raises:
            ConflictError: Another entry follows number `after` already.
        """
        entry = PointerEntry(
            sequence=after + 1, scope=scope, action=action, release=release, by=by, reason=reason, at=datetime.now(UTC)
        )
        key = f"{PREFIX}/{scope}/{entry.sequence:06d}.json"
        if not self.store.put_if_absent(key, entry.to_json().encode()):
            raise self.conflict(scope, after)
        return entry

    def conflict(self, scope: str, after: int) -> ConflictError:
        """Return the error that says who moved the pointer since entry `after`."""
        newest = self.entry(scope)
        found = "no entry at all"
        if newest is not None:
            found = f"entry {newest.sequence} (release {newest.release.release_id}, by {newest.by}: {newest.reason})"
        remedy = f"Look at `coda registry history {scope}`, then decide again."
        problem = Problem(f"release log of {scope!r}", found, f"entry {after} as the newest", remedy)
        return ConflictError(f"The pointer of {scope!r} was moved by somebody else; nothing was changed.", [problem])
