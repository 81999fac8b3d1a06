"""What the machines held up is opened again when they are well: a few times, each time later."""

from collections.abc import Iterable
from datetime import datetime

from coda.trigger.ledger import Ledger
from coda.trigger.pace import Pace
from coda.trigger.states import REOPENINGS, LedgerState

WELL = frozenset({"released", "incumbent_kept", "held"})
"""Ends of a run that went through all its steps."""


def reopen(ledger: Ledger, states: Iterable[LedgerState], pace: Pace, well: datetime | None) -> list[LedgerState]:
    """Open again what was held for lost machines, services that were away, or a defect of ours; return what was opened.

    It is due when a run of another batch went through since it was held, or by and by: after an hour, then two, then
    four. Then a person must look. Which came first is asked of the store's clock, and all of it is in the ledger, so a
    restart forgets nothing.

    Args:
        ledger: The ledger, after a survey.
        states: Newest state of every version that has not ended for good.
        pace: How long to wait.
        well: When a run last went through all its steps.
    """
    opened = []
    for state in (state for state in states if state.reopens):
        if well is not None and well > ledger.written(state):
            why = "a run of another batch went through since"
        elif ledger.silence(state).total_seconds() >= pace.reopen_s * 2**state.reopened:
            why = "some time has passed"
        else:
            continue
        count = state.reopened + 1
        # one more loss is enough to hold it again: a batch that itself brings its machine down must not do so for ever
        lost = max(0, pace.losses - 1) if state.cause == "lost" else 0
        new = ledger.append(
            state.version, "landed", after=state, attempt=lost, lost=lost, cause=state.cause, reopened=count,
            reasons=(f"opened again by itself, {count} of at most {REOPENINGS} times: {why}",),
        )  # fmt: skip
        if new is not None:
            opened.append(new)
    return opened
