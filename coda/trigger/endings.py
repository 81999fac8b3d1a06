"""How a run that is no longer alive ended, and what follows: by the class of its error, within limits.

Three budgets, since three parties may be to blame. What the delivery or the platform is to blame for lasts, and is not
tried again. A service that was away is tried a few times. A run that was lost with its machine (a killed pod, a node
that was taken back, a process told to stop) says nothing of the batch at all: it has a larger budget of its own, and
what is held for it in the end is opened again by itself (`coda.trigger.reopening`).
"""

from dataclasses import dataclass

from coda.contracts import FailureRecord, RunRecord
from coda.errors import CodaError, ContractError, StoppedError, TransientError
from coda.runners.memory import REMEDY, killed_for_memory
from coda.steps.declarations import STEPS
from coda.trigger.pace import Pace
from coda.trigger.states import LedgerState, State

READING = frozenset(step.name for step in STEPS.values() if step.reads)
"""Steps before anything is registered: what they cannot use is the delivery's fault, and the batch is refused."""


@dataclass(frozen=True)
class Ending:
    """What a run's end means for its batch version.

    Attributes:
        state: Next state; 'landed' to have it run again.
        reasons: Why, in plain words.
        cause: What held it up, where the batch is not to blame; see `LedgerState`.
        lost: Times it was lost with its machine, this one included.
        failures: Times in a row that this kind of end was met: the pause before the next try grows with it.
    """

    state: State
    reasons: tuple[str, ...]
    cause: str = ""
    lost: int = 0
    failures: int = 0

    @property
    def again(self) -> bool:
        """Whether the version is to be run again by itself."""
        return self.state == "landed"


def ending_of(
    state: LedgerState, record: RunRecord | None, failure: FailureRecord | CodaError | None, last_words: str, pace: Pace
) -> Ending:
    """Decide what follows from the end of a run.

    A record is a result, whatever it says. A delivery that the reading steps cannot use is refused.

    Args:
        state: The state of the version while it ran.
        record: What the run recorded at its end; none when it did not get there.
        failure: Why a step failed; an error where it left a reason that cannot be read; none when no step said so.
        last_words: End of what the run printed, where that can be seen.
        pace: The budgets.
    """
    if record is not None:
        return Ending(record.outcome, (record.sentence,), lost=state.lost)
    if failure is None:
        reason = "the run ended without leaving a reason"
        if killed_for_memory(last_words):
            # no machine was lost: with the same memory the same comes of it, so a person decides in the end
            return _away(state, (f"a step was killed for want of memory: {last_words}", REMEDY), pace, "memory")
        return _lost(state, (f"{reason}; it last said: {last_words}",) if last_words else (reason,), pace)
    if isinstance(failure, CodaError):
        found = tuple(map(str, failure.problems))
        return _away(state, (f"the run left a reason that cannot be read: {failure.message}", *found), pace)
    return _failed(state, failure, pace)


def _failed(state: LedgerState, failure: FailureRecord, pace: Pace) -> Ending:
    reasons = tuple(str(failure).splitlines())
    if failure.exit_code == ContractError.exit_code and failure.step in READING:
        return Ending("refused", (failure.message, *(str(item.problem) for item in failure.problems)), lost=state.lost)
    if failure.error == StoppedError.__name__:
        return _lost(state, reasons, pace)
    if failure.exit_code == TransientError.exit_code:
        return _away(state, reasons, pace)
    return Ending("failed", reasons, lost=state.lost)


def _lost(state: LedgerState, reasons: tuple[str, ...], pace: Pace) -> Ending:
    lost = state.lost + 1
    if lost < pace.losses:
        return Ending("landed", (*reasons, f"lost {lost} of at most {pace.losses} times"), "lost", lost, lost)
    return Ending("failed", (*reasons, f"lost {lost} times with its machine"), "lost", lost)


def _away(state: LedgerState, reasons: tuple[str, ...], pace: Pace, cause: str = "away") -> Ending:
    tries = max(1, state.attempt - state.lost)
    if tries < pace.attempts:
        return Ending("landed", reasons, cause, state.lost, tries)
    return Ending("failed", (*reasons, f"tried {tries} times; held for a person"), cause, state.lost)
