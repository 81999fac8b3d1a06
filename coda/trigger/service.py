"""The trigger: from a manifest in the landing prefix to exactly one run, and from its end to a state in the ledger.

Everything it knows is in the ledger. It may be killed anywhere: what it was doing is found again by its next start,
or by another trigger once nobody gave a sign of life for the length of the lease.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from queue import SimpleQueue
from typing import TypeVar, Unpack

from coda.config import Params
from coda.contracts import FailureRecord, RunRecord
from coda.errors import CodaError, ConfigError, ServiceRefusedError, TransientError
from coda.runners.submit import Request, Submitter
from coda.settings import Settings
from coda.steps.context import read_failure
from coda.steps.record import read_run
from coda.storage.objects import store_for
from coda.storage.probe import require_conditional_writes
from coda.storage.records import UnreadableRecordError
from coda.trigger.arrivals import Arrivals
from coda.trigger.endings import ending_of
from coda.trigger.event_source import SourceContext
from coda.trigger.failure_page import write_page
from coda.trigger.interventions import mend
from coda.trigger.ledger import TAKEN, Counted, Ledger, LedgerState, State
from coda.trigger.logs import about
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.pace import Handled, Pace
from coda.trigger.readiness import Readiness
from coda.trigger.reopening import reopen
from coda.trigger.rounds import Rounds
from coda.trigger.rows_without_report import note_end
from coda.trigger.states import Survey
from coda.trigger.training import TrainingSource
from coda.trigger.troubles import Troubles, reasons_of
from coda.trigger.turns import in_turn

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

__all__ = ["Handled", "Pace", "Trigger"]


class Trigger:
    """Claims batch versions, has them run, and writes down what became of them."""

    def __init__(
        self,
        settings: Settings,
        submitter: Submitter,
        *,
        params: Params,
        ignore_sources: Collection[str] = (),
        events: Iterable[str] | None = None,
        pace: Pace | None = None,
        owner: str | None = None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            settings: Where the services are.
            submitter: Starts the runs.
            params: Parameters of the runs.
            ignore_sources: Sources whose batches start nothing; the default release's own source is always one.
            events: Event sources, each ``NAME`` or ``NAME=WHERE`` (`coda.trigger.event_sources`); when not given, the
                list of the landing prefix, and the queue where one is configured.
            pace: How patient to be.
            owner: Name of this process in the ledger.
        """
        self.settings = settings
        self.params = params
        self.pace = pace or Pace()
        self.metrics = TriggerMetrics()
        self.stopping = threading.Event()
        self.nudged = threading.Event()
        self.ledger = Ledger(store_for(settings.platform, settings), owner)
        self.rounds = Rounds(self.ledger)
        if events is None:
            events = ("poll", "queue") if settings.queue_url else ("poll",)
        landing = store_for(settings.landing, settings)
        context = SourceContext(settings, landing, self.ledger, self.rounds, self.metrics, self._ignored, self.take)
        self.arrivals = Arrivals(context, events, self._ended)
        self._readiness = Readiness(self.arrivals.landing, self.ledger, settings)
        self._submitter = submitter
        self._training = TrainingSource(settings)
        self._troubles = Troubles(self.metrics)
        self._ignore = frozenset(ignore_sources)
        self._flights: dict[str, LedgerState] = {}
        self._beaten: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._handled: SimpleQueue[Handled] = SimpleQueue()
        self._failed_submissions = 0
        self._refusal: CodaError | None = None

    def run_once(self) -> list[Handled]:
        """Poll once, run everything that can run, wait for the ends, and return what ended.

        Batches that still miss files stay landed for a later look.

        Raises:
            TransientError: The object store, the queue or the submitter's service stayed away. Nothing is lost.
        """
        self.look(everything=True)
        while self.advance() and not self.stopping.is_set():
            if self._failed_submissions >= self.pace.attempts:
                if isinstance(self._refusal, ConfigError):
                    raise self._refusal
                raise TransientError("Runs cannot be submitted at the moment; the batches stay claimed for later.")
            self.stopping.wait(self.pace.tick_s)
        return self.taken()

    def look(self, *, wait_s: int = 0, everything: bool = False) -> None:
        """Poll the event sources for arrivals; see `coda.trigger.arrivals.Arrivals.look`.

        Raises:
            ConfigError: The object store would let several triggers have one claim.
        """
        require_conditional_writes(self.ledger.store)
        self.arrivals.look(wait_s=wait_s, everything=everything)

    def take(self, key: str) -> bool:
        """Write down the manifest at a key of the landing prefix, and have the next round come soon; for any thread.

        Returns:
            True: what is at the key is in the ledger, or is nothing that belongs there.

        Raises:
            TransientError: The object store is away.
        """
        taken = self.arrivals.take(key)
        self.nudged.set()
        return taken

    def taken(self) -> list[Handled]:
        """Return what ended since this was last asked."""
        handled = []
        while not self._handled.empty():
            handled.append(self._handled.get())
        return handled

    def advance(self) -> bool:
        """Move every open batch version on by what can be done now; return whether more is to be done soon.

        Raises:
            TransientError: A service is away.
            ConfigError: A setting must be put right first, or the object store would let several triggers have one
                claim.
        """
        require_conditional_writes(self.ledger.store)
        for run_id, state in list(self._flights.items()):
            if self._due(run_id):
                self._cared(state, lambda run_id=run_id: self._watch(run_id), None)  # type: ignore[misc]
        states = self._survey()
        # batches of the training source that landed before there was a release stay where they are
        idle = self._ignored()
        open_ = [state for state in states if not state.final and (state.source not in idle or state.state != "landed")]
        self.metrics.measure(states, open_, self.ledger)
        taken = [state for state in open_ if state.state in TAKEN and self._looked_after(state)]
        running, busy = {state.run_id for state in taken}, {state.source for state in taken}
        landed = [state for state in open_ if state.state == "landed"]
        # a run that was just found dead has its next try within seconds
        soon = any(state.run_id in self._not_before for state in open_ if state.state in TAKEN)
        for state in in_turn(states, landed, self.ledger, self.rounds.ended.served):
            if len(running) >= self.pace.parallel or state.source in busy:
                # its turn comes when a run of ours ends; a run of another trigger is not waited for
                soon = soon or bool(self._flights)
            elif self._due(state.run_id):
                if self._cared(state, lambda state=state: self._start(state), False):  # type: ignore[misc]  # noqa: FBT003
                    running.add(state.run_id)
                    busy.add(state.source)
                soon = soon or state.run_id in self._not_before
            else:
                soon = True
        return soon or bool(self._flights)

    def stop(self, grace_s: float = 20.0) -> None:
        """Stop at the next chance: runs that die with this process go back to landed, and resume where they stopped."""
        self.stopping.set()
        for run_id in self._submitter.stop(grace_s):
            state = self._flights.pop(run_id, None)
            if state is not None:
                self.ledger.append(
                    state.version, "landed", after=state, reasons=("the trigger was stopped; the run resumes later",),
                    attempt=max(state.attempt - 1, 0),
                )  # fmt: skip

    def _survey(self) -> list[LedgerState]:
        """Return the newest state of every version that has not ended for good.

        What cannot be read is mended before, and what was held is opened.
        """
        survey = self.rounds.survey()
        mended = [mend(self.ledger, item, self.arrivals.landing) for item in survey.unreadable]
        for state in filter(None, mended):
            self._ended(state)
        if any(mended) or reopen(self.ledger, survey.states, self.pace, self.rounds.ended.well):
            survey = self.rounds.survey()
        self._troubles.unreadable(survey, self._training.trouble)
        self._let_go(survey)
        return list(survey.states)

    def _cared(self, state: LedgerState, act: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Do something about one version; what goes wrong with it alone ends or delays it alone.

        Args:
            state: Its newest state.
            act: What is done.
            otherwise: What to return when that went wrong.

        Raises:
            TransientError: A service is away.
            ConfigError: A setting must be put right first.
        """
        try:
            answer = act()
        except (TransientError, ConfigError):
            raise
        except UnreadableRecordError as error:
            # in the run's own folder: it would be the same at every further look
            self._end(state, "failed", reasons_of(error), cause="record")
        except Exception as error:  # noqa: BLE001  told with its traceback; it must not stop the other versions
            count = self._troubles.met(state, error)
            if count >= self.pace.attempts:
                self._troubles.over(state.run_id)
                self._end(state, "failed", reasons_of(error), cause="defect")
            else:
                self._not_before[state.run_id] = time.monotonic() + self._pause(count)
        else:
            self._troubles.over(state.run_id)
            return answer
        return otherwise

    def _looked_after(self, state: LedgerState) -> bool:
        """Return whether a version that is taken is in somebody's care, and so keeps its source busy."""
        if state.run_id in self._flights or not self._due(state.run_id):
            return True
        return self._cared(state, lambda: self._recover(state), True)  # noqa: FBT003

    def _let_go(self, survey: Survey) -> None:
        """Forget the runs that another trigger, or a person, took from this one or brought to their end."""
        newest = {state.run_id: state for state in survey.states}
        broken = {item.folder for item in survey.unreadable}
        for run_id, mine in list(self._flights.items()):
            state = newest.get(run_id)
            if (state is None and mine.version.folder not in broken) or (state and state.sequence > mine.sequence):
                words = " ".join(state.reasons) if state else "it has ended"
                log.warning("%s is no longer ours: %s.", run_id, words, extra=about(state or mine))
                del self._flights[run_id]

    def _start(self, state: LedgerState) -> bool:
        version = state.version
        if self._training.source() is None:
            message = "%s waits: there is no default release to adapt from; train first."
            log.info(message, version.run_id, extra=about(state))
            return False
        ready = self._readiness.of(state, self.pace)
        if ready.gone:
            self._end(state, "refused", ("the manifest was removed or replaced before this version was run",))
            self.arrivals.hasten(version.key)
        if not ready.run:
            return False
        first = self.ledger.claim(version)
        if not first and state.sequence == 1 and self._silent(state) < self.pace.lease_s:
            return False  # another trigger is just about to write 'claimed'
        claimed = self.ledger.append(version, "claimed", after=state, reasons=ready.remarks)
        if claimed is None:
            return False
        if first and ready.manifest is not None:
            self.metrics.claims.labels(source=version.source).inc()
            self.metrics.claimed_after(ready.manifest.created_at)
        log.info("%s is claimed.", version.run_id, extra=about(claimed))
        return self._has_room(claimed) and self._submit(claimed)

    def _has_room(self, claimed: LedgerState) -> bool:
        """Return whether a claimed version may be run now; else give the claim back.

        Two triggers may claim two versions of one source, or of the last place, at the same moment. Each writes its
        claim before it looks, so at least one of them sees the other; whoever sees another one steps back for a moment
        of random length.
        """
        others = [
            state for state in self.rounds.survey().states if state.state in TAKEN and state.run_id != claimed.run_id
        ]  # fmt: skip
        same = [state for state in others if state.source == claimed.source]
        if not same and len(others) < self.pace.parallel:
            return True
        self._not_before[claimed.run_id] = time.monotonic() + random.uniform(0.5, 1.5) * self.pace.backoff_s  # noqa: S311
        waits = (f"waits for {(same or others)[0].run_id}",)
        self.ledger.append(claimed.version, "landed", after=claimed, reasons=waits)
        return False

    def _submit(self, state: LedgerState) -> bool:
        version = state.version
        uri = self.arrivals.landing.url(version.key)
        try:
            self._submitter.submit(Request(version.run_id, uri, version.digest, self.params))
        except ServiceRefusedError as error:
            # nothing was judged, and asking again would not help: the batch waits as it was until somebody acts
            self.ledger.append(version, "landed", after=state, reasons=(error.message, *map(str, error.problems)))
            raise
        except (TransientError, ConfigError) as error:
            # what is away, or waits for the operator, says nothing of this batch, and uses up none of its tries
            self._failed_submissions += 1
            self._refusal = error
            told = (f"could not be submitted: {error.message}", *map(str, error.problems[:3]))
            self._postpone(state, told, self._failed_submissions)
            return False
        except CodaError as error:
            self._end(state, "failed", (error.message, *map(str, error.problems)))
            return False
        self._failed_submissions, self._refusal = 0, None
        self._not_before.pop(version.run_id, None)
        running = self.ledger.append(version, "running", after=state, attempt=state.attempt + 1, lost=state.lost)
        if running is not None:
            log.info("%s is submitted, attempt %d.", version.run_id, running.attempt, extra=about(running))
            self._flights[version.run_id] = running
            self._beat(running)
        return running is not None

    def _watch(self, run_id: str) -> None:
        state = self._flights[run_id]
        if self._submitter.alive(run_id):
            self._beat(state)
            return
        self._conclude(state)
        self._flights.pop(run_id, None)

    def _recover(self, state: LedgerState) -> bool:
        """Take over a run that another trigger, or an earlier process of this one, began and left.

        Returns:
            Whether somebody looks after it now, this trigger or another.
        """
        if self._silent(state) < self.pace.lease_s:
            return True
        log.warning("%s: no sign of life from %s; taking over.", state.run_id, state.owner, extra=about(state))
        if not self._submitter.alive(state.run_id):
            self._conclude(state)
            return False
        adopted = self.ledger.append(
            state.version, "running", after=state, reasons=(f"taken over from {state.owner}",),
            attempt=max(1, state.attempt),
        )  # fmt: skip
        if adopted is not None:
            self._flights[state.run_id] = adopted
            self._beat(adopted)
        return True

    def _conclude(self, state: LedgerState) -> None:
        """Write down how a run that is not alive ended, or have it run again."""
        words = self._submitter.last_words(state.run_id)
        failure: FailureRecord | CodaError | None
        record = read_run(state.run_id, self.settings)
        try:
            failure = read_failure(state.run_id, self.settings)
        except UnreadableRecordError as error:
            failure = error
        ending = ending_of(state, record, failure, words, self.pace)
        if ending.again:
            self._postpone(state, ending.reasons, ending.failures, cause=ending.cause, lost=ending.lost)
        else:
            self._end(state, ending.state, ending.reasons, record, cause=ending.cause, lost=ending.lost)

    def _pause(self, failures: int) -> float:
        return min(300.0, self.pace.backoff_s * 2.0 ** min(20, max(0, failures - 1)))

    def _postpone(
        self, state: LedgerState, reasons: tuple[str, ...], failures: int, **counted: Unpack[Counted]
    ) -> None:
        pause = self._pause(failures)
        self._not_before[state.run_id] = time.monotonic() + pause
        log.warning("%s again in %.0f s: %s", state.run_id, pause, " ".join(reasons), extra=about(state))
        told = (*reasons, f"again in {pause:.0f} s")
        self.ledger.append(state.version, "landed", after=state, reasons=told, **counted)

    def _end(
        self,
        state: LedgerState,
        ending: State,
        reasons: tuple[str, ...],
        record: RunRecord | None = None,
        **counted: Unpack[Counted],
    ) -> None:
        self._not_before.pop(state.run_id, None)
        self._beaten.pop(state.run_id, None)
        self._flights.pop(state.run_id, None)
        if ending == "failed":
            reasons = (*reasons, f"When this is put right: coda ledger retry {state.source}/{state.batch}")
        new = self.ledger.append(state.version, ending, after=state, reasons=reasons, **counted)
        if new is not None:
            self._ended(new, record)

    def _ended(self, state: LedgerState, record: RunRecord | None = None) -> None:
        self.metrics.runs.labels(pipeline="adaptation", outcome=state.state).inc()
        if state.state == "failed":
            self.metrics.last_failure.labels(source=state.source).set_to_current_time()
            write_page(self.ledger, state)
        note_end(self.ledger.store, self.arrivals.landing, state, record)
        log.info("%s: %s. %s", state.run_id, state.state, " ".join(state.reasons), extra=about(state))
        self._handled.put(
            Handled(state.source, state.batch, state.manifest_digest, state.run_id, state.state, state.reasons)
        )

    def _due(self, run_id: str) -> bool:
        return time.monotonic() >= self._not_before.get(run_id, float("-inf"))

    def _silent(self, state: LedgerState) -> float:
        return self.ledger.silence(state).total_seconds()

    def _beat(self, state: LedgerState) -> None:
        if time.monotonic() - self._beaten.get(state.run_id, float("-inf")) >= self.pace.lease_s / 4:
            self.ledger.beat(state.version)
            self._beaten[state.run_id] = time.monotonic()

    def _ignored(self) -> frozenset[str]:
        training = self._training.source()
        return self._ignore | {training} if training else self._ignore
