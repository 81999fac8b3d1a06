"""The ledger: one claim for each batch version, and its states in order, as objects that are created and never changed.

``ledger/<source>/<batch>/<digest16>/`` holds ``claim.json``, ``states/0001.json``, ``states/0002.json``, ... and
``heartbeat.json``, the only one that is written over. Every transition creates the object of the next number with a
conditional write, so of any number of writers exactly one makes it, and the others see what it was.
"""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Slug
from coda.storage.objects import ObjectStore
from coda.trigger.batches import BatchVersion

State = Literal["landed", "claimed", "running", "released", "incumbent_kept", "held", "refused", "failed"]

FINAL: frozenset[str] = frozenset({"released", "incumbent_kept", "held", "refused", "failed"})
"""States after which nothing happens by itself."""

TAKEN: frozenset[str] = frozenset({"claimed", "running"})
"""States in which somebody looks after the version, and its source has no room for another."""

_STATE_KEY = re.compile(r"^ledger/([^/]+)/([^/]+)/([0-9a-f]{16})/states/(\d{4,})\.json$")


class Claim(Contract):
    """Who took a batch version first, and the run it belongs to for ever."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    manifest_key: str
    run_id: str
    owner: str
    at: AwareDatetime


class LedgerState(Contract):
    """One state of a batch version."""

    sequence: int = Field(ge=1)
    state: State
    at: AwareDatetime
    source: Slug
    batch: Slug
    manifest_digest: Digest
    manifest_key: str = Field(description="Key of the manifest below the landing prefix.")
    run_id: str
    owner: str = Field(description="Process that wrote this: host, process and a random part.")
    reasons: tuple[str, ...] = Field(default=(), description="Why, in plain words.")
    attempt: int = Field(default=0, ge=0, description="Times the run was submitted so far.")

    @property
    def version(self) -> BatchVersion:
        """The batch version this is a state of."""
        return BatchVersion(self.source, self.batch, self.manifest_digest, self.manifest_key)

    @property
    def final(self) -> bool:
        """Whether nothing happens after it by itself."""
        return self.state in FINAL

    @property
    def waits_for_person(self) -> bool:
        """Whether its run failed for good, and a person must act: retry it, or have the batch delivered again."""
        return self.state == "failed"


class Heartbeat(Contract):
    """Sign of life of whoever looks after a run."""

    owner: str
    at: AwareDatetime


@dataclass(frozen=True)
class Entry:
    """One batch version in the ledger: its newest state and all before it."""

    states: tuple[LedgerState, ...]

    @property
    def last(self) -> LedgerState:
        """The newest state."""
        return self.states[-1]


class Ledger:
    """The ledger of one platform bucket, as one process writes it."""

    def __init__(self, platform: ObjectStore, owner: str | None = None) -> None:
        """Use the platform bucket.

        Args:
            platform: Store at the platform prefix.
            owner: Name of this process in what it writes; host and process number when not given.
        """
        self.store = platform
        self._read: dict[str, LedgerState] = {}
        self._arrived: dict[str, datetime] = {}
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
        """Return who took a batch version, or None."""
        key = f"{version.folder}/claim.json"
        body = self.store.find(key)
        return Claim.parse(body, key) if body is not None else None

    def states(self, version: BatchVersion) -> tuple[LedgerState, ...]:
        """Return all states of a batch version in order; empty for one never seen."""
        keys = sorted((item.key for item in self.store.list(f"{version.folder}/states/")), key=_in_order)
        return tuple(LedgerState.parse(self.store.get(key), key) for key in keys)

    def last(self, version: BatchVersion) -> LedgerState | None:
        """Return the newest state of a batch version, or None for one never seen."""
        keys = sorted((item.key for item in self.store.list(f"{version.folder}/states/")), key=_in_order)
        return LedgerState.parse(self.store.get(keys[-1]), keys[-1]) if keys else None

    def arrived(self, version: BatchVersion) -> datetime:
        """Return when a batch version that is in the ledger got there."""
        key = f"{version.folder}/states/{1:04d}.json"
        if key not in self._arrived:  # a state never changes
            self._arrived[key] = LedgerState.parse(self.store.get(key), key).at
        return self._arrived[key]

    def append(
        self,
        version: BatchVersion,
        state: State,
        *,
        after: LedgerState | None,
        reasons: tuple[str, ...] = (),
        attempt: int | None = None,
    ) -> LedgerState | None:
        """Write the next state, unless somebody wrote one since `after` was read.

        Args:
            version: Batch version.
            state: Its new state.
            after: State this follows; None for the first.
            reasons: Why, in plain words.
            attempt: Times the run was submitted; as before when not given.

        Returns:
            The state, or None when another writer was faster: read again before deciding anything.
        """
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
        )
        key = f"{version.folder}/states/{sequence:04d}.json"
        return new if self.store.put_if_absent(key, new.to_json().encode()) else None

    def beat(self, version: BatchVersion) -> None:
        """Say that the run of a batch version is looked after."""
        beat = Heartbeat(owner=self.owner, at=datetime.now(UTC))
        self.store.put(f"{version.folder}/heartbeat.json", beat.to_json().encode(), content_type="application/json")

    def silence(self, state: LedgerState) -> timedelta:
        """Return how long nobody gave a sign of life: since the state or the last heartbeat, whichever is later."""
        key = f"{state.version.folder}/heartbeat.json"
        body = self.store.find(key)
        seen = max(state.at, Heartbeat.parse(body, key).at) if body is not None else state.at
        return datetime.now(UTC) - seen

    def newest(self, prefix: str = "") -> Iterator[LedgerState]:
        """Yield the newest state of every batch version, in the order of their names.

        Args:
            prefix: Only this ``source`` or ``source/batch``.
        """
        newest: dict[tuple[str, ...], str] = {}
        for item in self.store.list(f"ledger/{prefix.strip('/')}/" if prefix else "ledger/"):
            if match := _STATE_KEY.match(item.key):
                version = match.groups()[:3]
                newest[version] = max(newest.get(version, ""), item.key, key=_in_order)
        known = {}
        for key in newest.values():
            # a state never changes, so each is read once in the life of this object
            known[key] = self._read.get(key) or LedgerState.parse(self.store.get(key), key)
            yield known[key]
        if not prefix:
            self._read = known

    def entries(self, prefix: str = "") -> list[Entry]:
        """Return every batch version with all its states."""
        return [Entry(self.states(state.version)) for state in self.newest(prefix)]


def _in_order(key: str) -> tuple[int, str]:
    """Sort the keys of a version's states: a service that was away for weeks may have made more than 9999 of them."""
    return len(key), key
