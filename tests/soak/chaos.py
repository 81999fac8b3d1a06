"""The faults of the soak: which, how often, when (by progress, so that a seed repeats them), and how they are done."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3

from tests.soak.proxy import MODES
from tests.soak.stage import Stage
from tests.soak.triggers import Triggers

SHARES = {
    "trigger killed": 0.08,
    "run killed": 0.08,
    "step killed": 0.10,
    **{f"object store {mode}": 0.04 for mode in MODES},
    "registry locked": 0.03,
    "events repeated": 0.05,
    "second trigger": 0.03,
    "trigger frozen": 0.03,
}
"""Kind of fault -> times a batch, at least once each."""

QUIET = 0.6
"""From this progress on the first trigger is neither killed nor frozen, so that its memory is seen over a long life."""

OF_TRIGGER = ("trigger killed", "trigger frozen")

WINDOW_S = (3.0, 7.0)
"""Shortest and longest time that a service misbehaves."""

PATIENCE_S = 20.0
"""How long a kill waits for something to kill."""


@dataclass(frozen=True)
class Fault:
    """One fault, due when this share of the batches has come to an end."""

    kind: str
    due: float


def schedule(batches: int, kinds: Iterable[str], seed: int) -> list[Fault]:
    """Return the faults of a soak in their order, those of one kind spread over it."""
    rng = random.Random(seed)
    faults = []
    for kind in kinds:
        until = QUIET if kind in OF_TRIGGER else 0.97
        times = max(1, round(SHARES[kind] * batches))
        faults += [Fault(kind, until * (number + rng.random()) / times) for number in range(times)]
    return sorted(faults, key=lambda fault: fault.due)


class Chaos:
    """Does the faults to a stage and its triggers."""

    def __init__(self, stage: Stage, triggers: Triggers, seed: int) -> None:
        self.injected: Counter[str] = Counter()
        self._stage = stage
        self._triggers = triggers
        self._random = random.Random(seed)
        self._queue = str(stage.direct.queue_url)
        self._sqs: Any = boto3.client("sqs", endpoint_url=stage.direct.s3_endpoint)
        self._doing: dict[str, Callable[[], bool]] = {
            "trigger killed": self._kill_trigger,
            "run killed": lambda: self._kill(lambda name: name == "coda"),
            "step killed": lambda: self._kill(lambda name: name != "coda"),
            **{f"object store {mode}": lambda mode=mode: self._object_store(mode) for mode in MODES},
            "registry locked": self._lock_registry,
            "events repeated": self._repeat_events,
            "second trigger": self._second_trigger,
            "trigger frozen": self._freeze_trigger,
        }

    def inject(self, fault: Fault) -> bool:
        """Do one fault to its end; return False when there was nothing to do it to."""
        done = self._doing[fault.kind]()
        self.injected[fault.kind] += done
        return done

    def _kill_trigger(self) -> bool:
        return self._triggers.kill()

    def _kill(self, wanted: Callable[[str], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        time.sleep(self._random.uniform(0.0, 2.0))  # anywhere in a step, not at its start
        while time.monotonic() < deadline:
            found = sorted(pid for pid, name in self._stage.processes().items() if wanted(name))
            if found:
                try:
                    os.kill(self._random.choice(found), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
            time.sleep(0.05)
        return False

    def _object_store(self, mode: str) -> bool:
        # half of the answers lost, or all but a few requests refused: some of a retried call come through
        self._stage.proxy.set(mode, {"cut": 0.3, "unanswered": 0.3, "slow": 0.5}.get(mode, 0.9))
        before = self._stage.proxy.injected[mode]
        try:
            time.sleep(self._random.uniform(*WINDOW_S))
        finally:
            self._stage.proxy.set(None)
        return self._stage.proxy.injected[mode] > before

    def _lock_registry(self) -> bool:
        with self._stage.locked_registry():
            time.sleep(self._random.uniform(*WINDOW_S))
        return True

    def _second_trigger(self) -> bool:
        with self._triggers.second(self._random.choice(["poll", "queue", "poll+queue"])):
            time.sleep(self._random.uniform(10.0, 20.0))
        return True

    def _freeze_trigger(self) -> bool:
        with self._triggers.second("poll+queue"):
            return self._triggers.freeze(self._random.uniform(9.0, 13.0))

    def _repeat_events(self) -> bool:
        """Send 50 copies of the events of known manifests in parallel, in any order, with some that say nothing."""
        keys = [info.key for info in self._stage.landing.list() if info.key.endswith("/manifest.json")]
        if not keys:
            return False
        chosen = [self._random.choice(keys) for _ in range(5)]
        bodies = [event(self._stage.landing.bucket, key) for key in chosen] * 10
        bodies += ['{"Event": "s3:TestEvent"}', "no event at all", event("another-bucket", chosen[0])]
        self._random.shuffle(bodies)
        self._send(bodies)
        return True

    def _send(self, bodies: Iterable[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda body: self._sqs.send_message(QueueUrl=self._queue, MessageBody=body), bodies))


def event(bucket: str, key: str) -> str:
    """Return a notification as S3 sends it."""
    place = {"bucket": {"name": bucket}, "object": {"key": key}}
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": place}
    return json.dumps({"Records": [record]})
