"""`coda trigger serve` as the soak runs it: real loop, pages, signals and submitter; shorter waits, and forks.

Run as ``python -m tests.soak.service PARAMS WORK FRONT_ENDS``, with 'poll', 'queue' or 'poll+queue'.
"""

import logging
import sys
from pathlib import Path

from coda.config import Params
from coda.runners.submit import LocalSubmitter
from coda.settings import read_settings
from coda.trigger import server
from coda.trigger.server import TriggerService
from coda.trigger.service import Pace, Trigger

PACE = Pace(parallel=2, lease_s=6.0, backoff_s=1.0, tick_s=0.5, patience_s=60.0, recheck_s=2.0)

RUN = (sys.executable, "-S", "-m", "tests.soak.asking", "pipeline", "run")
"""Stands for ``python -m coda pipeline run``; the fork server runs it."""


def main() -> None:
    """Serve until SIGTERM."""
    params, work, front_ends = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    server.PAUSE_S, server.QUEUE_WAIT_S = 1.0, 1
    settings = read_settings()
    trigger = Trigger(
        settings, LocalSubmitter(settings, Path(work), command=RUN),
        params=Params.model_validate_json(Path(params).read_text(encoding="utf-8")),
        events=front_ends.replace("poll", "poll=3").split("+"), pace=PACE,
    )  # fmt: skip
    service = TriggerService(trigger, poll_every_s=3.0)
    service.stop_on_signals()
    service.serve(grace_s=10.0)


if __name__ == "__main__":
    main()
