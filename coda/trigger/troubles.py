"""What went wrong with one batch version, and ended nothing but it: reported to monitoring, and tried again later."""

import logging
from collections import Counter

from coda.errors import CodaError
from coda.trigger.logs import about
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.states import LedgerState, Survey

log = logging.getLogger(__name__)


class Troubles:
    """Defects met with one version at a time, and records that cannot be read."""

    def __init__(self, metrics: TriggerMetrics) -> None:
        """Count into these metrics."""
        self._metrics = metrics
        self._in_a_row: Counter[str] = Counter()
        self._told: set[str] = set()

    def met(self, state: LedgerState, error: Exception) -> int:
        """Tell of an error with its traceback; return how often this version met one in a row."""
        self._metrics.defects.labels(outcome="version").inc()
        self._in_a_row[state.run_id] += 1
        log.error("%s could not be looked after.", state.run_id, extra=about(state), exc_info=error)
        return self._in_a_row[state.run_id]

    def over(self, run_id: str) -> None:
        """Forget a version's troubles: it was looked after without one."""
        self._in_a_row.pop(run_id, None)

    def unreadable(self, survey: Survey, pointer: str) -> None:
        """Tell, once each, of states that cannot be read and are nobody's to mend, and count them.

        Args:
            survey: What the ledger holds.
            pointer: What is wrong with the default release's pointer; empty for nothing.
        """
        for item in survey.unreadable:
            if item.key not in self._told:
                log.error("A state in the ledger cannot be read: %s", item.problem)
        self._told = {item.key for item in survey.unreadable}
        self._metrics.unreadable.labels(outcome="state").set(len(survey.unreadable))
        self._metrics.unreadable.labels(outcome="pointer").set(int(bool(pointer)))


def reasons_of(error: Exception) -> tuple[str, ...]:
    """Return an error's messages for a person."""
    if isinstance(error, CodaError):
        return (error.message, *map(str, error.problems))
    return (f"a defect of the trigger, {type(error).__name__}: {' '.join(str(error).split())[:300]}",)
