"""The soak itself: producers deliver, triggers run, faults happen; until every version has come to its end."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coda.trigger.interventions import retry
from coda.trigger.ledger import Ledger, LedgerState
from tests.soak.audit import Findings, audit, collect
from tests.soak.chaos import SHARES, Chaos, Fault, schedule
from tests.soak.deliveries import KINDS, Delivery, Producer, Sent, plan
from tests.soak.stage import Stage
from tests.soak.triggers import Life, Triggers

BACKLOG = 8
"""Batches that wait or run at most; producers wait, so that the soak is a stream and not one heap."""

LOOK_S = 2.0
"""Seconds between two looks of the harness."""

LATE_S = (3.0, 12.0)
"""How late late files are."""


@dataclass(frozen=True)
class Size:
    """How large a soak is.

    Attributes:
        batches: Batches to deliver.
        sources: Sources they come from.
        seed: Of batches and faults.
        deliver_s: Seconds after which nothing more is delivered, on a machine too slow for all of them; what was
            delivered is still brought to its end.
        limit_s: Seconds after which it is given up; what is not finished then counts as lost.
        faults: Kinds of faults.
    """

    batches: int = 200
    sources: int = 5
    seed: int = 0
    deliver_s: float = 3600.0
    limit_s: float = 7200.0
    faults: tuple[str, ...] = tuple(SHARES)


@dataclass
class Outcome:
    """What a soak did and found.

    Attributes:
        size: Its size.
        seconds: How long batches were delivered and run.
        delivered: Kind of delivery -> times.
        injected: Kind of fault -> times.
        requests: Kind of fault of the object store -> requests that met it.
        findings: What the audit found.
        opened_again: Failed versions that the operator opened again.
        repeated_runs: Times a run was started again, in all.
        taken_over: Times a trigger took over a run that another one had left.
        life: The trigger that was watched for longest.
        peak_rss_mib: Most memory any trigger had.
        triggers: Trigger processes there were.
    """

    size: Size
    seconds: float
    delivered: Counter[str]
    injected: Counter[str]
    requests: Counter[str]
    findings: Findings
    opened_again: int
    repeated_runs: int
    taken_over: int
    life: Life
    peak_rss_mib: float
    triggers: int


@dataclass
class _Repeat:
    """A batch that is to be sent a second time: while it waits or runs, or after its end."""

    delivery: Delivery
    after_its_end: bool


@dataclass
class Soak:
    """One soak on a trained stage."""

    stage: Stage
    size: Size
    say: Callable[[str], None] = print
    sent: list[Sent] = field(default_factory=list, init=False)
    _to_repeat: list[_Repeat] = field(default_factory=list, init=False)
    _late: list[tuple[float, Delivery, dict[str, bytes]]] = field(default_factory=list, init=False)
    _opened: int = field(default=0, init=False)

    def run(self) -> Outcome:
        """Run to the end, and look at what is left."""
        random_ = random.Random(self.size.seed)
        waiting = plan(self.size.batches, self.size.sources, self.size.seed)
        delivered: Counter[str] = Counter()
        producer = Producer(self.stage.landing, self.stage.folder / "plates", self.size.sources)
        ledger = Ledger(self.stage.platform, "operator")
        started = time.monotonic()
        triggers = Triggers(self.stage)
        chaos = Chaos(self.stage, triggers, self.size.seed)
        faults = _Faults(chaos, schedule(self.size.batches, self.size.faults, self.size.seed))
        told = 0.0
        try:
            while True:
                now = time.monotonic() - started
                states = {f"{state.source}/{state.batch}/{state.manifest_digest}": state for state in ledger.newest()}
                ended = sum(state.final for state in states.values())
                self._complete(producer)
                self._send_again(producer, states)
                late = now > self.size.deliver_s
                if late:
                    waiting.clear()
                if waiting and len(self.sent) - ended < BACKLOG:
                    delivered[waiting[0].kind] += 1
                    self._deliver(producer, waiting.pop(0), random_)
                self._open_failed(ledger, states)
                faults.progress = ended / self.size.batches
                triggers.keep()
                finished = not waiting and not self._late and not self._to_repeat and ended >= len(self.sent)
                if now - told > 30 or finished:
                    count = sum(chaos.injected.values())
                    self.say(f"{now:6.0f} s  {ended} of {len(self.sent)} versions ended, {count} faults")
                    told = now
                if (finished and (faults.idle or late)) or now > self.size.limit_s:
                    break
                time.sleep(LOOK_S)
        finally:
            faults.stop()
            triggers.stop()
        seconds = time.monotonic() - started
        entries = ledger.entries()
        return Outcome(
            self.size, seconds, delivered, chaos.injected, self.stage.proxy.injected,
            audit(collect(self.stage.direct), self.sent), self._opened,
            sum(max(0, entry.last.attempt - 1) for entry in entries),
            sum("taken over" in " ".join(state.reasons) for entry in entries for state in entry.states),
            triggers.longest,
            max(life.peak_rss_mib for life in triggers.lives), len(triggers.lives),
        )  # fmt: skip

    def _deliver(self, producer: Producer, delivery: Delivery, random_: random.Random) -> None:
        version, late = producer.send(delivery)
        self.sent.append(version)
        if late:
            self._late.append((time.monotonic() + random_.uniform(*LATE_S), delivery, late))
        if KINDS[delivery.kind].again:
            self._to_repeat.append(_Repeat(delivery, random_.random() < 0.5))

    def _complete(self, producer: Producer) -> None:
        for item in list(self._late):
            due, delivery, late = item
            if time.monotonic() >= due:
                producer.complete(delivery, late)
                self._late.remove(item)

    def _send_again(self, producer: Producer, states: dict[str, LedgerState]) -> None:
        """Send again what somebody saw already: a manifest replaced unseen was never a version."""
        for item in list(self._to_repeat):
            name = f"{item.delivery.source}/{item.delivery.batch}/"
            seen = [state for key, state in states.items() if key.startswith(name)]
            if seen and (seen[0].final or not item.after_its_end):
                version = producer.send_again(item.delivery)
                self.sent += [version] if version else []
                self._to_repeat.remove(item)

    def _open_failed(self, ledger: Ledger, states: dict[str, LedgerState]) -> None:
        """Do what an operator does with a batch that failed too often: `coda ledger retry`."""
        for state in states.values():
            if state.state == "failed":
                self.say(f"opened again: {state.run_id}: {' '.join(state.reasons)[:300]}")
                self._opened += retry(ledger, state, "the operator of the soak") is not None


class _Faults(threading.Thread):
    """Injects each fault when enough batches came to their end."""

    def __init__(self, chaos: Chaos, faults: list[Fault]) -> None:
        super().__init__(name="faults", daemon=True)
        self.progress = 0.0
        self.idle = False
        self.trouble: Exception | None = None
        self._chaos = chaos
        self._faults = faults
        self._stopping = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while self._faults and not self._stopping.is_set():
                if self._faults[0].due <= self.progress:
                    self._chaos.inject(self._faults.pop(0))
                self._stopping.wait(0.5)
        except Exception as error:  # noqa: BLE001  told to whoever stops this thread
            self.trouble = error
        finally:
            self.idle = True

    def stop(self) -> None:
        """End after the fault under way; tell of a fault that could not be done."""
        self._stopping.set()
        self.join(60)
        if self.trouble is not None:
            raise self.trouble


def soak(folder: Path, size: Size, say: Callable[[str], None] = print) -> Outcome:
    """Set the stage, train, and soak."""
    with Stage(folder, size.seed) as stage:
        say("Training the source that everything is adapted from ...")
        stage.train()
        return Soak(stage, size, say).run()
