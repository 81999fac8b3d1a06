"""The trigger: from a manifest in the landing prefix to exactly one run, and from its end to a state in the ledger.

Everything it knows is in the ledger. It may be killed anywhere: what it was doing is found again by its next start,
or by another trigger once nobody gave a sign of life for the length of the lease.
"""

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from coda.config import Params
from coda.contracts import BatchManifest
from coda.errors import CodaError, ContractError, TransientError
from coda.registry.releases import DEFAULT_SCOPE, ReleaseLog
from coda.settings import Settings
from coda.steps.context import Failure, read_failure
from coda.steps.record import read_run
from coda.storage.objects import store_for
from coda.trigger.arrivals import Arrivals
from coda.trigger.batches import BatchVersion, in_words, missing_files, read_arrival
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.submit import Request, Submitter

log = logging.getLogger(__name__)

READING = frozenset({"ingest", "archive", "validate", "quality_verdict"})
"""Steps before anything is registered: what they cannot use is the delivery's fault, and the batch is refused."""


@dataclass(frozen=True)
class Handled:
    """One batch version that came to its end while this trigger looked.

    Attributes:
        source: Laboratory.
        batch: Batch.
        digest: Digest of the manifest.
        run_id: Its run.
        state: 'released', 'incumbent_kept', 'held', 'refused' or 'failed'.
        reasons: Why, in plain words.
    """

    source: str
    batch: str
    digest: str
    run_id: str
    state: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Pace:
    """How patient the trigger is.

    Attributes:
        parallel: Runs at a time in all; never more than one a source.
        lease_s: Seconds without a sign of life after which a run is taken over.
        attempts: Times a run is submitted before a person must look.
        backoff_s: Seconds before the second submission; doubled each time, at most 300.
        tick_s: Seconds between two looks at the runs.
        patience_s: Seconds that a batch waits for files its manifest lists; then it is run as it is, and quality
            control says which plates are missing.
        recheck_s: Seconds between two looks for the missing files of a batch.
    """

    parallel: int = 1
    lease_s: float = 120.0
    attempts: int = 3
    backoff_s: float = 10.0
    tick_s: float = 0.5
    patience_s: float = 6 * 3600.0
    recheck_s: float = 0.0


