"""What the ledger holds of one batch version: claim, states in order, a sign of life, and what cannot be read."""

from dataclasses import dataclass
from typing import Literal

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Slug
from coda.errors import Problem
from coda.trigger.batch_versions import BatchVersion

State = Literal["landed", "claimed", "running", "released", "incumbent_kept", "held", "refused", "failed"]

FINAL: frozenset[str] = frozenset({"released", "incumbent_kept", "held", "refused", "failed"})
"""States after which nothing happens by itself."""

TAKEN: frozenset[str] = frozenset({"claimed", "running"})
"""States in which somebody looks after the version, and its source has no room for another."""

OF_THE_MACHINES = frozenset({"lost", "away", "defect"})
"""Causes of a failure that say nothing against the batch: its machines were lost, a service was away, or we erred."""

REOPENINGS = 3
"""Times a batch version that the machines held up is opened again by itself; then a person must look."""


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
    lost: int = Field(
        default=0, ge=0, description="Times among them that the run was lost with its machine; a budget of their own."
    )
    cause: str = Field(
        default="",
        description="What held it up, where the batch is not to blame: 'lost', 'away', 'memory', 'defect', 'record'.",
    )
    reopened: int = Field(default=0, ge=0, description="Times it was opened again by itself after it was held.")
    manifest_etag: str = Field(default="", description="Entity tag of the manifest as it was read; empty: not known.")

    @property
    def version(self) -> BatchVersion:
        """The batch version this is a state of."""
        return BatchVersion(self.source, self.batch, self.manifest_digest, self.manifest_key)

    @property
    def final(self) -> bool:
        """Whether nothing happens after it by itself."""
        return self.state in FINAL

    @property
    def over(self) -> bool:
        """Whether nothing follows at all: no reopening, and no person who retries it."""
        return self.final and self.state != "failed"

    @property
    def reopens(self) -> bool:
        """Whether its run failed by the machines' doing, and it is opened again by itself when they are well."""
        return self.state == "failed" and self.cause in OF_THE_MACHINES and self.reopened < REOPENINGS

    @property
    def waits_for_person(self) -> bool:
        """Whether its run failed for good, and a person must act: retry it, or have the batch delivered again."""
        return self.state == "failed" and not self.reopens


class Heartbeat(Contract):
    """Heartbeat of the trigger that owns a run."""

    owner: str
    at: AwareDatetime


@dataclass(frozen=True)
class Entry:
    """One batch version in the ledger: its states that can be read, at least one, and those that cannot."""

    states: tuple[LedgerState, ...]
    unreadable: tuple["Unreadable", ...] = ()

    @property
    def last(self) -> LedgerState:
        """The newest state that can be read."""
        return self.states[-1]


@dataclass(frozen=True)
class Unreadable:
    """A state in the ledger that cannot be read.

    Attributes:
        source: Laboratory, from its key.
        batch: Batch, from its key.
        digest16: First 16 digits of the manifest's digest, from its key.
        key: Its object.
        sequence: Its number, from its key.
        why: What was found, in words.
        newer: Whether a newer program wrote it: then it is that program's, and left alone.
    """

    source: str
    batch: str
    digest16: str
    key: str
    sequence: int
    why: str
    newer: bool = False

    @property
    def folder(self) -> str:
        """Folder of the version in the ledger."""
        return f"ledger/{self.source}/{self.batch}/{self.digest16}"

    @property
    def problem(self) -> Problem:
        """The message for a person."""
        name = f"{self.source}/{self.batch}"
        remedy = f"coda ledger retry {name} opens this version again while its manifest is in the landing prefix."
        if self.newer:
            remedy = "A newer release of this program wrote it: bring this one to the same release."
        return Problem(self.key, self.why, "a state of a batch version", remedy)


@dataclass(frozen=True)
class Survey:
    """One survey of the ledger.

    Attributes:
        states: Newest state of every version whose newest state can be read.
        unreadable: Newest state of every other version.
    """

    states: tuple[LedgerState, ...]
    unreadable: tuple[Unreadable, ...]
