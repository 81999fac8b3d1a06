"""Whose turn it is: sources take turns, so one that sends a hundred batches does not keep the others waiting."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

from coda.trigger.batch_versions import BatchVersion
from coda.trigger.states import TAKEN, LedgerState

NEVER = datetime.min.replace(tzinfo=UTC)


class Times(Protocol):
    """When things got into the ledger, by one clock for all who write to it: the store's."""

    def written(self, state: LedgerState) -> datetime:
        """Return when a state got there."""

    def arrived(self, version: BatchVersion) -> datetime:
        """Return when a version got there."""


def in_turn(
    states: Iterable[LedgerState],
    waiting: Iterable[LedgerState],
    times: Times,
    ended: Mapping[str, datetime] = MappingProxyType({}),
) -> list[LedgerState]:
    """Return the waiting versions in the order in which they should be run.

    First the source whose last run is longest ago, one that never had a run before all others; within a source, and
    among sources that never had a run, what arrived first. It follows from the ledger alone, so it is the same after
    a restart and for every trigger.

    Args:
        states: Newest state of every version that has not ended.
        waiting: Those of them that wait for a run.
        times: When what got into the ledger.
        ended: Source -> when the last run of a version that ended did so.
    """
    served = dict(ended)
    for state in states:
        # what was refused as it arrived had no run
        if state.attempt > 0 or state.state in TAKEN:
            served[state.source] = max(times.written(state), served.get(state.source, NEVER))
    return sorted(
        waiting,
        key=lambda state: (served.get(state.source, NEVER), times.arrived(state.version), state.run_id),
    )