class Trigger:
    """Claims batch versions, has them run, and writes down what became of them."""

    def __init__(
        self,
        settings: Settings,
        submitter: Submitter,
        *,
        params: Params,
        ignore_sources: Collection[str] = (),
        poll: bool = True,
        queue: bool = True,
        pace: Pace | None = None,
        owner: str | None = None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            settings: Where the services are.
            submitter: Starts the runs.
            params: Parameters of the runs.
            ignore_sources: Sources whose batches start nothing; the default release's own source is always one.
            poll: List the landing prefix.
            queue: Read the queue, when one is configured.
            pace: How patient to be.
            owner: Name of this process in the ledger.
        """
        self.settings = settings
        self.params = params
        self.pace = pace or Pace()
        self.metrics = TriggerMetrics()
        self.stopping = threading.Event()
        self.ledger = Ledger(store_for(settings.platform, settings), owner)
        self.arrivals = Arrivals(settings, self.ledger, self.metrics, ignored=self._ignored, poll=poll, queue=queue)
        self._submitter = submitter
        self._releases = ReleaseLog(settings)
        self._ignore = frozenset(ignore_sources)
        self._training_source: str | None = None
        self._flights: dict[str, LedgerState] = {}
        self._beaten: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._recheck: dict[str, float] = {}
        self._handled: list[Handled] = []
        self._failed_submissions = 0

    def run_once(self) -> list[Handled]:
        """Look once, run everything that can run, wait for the ends, and return what ended.

        Batches that still miss files stay landed for a later look.

        Raises:
            TransientError: The object store, the queue or the submitter's service stayed away. Nothing is lost.
        """
        self.look()
        while self.advance() and not self.stopping.is_set():
            if self._failed_submissions >= self.pace.attempts:
                raise TransientError("Runs cannot be submitted at the moment; the batches stay claimed for later.")
            self.stopping.wait(self.pace.tick_s)
        return self.taken()

    def look(self, *, wait_s: int = 0, poll_every_s: float = 0.0) -> None:
        """Look for arrivals in queue and landing prefix."""
        for state in self.arrivals.look(wait_s=wait_s, poll_every_s=poll_every_s):
            self._ended(state)

    def taken(self) -> list[Handled]:
        """Return what ended since this was last asked."""
        handled, self._handled = self._handled, []
        return handled

    def advance(self) -> bool:
        """Move every open batch version on by what can be done now; return whether more is to be done soon."""
        for run_id in list(self._flights):
            self._watch(run_id)
        states = list(self.ledger.newest())
        # batches of the training source that landed before there was a release stay where they are
        idle = self._ignored()
        open_ = sorted(
            (state for state in states if not state.final and (state.source not in idle or state.state != "landed")),
            key=lambda state: state.at,
        )
        self._measure(states, open_)
        busy = {state.source for state in open_ if state.state != "landed"}
        soon = False
        for state in open_:
            if state.run_id in self._flights:
                continue
            if state.state != "landed":
                self._recover(state)
            elif len(self._flights) >= self.pace.parallel or state.source in busy:
                # its turn comes when a run of ours ends; a run of another trigger is not waited for
                soon = soon or bool(self._flights)
            elif self._due(state.run_id):
                if self._start(state):
                    busy.add(state.source)
                soon = soon or state.run_id in self._not_before
            else:
                soon = True
        return soon or bool(self._flights)

    def stop(self, grace_s: float = 20.0) -> None:
        """Stop at the next chance: runs that die with this process go back to landed, and go on where they stopped."""
        self.stopping.set()
        for run_id in self._submitter.stop(grace_s):
            state = self._flights.pop(run_id, None)
            if state is not None:
                self.ledger.append(
                    state.version, "landed", after=state, reasons=("the trigger was stopped; the run goes on later",),
                    attempt=max(state.attempt - 1, 0),
                )  # fmt: skip

    def _start(self, state: LedgerState) -> bool:
        version = state.version
        found = self._runnable(state)
        if found is None:
            return False
        manifest, remarks = found
        if not self.ledger.claim(version) and state.sequence == 1 and self._silent(state) < self.pace.lease_s:
            return False  # another trigger is just about to write 'claimed'
        claimed = self.ledger.append(version, "claimed", after=state, reasons=remarks)
        if claimed is None:
            return False
        if state.sequence == 1 and manifest is not None:
            self.metrics.claims.labels(source=version.source).inc()
            self.metrics.lag.observe(max(0.0, (datetime.now(UTC) - manifest.created_at).total_seconds()))
        return self._submit(claimed)

    def _runnable(self, state: LedgerState) -> tuple[BatchManifest | None, tuple[str, ...]] | None:
        """Return the manifest of a landed version that can be run now, and what is remarkable about that, or None.

        A version that is gone before anything was run is ended. One whose run was started goes on without its
        manifest: it may have released, and only the run itself knows.
        """
        version = state.version
        if time.monotonic() < self._recheck.get(state.run_id, float("-inf")):
            return None
        arrival = read_arrival(self.arrivals.landing, version.key)
        history = self.ledger.states(version)
        if arrival is None or arrival.manifest is None or arrival.version.digest != version.digest:
            return self._replaced(state, history)
        waited = (datetime.now(UTC) - history[0].at).total_seconds()
        missing = missing_files(self.arrivals.landing, version, arrival.manifest)
        if missing and waited < self.pace.patience_s:
            self._recheck[state.run_id] = time.monotonic() + self.pace.recheck_s
            return None
        self._recheck.pop(state.run_id, None)
        if self._training() is None:
            log.info("%s waits: there is no default release to adapt from; train first.", version.run_id)
            return None
        if not missing:
            return arrival.manifest, ()
        told = f"{missing.count} file(s) of the manifest did not come within {_duration(self.pace.patience_s)}"
        return arrival.manifest, (f"{told}; what is there is judged as it is", *in_words(missing.problems))

    def _replaced(
        self, state: LedgerState, history: tuple[LedgerState, ...]
    ) -> tuple[BatchManifest | None, tuple[str, ...]] | None:
        if any(item.state == "claimed" for item in history):
            return None, ("the manifest was removed or replaced while this version was run",)
        self._end(state, "refused", ("the manifest was removed or replaced before this version was run",))
        return None

    def _submit(self, state: LedgerState) -> bool:
        version = state.version
        uri = self.arrivals.landing.url(version.key)
        try:
            self._submitter.submit(Request(version.run_id, uri, version.digest, self.params))
        except TransientError as error:
            self._failed_submissions += 1
            self._postpone(state, (f"could not be submitted: {error.message}",), self._failed_submissions)
            return False
        except CodaError as error:
            self._end(state, "failed", (error.message, *map(str, error.problems)))
            return False
        self._failed_submissions = 0
        self._not_before.pop(version.run_id, None)
        running = self.ledger.append(version, "running", after=state, attempt=state.attempt + 1)
        if running is not None:
            self._flights[version.run_id] = running
            self._beat(running)
        return running is not None

    def _watch(self, run_id: str) -> None:
        state = self._flights[run_id]
        if self._submitter.alive(run_id):
            self._beat(state)
            return
        self._conclude(state)
        del self._flights[run_id]

    def _recover(self, state: LedgerState) -> None:
        """Look after a run that another trigger, or an earlier life of this one, began and left."""
        if self._silent(state) < self.pace.lease_s:
            return
        log.warning("%s: no sign of life from %s; taking over.", state.run_id, state.owner)
        if not self._submitter.alive(state.run_id):
            self._conclude(state)
            return
        adopted = self.ledger.append(
            state.version, "running", after=state, reasons=(f"taken over from {state.owner}",),
            attempt=max(1, state.attempt),
        )  # fmt: skip
        if adopted is not None:
            self._flights[state.run_id] = adopted
            self._beat(adopted)

    def _conclude(self, state: LedgerState) -> None:
        """Write down how a run that is not alive ended, or have it run again."""
        record = read_run(state.run_id, self.settings)
        if record is not None:
            self._end(state, record.outcome, (record.sentence,))
            return
        failure = read_failure(state.run_id, self.settings)
        lasting = failure is not None and failure.exit_code != TransientError.exit_code
        if failure is not None and _is_of_the_delivery(failure):
            self._end(state, "refused", (failure.message, *map(str, failure.problems)))
            return
        reasons = tuple(str(failure).splitlines()) if failure else self._guess(state.run_id)
        if lasting or state.attempt >= self.pace.attempts:
            self._end(state, "failed", reasons)
        else:
            self._postpone(state, reasons, state.attempt)

    def _guess(self, run_id: str) -> tuple[str, ...]:
        words = self._submitter.last_words(run_id)
        reason = "the run ended without leaving a reason"
        return (f"{reason}; it last said: {words}",) if words else (reason,)

    def _postpone(self, state: LedgerState, reasons: tuple[str, ...], failures: int) -> None:
        pause = min(300.0, self.pace.backoff_s * 2 ** max(0, failures - 1))
        self._not_before[state.run_id] = time.monotonic() + pause
        self.ledger.append(state.version, "landed", after=state, reasons=(*reasons, f"again in {pause:.0f} s"))

    def _end(self, state: LedgerState, ending: str, reasons: tuple[str, ...]) -> None:
        self._not_before.pop(state.run_id, None)
        if ending == "failed":
            reasons = (*reasons, f"When this is put right: coda ledger retry {state.source}/{state.batch}")
        new = self.ledger.append(state.version, ending, after=state, reasons=reasons)  # type: ignore[arg-type]
        if new is not None:
            self._ended(new)

    def _ended(self, state: LedgerState) -> None:
        self.metrics.runs.labels(pipeline="adaptation", outcome=state.state).inc()
        log.info("%s: %s. %s", state.run_id, state.state, " ".join(state.reasons))
        self._handled.append(
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
        training = self._training()
        return self._ignore | {training} if training else self._ignore

    def _training(self) -> str | None:
        if self._training_source is None:
            release = self._releases.current(DEFAULT_SCOPE)
            self._training_source = release.source if release else None
        return self._training_source

    def _measure(self, states: list[LedgerState], open_: list[LedgerState]) -> None:
        self.metrics.waiting.set(len(open_))
        self.metrics.given_up.set(sum(state.state == "failed" for state in states))
        ages = [(datetime.now(UTC) - state.at).total_seconds() for state in open_ if state.state == "landed"]
        self.metrics.oldest.set(max(ages, default=0.0))


def _is_of_the_delivery(failure: Failure) -> bool:
    return failure.exit_code == ContractError.exit_code and failure.step in READING


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.0f} s"


def retry(ledger: Ledger, version: BatchVersion, who: str) -> LedgerState | None:
    """Open a failed or held batch version again; the next look runs it under the name it had.

    Args:
        ledger: The ledger.
        version: Batch version whose newest state is 'failed'.
        who: Person who asks.

    Returns:
        The new state; None when the version did not fail, or somebody else was faster.
    """
    last = ledger.last(version)
    if last is None or last.state != "failed":
        return None
    return ledger.append(version, "landed", after=last, reasons=(f"opened again by {who}",), attempt=0)
