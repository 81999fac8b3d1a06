"""The append-only release log in the platform bucket: one object an entry, the highest sequence is the pointer.

A promotion creates ``releases/<scope>/<sequence>.json`` on the condition that nobody has created it yet. That one
conditional write is the compare-and-swap: it works on every object store that knows If-None-Match (decision 0003).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from coda.contracts import PointerEntry, ReleaseRecord
from coda.errors import CodaError, ContractError, IntegrityError, Problem
from coda.registry.release_index import read_index, update_index
from coda.settings import Settings
from coda.storage.failures import ObjectTooLargeError
from coda.storage.objects import ObjectInfo, ObjectStore, store_for
from coda.storage.records import MAX_RECORD_BYTES, UnreadableRecordError, find_record

DEFAULT_SCOPE = "default"
"""Scope that serves every source without a release of its own, and that adaptation starts from."""

PREFIX = "releases"

_ENTRY = re.compile(r"/(\d+)\.json$")


class ConflictError(CodaError):
    """Somebody else moved the pointer in the meantime; read what serves now, then decide again."""


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
        entries = [self._entry(key, scope) for key in keys]
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
        """Return the newest entry of a scope, or none; only the newest is read.

        Raises:
            UnreadableRecordError: It cannot be read: what serves this scope is not known, and nothing takes its place
                until a person says what is to serve.
        """
        newest = max((info.key for info in self.store.list(f"{PREFIX}/{scope}/")), default=None)
        return None if newest is None else self._entry(newest, scope)

    def pointers(
        self, wanted: Callable[[str], bool] = lambda _: True
    ) -> dict[str, PointerEntry | UnreadableRecordError]:
        """Return scope -> its newest entry, or why that cannot be read; one listing for all, and no other is read.

        Args:
            wanted: Whether a scope is asked for; all are when not given.
        """
        found: dict[str, PointerEntry | UnreadableRecordError] = {}
        for scope, key in {_scope_of(item.key): item.key for item in self._listed()}.items():
            try:
                if wanted(scope):
                    found[scope] = self._entry(key, scope)
            except UnreadableRecordError as error:
                found[scope] = error
        return found

    def newest_number(self, scope: str) -> int:
        """Return the number of a scope's newest entry, whether or not it can be read; 0 for none."""
        keys = [info.key for info in self.store.list(f"{PREFIX}/{scope}/")]
        return max((int(match[1]) for key in keys if (match := _ENTRY.search(key))), default=0)

    def newest_readable(self, scope: str) -> tuple[PointerEntry | None, list[Problem]]:
        """Return the newest entry that can be read, and what is wrong with those after it.

        It is not what serves the scope where a newer one cannot be read; for whoever asks something else of it.
        """
        problems: list[Problem] = []
        for key in sorted((info.key for info in self.store.list(f"{PREFIX}/{scope}/")), reverse=True):
            try:
                return find_record(self.store, key, PointerEntry), problems
            except UnreadableRecordError as error:
                problems += error.problems
        return None, problems

    def readable(self, scope: str) -> list[PointerEntry]:
        """Return the entries of a scope that can be read, the oldest first; the newest must be one of them.

        An entry that a person's decision followed says nothing of what serves now, and stops nobody; `history` is for
        whoever asks whether the log is whole.

        Raises:
            UnreadableRecordError: The newest entry cannot be read.
        """
        found = []
        keys = [info.key for info in self.store.list(f"{PREFIX}/{scope}/")]
        for key in keys:
            try:
                found.append(self._entry(key, scope))
            except UnreadableRecordError:
                if key == keys[-1]:
                    raise
        return found

    def entries_readable(self, scope: str) -> list[PointerEntry]:
        """Return the entries of a scope that can be read, without asking which of them serves; for examinations."""
        found = []
        for key in [info.key for info in self.store.list(f"{PREFIX}/{scope}/")]:
            with suppress(UnreadableRecordError):
                found.append(self._entry(key, scope))
        return found

    def serves_anywhere(self, record: ReleaseRecord) -> bool:
        """Return whether a release serves some scope now; a scope whose newest entry cannot be read counts for none."""
        found = self.pointers().values()
        return any(isinstance(entry, PointerEntry) and entry.release == record for entry in found)

    def _entry(self, key: str, scope: str) -> PointerEntry:
        where = self.store.url(key)
        try:
            # strictly: a field that is not known here could be one that the model's numbers depend on
            return PointerEntry.parse(self.store.get(key, at_most=MAX_RECORD_BYTES), where)
        except (ContractError, ObjectTooLargeError) as error:
            remedy = (
                f"Restore the bucket's own version of this object, or say what is to serve: "
                f"coda registry promote RELEASE --scope {scope} --reason WHY"
            )
            told = [Problem(item.where, item.found, item.expected, remedy) for item in error.problems[:5]]
            raise UnreadableRecordError(f"An entry of the release log of {scope!r} cannot be read.", told) from error

    def current(self, scope: str) -> ReleaseRecord | None:
        """Return the release that serves exactly this scope, or none; see `serving` for the fallback."""
        entry = self.entry(scope)
        return None if entry is None else entry.release

    def serving(self, source: str) -> ReleaseRecord | None:
        """Return the release that serves a source: its own, else the default's, else none."""
        return self.current(source) or self.current(DEFAULT_SCOPE)

    def released(self, release_id: str) -> ReleaseRecord | None:
        """Return a release that serves or served some scope, by its id; none when it never did.

        The index says which entries need not be read; what is returned was read from the log itself.

        Raises:
            UnreadableRecordError: No entry that can be read has it, and there is one that cannot.
        """
        trouble: UnreadableRecordError | None = None
        index = read_index(self.store)
        for item in self._listed():
            if index.release_of(item) not in (None, release_id):
                continue
            try:
                release = self._entry(item.key, _scope_of(item.key)).release
            except UnreadableRecordError as error:
                trouble = trouble or error
                continue
            if release.release_id == release_id:
                return release
        if trouble is not None:
            raise trouble
        return None

    def index(self) -> None:
        """Bring the index up to date, so that the next search for a release by its id need not read the whole log."""

        def release_of(key: str) -> str | None:
            try:
                return self._entry(key, _scope_of(key)).release.release_id
            except UnreadableRecordError:
                return None

        update_index(self.store, self._listed(), release_of)

    def _listed(self) -> list[ObjectInfo]:
        """Return the entries of all scopes, scope by scope, the oldest of each first; none is read."""
        found = [item for item in self.store.list(f"{PREFIX}/") if item.key.count("/") > 1]
        return sorted(found, key=lambda item: (_scope_of(item.key), item.key))

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
            reason: Why.
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


def _scope_of(key: str) -> str:
    return key.split("/")[1]
