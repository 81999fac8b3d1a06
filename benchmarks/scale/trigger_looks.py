"""One trigger in a process of its own, measured while it polls: ``python -m benchmarks.scale.trigger_looks ENDPOINT``.

It prints JSON: seconds, processor time and requests of each look and of each round, and the most memory it had.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.scale.crowd import counts, settings_at
from benchmarks.scale.process_use import memory_of
from coda.config import load_params
from coda.config.load import shipped_params
from coda.runners.submit import Request
from coda.trigger.pace import Pace
from coda.trigger.service import Trigger

LOOKS = 3
"""The first one reads what it has not seen; the best of the others is what goes on for ever."""


class Nobody:
    """A submitter whose runs never end: what is measured is the trigger alone."""

    def submit(self, request: Request) -> None:
        """Take a run and do nothing."""

    def alive(self, run_id: str) -> bool:
        """Say that it runs."""
        return bool(run_id)

    def last_words(self, run_id: str) -> str:
        """Say nothing of it."""
        return "" if run_id else "none"

    def stop(self, grace_s: float) -> frozenset[str]:
        """Have nothing to stop."""
        del grace_s
        return frozenset()


def main() -> None:
    """Poll, and print what it cost."""
    endpoint = sys.argv[1]
    settings = settings_at(endpoint)
    files = shipped_params()
    params = load_params(files["params.yaml"], [], ["extractor.weights=random"])
    pace = Pace(tick_s=2.0, recheck_s=30.0)
    trigger = Trigger(settings, Nobody(), params=params, events=("poll",), pace=pace)
    trigger.ledger.store.exists("x")  # connect
    counts(endpoint)
    looks = [{"look": _cost(endpoint, trigger.look), "round": _cost(endpoint, trigger.advance)} for _ in range(LOOKS)]
    states = [f"{state.state}: {' '.join(state.reasons)[:300]}" for state in trigger.ledger.newest()][:3]
    print(json.dumps({"looks": looks, "peak_bytes": memory_of(os.getpid())[1], "states": states}))


def _cost(endpoint: str, action: Callable[[], object]) -> dict[str, Any]:
    began, cpu_s = time.monotonic(), time.process_time()
    action()
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
    asked = counts(endpoint)
    return {"seconds": seconds, "cpu_s": cpu_s, "bytes": asked.pop("bytes", 0), "requests": sum(asked.values())}


if __name__ == "__main__":
    main()
