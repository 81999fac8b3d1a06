"""The ledger: one claim for each batch version, and its states in order, as objects that are created and never changed.

``ledger/<source>/<batch>/<digest16>/`` holds ``claim.json``, ``states/0001.json``, ``states/0002.json``, ... and
``heartbeat.json``, the only one that is written over. Every transition creates the object of the next number with a
conditional write, so of any number of writers exactly one makes it, and the others see what it was. Before each state
stands a mark of it (`coda.trigger.marks`), so that `coda.trigger.rounds` finds what is open without listing the rest.
"""

import os
import re
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypedDict, Unpack

from coda.contracts.base import NewerDocumentError
from coda.errors import ContractError
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.objects import ObjectInfo, ObjectStore
from coda.storage.records import find_record
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.marks import Marks
from coda.trigger.states import (
    FINAL,
    TAKEN,
    Claim,
    Entry,
    Heartbeat,
    LedgerState,
    State,
    Survey,
    Unreadable,
)

__all__ = ["FINAL", "TAKEN", "Claim", "Entry", "Heartbeat", "Ledger", "LedgerState", "State", "Survey", "Unreadable"]

MAX_STATE_BYTES = 1024 * 1024
"""Size of the largest state that is read; reasons are words for people."""

_STATE_KEY = re.compile(r"^ledger/([^/]+)/([^/]+)/([0-9a-f]{16})/states/(\d{4,})\.json$")


class Counted(TypedDict, total=False):
    """What `Ledger.append` may record besides; see `LedgerState`."""

    lost: int
    cause: str
    reopened: int
    manifest_etag: str


