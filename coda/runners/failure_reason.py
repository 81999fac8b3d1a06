"""Why a run failed, as the failed step reported it."""

import re
from collections.abc import Iterable

from coda.contracts import FailureRecord
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, Problem, TransientError
from coda.runners.memory import killed_for_memory, memory_error
from coda.settings import Settings
from coda.steps.context import NO_ROOM_WORDS, NOT_STORED, no_room, read_failure

BY_CODE: dict[int, type[CodaError]] = {
    kind.exit_code: kind for kind in (ConfigError, ContractError, IntegrityError, TransientError)
}
"""Exit code of a step -> the error with that code."""

SHOWN = 12
"""Last lines of the log shown when a step left no reason."""

_OF_KFP = re.compile(r"^\d\d:\d\d:\d\d\.\d+ - [A-Z]+ - |^\[KFP Executor")
_EXCEPTION = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b")


def reason(
    run_id: str, settings: Settings, *, failed: Iterable[str] = (), tail: Iterable[str] = (), log: str = ""
) -> CodaError:
    """Return the error that tells why a run failed.

    Args:
        run_id: The run.
        settings: Where the platform bucket is.
        failed: Steps the runner reported as failed, in order: the first is the cause.
        tail: Last lines of the log when it failed.
        log: Where the whole log is.

    Returns:
        The step's own error when it could record one (type, exit code, message, problems); else an error with the
        last lines of the log: a step that was killed records nothing.
    """
    steps = [name.replace("-", "_") for name in failed]
    lines = [line for line in tail if not _OF_KFP.search(line)][-SHOWN:]
    try:
        recorded = read_failure(run_id, settings)
    except TransientError as error:
        return _away(steps, error, lines, log)
    except CodaError:
        recorded = None  # what hides the reason may be why the step failed: the log has it
    if recorded is not None and (not steps or _same(recorded.step, steps)):
        return as_error(recorded, log)
    if any(NOT_STORED in line for line in lines):
        return _away(steps, None, lines, log)
    return _by_log(_first(steps), lines, log)


def _by_log(name: str, lines: list[str], log: str) -> CodaError:
    """Return the error of a step that recorded none, by the last lines of its log."""
    killed = [line for line in lines if killed_for_memory(line)]
    if killed:
        return memory_error(name, killed[-1], log)
    full = [line for line in lines if any(words in line.lower() for words in NO_ROOM_WORDS)]
    if full:
        return no_room(name, OSError(full[-1]))
    whole = f"The whole log: {log or 'see the runner'}."
    thrown = [line for line in lines if _EXCEPTION.match(line)]
    if thrown:
        problem = Problem(name, thrown[-1], "a step that can start", whole)
        return CodaError(f"Step '{name}' failed before it could record why.", [problem])
    found = " | ".join(lines) if lines else "nothing in its log"
    problem = Problem(
        name, found, "a step that ends or says why not", f"Was it killed, for want of memory say? {whole}"
    )
    return CodaError(f"Step '{name}' failed without leaving a reason.", [problem])


def as_error(failure: FailureRecord, log: str = "") -> CodaError:
    """Return a recorded failure as the error it was, to be raised where the user is."""
    kind = BY_CODE.get(failure.exit_code, CodaError)
    ending = f" (log: {log})" if log and kind is CodaError else ""
    return kind(f"Step '{failure.step}' failed: {failure.message}{ending}", [item.problem for item in failure.problems])


def _away(steps: list[str], error: TransientError | None, lines: list[str], log: str) -> TransientError:
    """Return the failure of a step that could not record its reason, since the object store was away."""
    told = [line.partition(": ")[2] for line in lines if line.startswith("Step '")]
    found = told[-1] if told else error.message if error else "no answer from the object store"
    remedy = f"Nothing is lost; the run resumes from this step when it is started again. The whole log: {log}."
    problem = Problem(_first(steps), found, "an object store that answers", remedy)
    return TransientError(f"Step '{_first(steps)}' failed while the object store was away.", [problem])


def _first(steps: list[str]) -> str:
    return steps[0] if steps else "one of the steps"


def _same(recorded: str, steps: list[str]) -> bool:
    # the record of a run is written by the report's task under a name of its own
    return recorded in steps or (recorded == "finish" and "report" in steps)
