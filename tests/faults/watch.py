"""A trigger in a process of its own, on a machine with its own clock, that may die between any two writes."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from coda.config import Params
from coda.errors import TransientError
from coda.settings import read_settings
from coda.trigger import ledger, service
from coda.trigger.service import Pace, Trigger
from tests.faults.deaths import Deaths
from tests.faults.processes import ChainSubmitter

PATIENCE_S = 400.0


@dataclass(frozen=True)
class Watch:
    """One trigger, as a child process gets it.

    Attributes:
        sources: It ends when their batches have ended.
        work: Folder of the runs of its machine.
        params: Params as JSON.
        pace: How patient it is.
        versions: Batch versions that must have ended.
        skew_s: Seconds that its clock is ahead.
        deaths: Where it dies.
        queue: Read the queue instead of listing.
    """

    sources: tuple[str, ...]
    work: Path
    params: str
    pace: Pace
    versions: int = 1
    skew_s: float = 0.0
    deaths: Deaths | None = None
    queue: bool = False


def watch(plan: Watch, environment: dict[str, str]) -> None:
    """Look and advance until all is settled."""
    os.environ.clear()
    os.environ.update(environment)
    if plan.skew_s:
        _skew(plan.skew_s)
    settings = read_settings()
    # this process imported everything and holds no connection yet: what it forks starts at once
    submitter = ChainSubmitter(settings, plan.work, multiprocessing.get_context("fork"), {})
    trigger = Trigger(
        settings, submitter, params=Params.model_validate_json(plan.params), ignore_sources=("lab_a",),
        events=["queue" if plan.queue else "poll"], pace=plan.pace,
    )  # fmt: skip
    if plan.deaths is not None:
        plan.work.mkdir(parents=True, exist_ok=True)
        plan.deaths.watch("trigger", plan.work)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            trigger.look()
            trigger.advance()
        except TransientError:
            time.sleep(0.2)
            continue
        mine = [state for state in trigger.ledger.newest() if state.source in plan.sources]
        if len(mine) >= plan.versions and all(state.final for state in mine):
            return
        time.sleep(plan.pace.tick_s)
    raise SystemExit(1)


def _skew(seconds: float) -> None:
    class Skewed(datetime):
        """A clock that is wrong by some seconds."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    for module in (ledger, service):
        module.datetime = Skewed