class Ledger:
    """The ledger of one platform bucket, as one process writes it."""

    def __init__(self, platform: ObjectStore, owner: str | None = None) -> None:
        """Use the platform bucket.

        Args:
            platform: Store at the platform prefix.
            owner: Name of this process in what it writes; host and process number when not given.
        """
        self.store = platform
        self.marks = Marks(platform)
        self._read: dict[str, LedgerState] = {}
        self._written: dict[str, dict[int, datetime]] = {}
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"

    def claim(self, version: BatchVersion) -> bool:
        """Take a batch version; of all who try, whenever and wherever, exactly one gets True."""
        claim = Claim(
            source=version.source,
            batch=version.batch,
            manifest_digest=version.digest,
            manifest_key=version.key,
            run_id=version.run_id,
            owner=self.owner,
            at=datetime.now(UTC),
        )
        return self.store.put_if_absent(f"{version.folder}/claim.json", claim.to_json().encode())

    def claim_of(self, version: BatchVersion) -> Claim | None:
        """Return who took a batch version, or None.

        Raises:
            UnreadableRecordError: The claim cannot be read.
        """
        return find_record(self.store, f"{version.folder}/claim.json", Claim, at_most=MAX_STATE_BYTES)

    def seen(self, version: BatchVersion) -> bool:
        """Return whether a batch version has any state, readable or not."""
        return next(iter(self.store.list(f"{version.folder}/states/")), None) is not None

    def states(self, version: BatchVersion) -> tuple[LedgerState, ...]:
        """Return all states of a batch version that can be read, in order; empty for one never seen."""
        return self.entry(version.folder).states

    def entry(self, folder: str) -> Entry:
        """Return all that a folder of the ledger holds of one batch version; see `BatchVersion.folder`."""
        return self._entry(item.key for item in self.store.list(f"{folder}/states/"))

    def last(self, version: BatchVersion) -> LedgerState | None:
        """Return the newest state of a batch version that can be read, or None for one never seen."""
        states = self.states(version)
        return states[-1] if states else None

    def written(self, state: LedgerState) -> datetime:
        """Return when the store got a state, as it was last listed; by the writer's clock where it never was."""
        return self._written.get(state.version.folder, {}).get(state.sequence, state.at)

    def order(self, state: LedgerState) -> tuple[datetime, datetime]:
        """Return what puts states of several versions in order: the store's time; within its second, the writer's."""
        return self.written(state), state.at

    def arrived(self, version: BatchVersion) -> datetime:
        """Return when the store got the first state of a batch version.

        Of whatever machine the writer was, the store's clock is one for all: this may put versions in order.
        """
        known = self._written.get(version.folder, {})
        return (known if 1 in known else self.times(version.folder)).get(1, datetime.now(UTC))

    def times(self, folder: str) -> dict[int, datetime]:
        """Return number -> when the store got it, of all states of one version; none for one never seen."""
        for _ in self._note(self.store.list(f"{folder}/states/")):
            pass
        return dict(self._written.get(folder, {}))

    def forget(self, folder: str) -> None:
        """Forget when the states of a version were written; they are listed again where that is asked."""
        self._written.pop(folder, None)

    def at(self, folder: str, sequence: int) -> LedgerState | Unreadable:
        """Return the state of a number."""
        return self._state(_key_of(folder, sequence))

    def newest_keys(self) -> dict[str, tuple[int, datetime]]:
        """Return folder -> number of its newest state and when the store got it, of every batch version."""
        newest: dict[str, tuple[int, datetime]] = {}
        for item in self.store.list("ledger/"):
            if match := _STATE_KEY.match(item.key):
                folder = item.key.partition("/states/")[0]
                newest[folder] = max(newest.get(folder, (0, item.modified)), (int(match[4]), item.modified))
        return newest

    def newest_marked(self) -> dict[str, tuple[int, datetime]]:
        """Return the same by the marks: one listing for all that ended, and one for each version that is open."""
        newest = {mark.folder: (mark.sequence, mark.at) for mark in self.marks.closed()}
        for folder in self.marks.open():
            if times := self.times(folder):
                newest[folder] = max(times.items())
        return newest

    def append(
        self,
        version: BatchVersion,
        state: State,
        *,
        after: LedgerState | None,
        reasons: tuple[str, ...] = (),
        attempt: int | None = None,
        sequence: int | None = None,
        **counted: Unpack[Counted],
    ) -> LedgerState | None:
        """Write the next state, unless somebody wrote one since `after` was read.

        Args:
            version: Batch version.
            state: Its new state.
            after: State this follows; None for the first.
            reasons: Why, in plain words.
            attempt: Times the run was submitted; as before when not given.
            sequence: Its number, where what it follows cannot be read.
            counted: `lost`, `cause`, `reopened` and `manifest_etag` of the state; as before where not given, but no
                cause.

        Returns:
            The state, or None when another writer was faster: read again before deciding anything.
        """
        if sequence is None:
            sequence = after.sequence + 1 if after else 1
        count = attempt if attempt is not None else (after.attempt if after else 0)
        new = LedgerState(
            sequence=sequence,
            state=state,
            at=datetime.now(UTC),
            source=version.source,
            batch=version.batch,
            manifest_digest=version.digest,
            manifest_key=version.key,
            run_id=version.run_id,
            owner=self.owner,
            reasons=reasons,
            attempt=count,
            lost=counted.get("lost", after.lost if after else 0),
            cause=counted.get("cause", ""),
            reopened=counted.get("reopened", after.reopened if after else 0),
            manifest_etag=counted.get("manifest_etag", after.manifest_etag if after else ""),
        )
        key = _key_of(version.folder, sequence)
        self.marks.announce(version.folder, sequence)
        return new if self.store.put_if_absent(key, new.to_json().encode()) else None

    def beat(self, version: BatchVersion) -> None:
        """Say that the run of a batch version is looked after."""
        beat = Heartbeat(owner=self.owner, at=datetime.now(UTC))
        self.store.put(f"{version.folder}/heartbeat.json", beat.to_json().encode(), content_type="application/json")

    def silence(self, state: LedgerState) -> timedelta:
        """Return how long nobody gave a sign of life: since the state or the last heartbeat, whichever is later.

        What counts is when the store got them, by its own clock: what is written in them may come from a machine whose
        clock is wrong, and a heartbeat that cannot be read is a sign of life all the same.
        """
        folder = state.version.folder
        ages = [self.store.age_s(key) for key in (_key_of(folder, state.sequence), f"{folder}/heartbeat.json")]
        return timedelta(seconds=min((age for age in ages if age is not None), default=0.0))

    def survey(self, prefix: str = "") -> Survey:
        """Read the newest state of every batch version, in the order of their names.

        Args:
            prefix: Only this ``source`` or ``source/batch``.
        """
        newest: dict[tuple[str, ...], str] = {}
        for key in self._note(self.store.list(f"ledger/{prefix.strip('/')}/" if prefix else "ledger/")):
            if match := _STATE_KEY.match(key):
                version = match.groups()[:3]
                newest[version] = max(newest.get(version, ""), key, key=_in_order)
        # a state never changes, so each is read once in the life of this object; one that cannot be read may be mended
        found = {key: self._read.get(key) or self._state(key) for key in newest.values()}
        known = {key: state for key, state in found.items() if isinstance(state, LedgerState)}
        if not prefix:
            self._read = known
        return Survey(tuple(known.values()), tuple(item for item in found.values() if isinstance(item, Unreadable)))

    def newest(self, prefix: str = "") -> Iterator[LedgerState]:
        """Yield the newest state of every batch version whose newest state can be read; see `survey`."""
        yield from self.survey(prefix).states

    def entries(self, prefix: str = "") -> list[Entry]:
        """Return every batch version of which any state can be read, with all its states; one listing for all."""
        folders: dict[str, list[str]] = {}
        for key in self._note(self.store.list(f"ledger/{prefix.strip('/')}/" if prefix else "ledger/")):
            if _STATE_KEY.match(key):
                folders.setdefault(key.partition("/states/")[0], []).append(key)
        found = [self._entry(keys) for _, keys in sorted(folders.items())]
        if not prefix:  # a survey after this need not read the newest ones again
            newest = (entry.states[-1] for entry in found if entry.states)
            self._read = {_key_of(state.version.folder, state.sequence): state for state in newest}
        return [entry for entry in found if entry.states]

    def _entry(self, keys: Iterable[str]) -> Entry:
        """Read the states of one batch version."""
        found = [self._state(key) for key in sorted(keys, key=_in_order) if _STATE_KEY.match(key)]
        return Entry(
            tuple(item for item in found if isinstance(item, LedgerState)),
            tuple(item for item in found if isinstance(item, Unreadable)),
        )

    def _state(self, key: str) -> LedgerState | Unreadable:
        """Return the state behind a key, which must be of the version and number that the key says."""
        match = _STATE_KEY.match(key)
        source, batch, digest16, number = match.groups() if match else ("", "", "", "0")
        try:
            state = LedgerState.stored(self.store.get(key, at_most=MAX_STATE_BYTES), key)
            if key == _key_of(state.version.folder, state.sequence):
                return state
            why, newer = f"state {state.sequence} of {state.version.folder}", False
        except ObjectNotFoundError:
            why, newer = "nothing: it was deleted while it was read", False
        except ObjectTooLargeError as error:
            why, newer = error.message, False
        except ContractError as error:
            why = "; ".join(item.found for item in error.problems[:2]) or error.message
            newer = isinstance(error, NewerDocumentError)
        return Unreadable(source, batch, digest16, key, int(number), why, newer)

    def _note(self, items: Iterator[ObjectInfo]) -> Iterator[str]:
        """Remember when the store got the states that it lists; yield the keys of everything."""
        for item in items:
            if match := _STATE_KEY.match(item.key):
                folder = item.key.partition("/states/")[0]
                self._written.setdefault(folder, {})[int(match[4])] = item.modified
            yield item.key


def _key_of(folder: str, sequence: int) -> str:
    return f"{folder}/states/{sequence:04d}.json"


def _in_order(key: str) -> tuple[int, str]:
    """Sort the keys of a version's states: a service that was away for weeks may have made more than 9999 of them."""
    return len(key), key
