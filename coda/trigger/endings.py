"""How a run that is no longer alive ended, and what follows: by the class of its error, within a limit."""

from dataclasses import dataclass

from coda.contracts import RunRecord
from coda.errors import ContractError, TransientError
from coda.steps.context import Failure
from coda.trigger.ledger import LedgerState, State

READING = frozenset({"ingest", "archive", "validate", "quality_verdict"})
"""Steps before anything is registered: what they cannot use is the delivery's fault, and the batch is refused."""


@dataclass(frozen=True)
class Ending:
    """What a run's end means for its batch version.

    Attributes:
        state: Next state; 'landed' to have it run again.
        reasons: Why, in plain words.
    """

    state: State
    reasons: tuple[str, ...]

    @property
    def again(self) -> bool:
        """Whether the version is to be run again by itself."""
        return self.state == "landed"


def ending_of(
    state: LedgerState, record: RunRecord | None, failure: Failure | None, last_words: str, attempts: int
) -> Ending:
    """Decide what follows from the end of a run.

    A record is a result, whatever it says. A delivery that the reading steps cannot use is refused. A service that was
    away, a killed process and an end without a reason are tried again, up to the limit. All other errors last, and are
    not tried again. What is not tried again is held for a person.

    Args:
        state: The state of the version while it ran.
        record: What the run recorded at its end; none when it did not get there.
        failure: Why a step failed; none when no step said so.
        last_words: End of what the run printed, where that can be seen.
        attempts: Times a run is submitted at most.
    """
    if record is not None:
        return Ending(record.outcome, (record.sentence,))
    if failure is None:
        reason = "the run ended without leaving a reason"
        reasons: tuple[str, ...] = (f"{reason}; it last said: {last_words}",) if last_words else (reason,)
    elif failure.exit_code == ContractError.exit_code and failure.step in READING:
        return Ending("refused", (failure.message, *map(str, failure.problems)))
    else:
        reasons = tuple(str(failure).splitlines())
        if failure.exit_code != TransientError.exit_code:
            return Ending("failed", reasons)
    if state.attempt >= attempts:
        return Ending("failed", (*reasons, f"tried {state.attempt} times; held for a person"))
    return Ending("landed", reasons)
