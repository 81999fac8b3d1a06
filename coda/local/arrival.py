"""Lets the trigger handle one batch that just arrived, and shows what its run says meanwhile."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coda.config import Params
from coda.contracts import MANIFEST_NAME
from coda.errors import CodaError, Problem
from coda.runners.submit import LocalSubmitter
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.trigger.ledger import TAKEN, Ledger, LedgerState
from coda.trigger.service import Pace, Trigger

LEASE_S = 3.0
"""One trigger watches the demo's bucket, so a silent run is its own from before an interruption."""


Ended = Callable[[str, float, dict[str, Any]], None]
"""Takes a batch, the seconds that its run took, and what came of it."""


@dataclass
class _Tail:
    """Hands on the new whole lines of a file that another process writes."""

    path: Path
    read: int = 0

    def lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.read += len(whole)
        return whole.decode(errors="replace").splitlines()


def run_until_settled(
    name: str, settings: Settings, params: Params, work: Path, ignore: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Have the trigger poll the bucket until a batch has come to its end; see `settle`."""
    return settle([name], settings, params, work, [ignore], say=lambda _, line: say(line))[name]


def settle(
    names: Sequence[str],
    settings: Settings,
    params: Params,
    work: Path,
    ignore: Collection[str],
    *,
    parallel: int = 1,
    lease_s: float = LEASE_S,
    say: Callable[[str, str], None] = lambda *_: None,
    ended: Ended = lambda *_: None,
    stopping: threading.Event = threading.Event(),  # noqa: B008  never set
) -> dict[str, dict[str, Any]]:
    """Have the trigger poll the bucket until batches have come to their ends.

    Args:
        names: The batches, ``source/batch``, in the order of their arrival.
        settings: Where the services are.
        params: Parameters of the adaptation pipeline.
        work: Folder of the runs of this machine.
        ignore: Sources whose batches start nothing: the one trained on, and those that another trigger looks after.
        parallel: Runs at a time, those of other triggers counted.
        lease_s: Seconds of silence after which a run of another trigger is taken over.
        say: Takes a batch and a line that its run prints.
        ended: Called with each batch as it ends.
        stopping: Ends the work when it is set.

    Returns:
        Batch -> ``run_id``, ``outcome``, ``sentence`` and ``reasons``.

    Raises:
        CodaError: A run failed for good; the error carries the failing step's own words.
    """
    submitter = LocalSubmitter(settings, work)
    pace = Pace(parallel=parallel, lease_s=lease_s, patience_s=0)
    trigger = Trigger(settings, submitter, params=params, ignore_sources=ignore, pace=pace)
    ledger = Ledger(store_for(settings.platform, settings))
    tails: dict[str, _Tail] = {}
    begun: dict[str, float] = {}
    try:
        for name in names:  # as a store tells of them, one after the other: a look finds all of them at once
            trigger.take(f"{name}/{MANIFEST_NAME}")
        trigger.look()
        while trigger.advance() and not stopping.is_set():
            trigger.stopping.wait(trigger.pace.tick_s)
            for entry in ledger.newest():
                if entry.state in TAKEN and f"{entry.source}/{entry.batch}" in names:
                    begun.setdefault(entry.run_id, time.monotonic())
                    tail = tails.setdefault(entry.run_id, _Tail(work / entry.run_id / "trigger.txt"))
                    for line in tail.lines():
                        say(f"{entry.source}/{entry.batch}", line)
            _tell_ends(trigger, begun, ended)
        _tell_ends(trigger, begun, ended)
    except BaseException:
        trigger.stop()
        raise
    if stopping.is_set():
        trigger.stop()
        return {}
    return {name: _result_of(name, settings) for name in names}


def _tell_ends(trigger: Trigger, begun: Mapping[str, float], ended: Ended) -> None:
    for handled in trigger.taken():
        sentence = handled.reasons[0] if handled.reasons else ""
        result = {"run_id": handled.run_id, "outcome": handled.state, "sentence": sentence}
        seconds = time.monotonic() - begun.get(handled.run_id, time.monotonic())
        ended(f"{handled.source}/{handled.batch}", seconds, {**result, "reasons": list(handled.reasons)})


def _result_of(name: str, settings: Settings) -> dict[str, Any]:
    state = _state_of(name, settings)
    if state is None or not state.final:
        found = "nothing" if state is None else f"the state {state.state!r} ({'; '.join(state.reasons)})"
        problem = Problem(f"ledger of {name}", found, "an end", "Start again; the trigger resumes it.")
        raise CodaError(f"The trigger did not finish {name}.", [problem])
    if state.state == "failed":
        raise CodaError("\n".join([f"The run of {name} failed.", *state.reasons]))
    sentence = state.reasons[0] if state.reasons else ""
    return {"run_id": state.run_id, "outcome": state.state, "sentence": sentence, "reasons": list(state.reasons)}


def _state_of(name: str, settings: Settings) -> LedgerState | None:
    states = [
        state
        for state in Ledger(store_for(settings.platform, settings)).newest()
        if f"{state.source}/{state.batch}" == name
    ]
    return max(states, key=lambda state: state.at, default=None)
