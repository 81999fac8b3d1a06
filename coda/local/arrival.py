"""Lets the trigger handle one batch that just arrived, and shows what its run says meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coda.config import Params
from coda.errors import CodaError, Problem
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.service import Pace, Trigger
from coda.trigger.submit import LocalSubmitter

LEASE_S = 3.0
"""One trigger watches the demo's bucket, so a silent run is its own from before an interruption."""


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
    """Have the trigger look into the bucket until a batch has come to its end.

    Args:
        name: The batch, ``source/batch``.
        settings: Where the services are.
        params: Parameters of the adaptation pipeline.
        work: Folder of the runs of this machine.
        ignore: Source whose batches start nothing: the one trained on.
        say: Takes the lines that the run prints.

    Returns:
        ``run_id``, ``outcome``, ``sentence`` and ``reasons`` of the batch.

    Raises:
        CodaError: The run failed for good; the error carries the failing step's own words.
    """
    submitter = LocalSubmitter(settings, work)
    trigger = Trigger(
        settings, submitter, params=params, ignore_sources=(ignore,), pace=Pace(lease_s=LEASE_S, patience_s=0)
    )
    tails: dict[str, _Tail] = {}
    try:
        trigger.look()
        while trigger.advance():
            trigger.stopping.wait(trigger.pace.tick_s)
            for entry in Ledger(store_for(settings.platform, settings)).newest():
                if not entry.final:
                    tail = tails.setdefault(entry.run_id, _Tail(work / entry.run_id / "trigger.txt"))
                    for line in tail.lines():
                        say(line)
    except BaseException:
        trigger.stop()
        raise
    state = _state_of(name, settings)
    if state is None or not state.final:
        found = "nothing" if state is None else f"the state {state.state!r} ({'; '.join(state.reasons)})"
        problem = Problem(f"ledger of {name}", found, "an end", "Start again; the trigger goes on with it.")
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
