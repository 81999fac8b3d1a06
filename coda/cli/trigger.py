"""`coda trigger`: watch the landing bucket and start a run for each new batch version."""

import logging
import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coda.cli.options import DEFAULT_PARAMS, Engine, EngineChoice, Overlays, ParamsFile, Settings_, read_params, taking
from coda.errors import ConfigError, Problem

if TYPE_CHECKING:
    from coda.trigger.notifications import Notifier
    from coda.trigger.receiver import Receiver
    from coda.trigger.service import Handled, Trigger

app = typer.Typer(no_args_is_help=True, help="Watch the landing bucket and start a run for each new batch.")

log = logging.getLogger(__name__)


WORK = Path("runs/pipelines")


class LogFormatChoice(StrEnum):
    """Form of the log."""

    text = "text"
    json = "json"


Ignored = Annotated[list[str], typer.Option("--ignore-source", help="Source whose batches start nothing; may repeat.")]
Poll = Annotated[bool, typer.Option("--poll/--no-poll", help="List the landing prefix.")]
Queue = Annotated[bool, typer.Option("--queue/--no-queue", help="Read the queue in CODA_QUEUE_URL, when it is set.")]
Events = Annotated[
    list[str],
    typer.Option("--events", metavar="NAME[=WHERE]", help="Event source by its name (docs/trigger.md); may repeat."),
]
Webhook = Annotated[
    bool, typer.Option("--webhook/--no-webhook", help="Take messages by HTTP (CODA_WEBHOOK_TOKEN or CODA_WEBHOOK_KEY).")
]
Work = Annotated[Path, typer.Option(help="Folder for the runs of this machine.")]
Parallel = Annotated[int, typer.Option(min=1, help="Runs at a time in all; never more than one a source.")]
Patience = Annotated[
    float, typer.Option(min=0, help="Seconds a batch waits for missing files before it is judged as it is.")
]
Lease = Annotated[float, typer.Option(min=1, help="Seconds without a sign of life before a run is taken over.")]


@dataclass(frozen=True)
class TriggerOptions:
    """What every trigger is asked for; see the options' own help."""

    runner: Engine = EngineChoice.local
    params: ParamsFile = DEFAULT_PARAMS
    overlay: Overlays = field(default_factory=list)
    changes: Settings_ = field(default_factory=list)
    ignore_source: Ignored = field(default_factory=list)
    poll: Poll = True
    queue: Queue = True
    events: Events = field(default_factory=list)
    work: Work = WORK
    parallel: Parallel = 1
    lease_s: Lease = 120
    patience_s: Patience = 6 * 3600

    def trigger(self, *more: str, poll_every_s: float = 0.0, once: bool = False) -> "Trigger":
        """Return the trigger that the options ask for.

        Args:
            more: Further event sources.
            poll_every_s: Seconds between two listings.
            once: Whether it polls once and ends, so that no event can be pushed to it.

        Raises:
            ConfigError: Nothing would tell it of new batches.
        """
        from coda.runners.engines import ENGINES
        from coda.settings import read_settings
        from coda.trigger.event_sources import chosen
        from coda.trigger.service import Pace, Trigger

        settings = read_settings()
        events = [f"poll={poll_every_s}"] if self.poll else []
        events += ["queue"] if self.queue and settings.queue_url else []
        events += [*more, *self.events]
        sources = chosen(events)
        if not sources:
            problem = Problem("coda trigger", "neither list, nor queue, nor webhook", "at least one", "Drop --no-poll.")
            raise ConfigError("Nothing would tell the trigger of new batches.", [problem])
        late = [source.name for source in sources if once and not source.polled]
        if late:
            problem = Problem("--events", ", ".join(late), "sources that are polled", "Run `coda trigger serve`.")
            raise ConfigError("No event can be pushed to a trigger that polls once and ends.", [problem])
        return Trigger(
            settings,
            ENGINES[self.runner.value].submitter(settings, self.work.resolve()),
            params=read_params(self.params, self.overlay, self.changes),
            ignore_sources=self.ignore_source,
            events=events,
            pace=Pace(parallel=self.parallel, lease_s=self.lease_s, patience_s=self.patience_s),
        )


@app.command()
@taking(TriggerOptions)
def once(options: TriggerOptions) -> None:
    """Poll once, run what is new, and wait until the runs end (for a CronJob)."""
    receiver = _receiver()
    trigger = options.trigger(once=True)
    notifier = _notifier(trigger, receiver)
    if notifier is not None:
        notifier.begin()
    handled = trigger.run_once()
    for item in handled:
        _tell(item)
    if notifier is not None:
        notifier.round()
    if not handled:
        typer.echo("Nothing new.")


@app.command()
@taking(TriggerOptions)
def serve(
    options: TriggerOptions,
    poll_every_s: Annotated[float, typer.Option(min=1, help="Seconds between two listings.")] = 30,
    host: Annotated[str, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of these pages; 0 takes a free one.")] = 8080,
    grace_s: Annotated[float, typer.Option(min=0, help="Seconds that runs get to end on SIGTERM.")] = 20,
    webhook: Webhook = False,  # noqa: FBT002
    webhook_host: Annotated[str, typer.Option(help="Address of the webhook.")] = "127.0.0.1",
    webhook_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the webhook; 0 takes a free one.")
    ] = 8081,
    log_format: Annotated[LogFormatChoice, typer.Option(help="Lines for people, or one JSON object a line.")] = (
        LogFormatChoice.text
    ),
) -> None:
    """Run until SIGTERM or Ctrl-C; new batches are found by any of --poll, --queue, --webhook and --events."""
    from coda.monitoring.listening import address
    from coda.trigger.logs import log_to
    from coda.trigger.receiver import read_site_url
    from coda.trigger.server import TriggerService

    log_to(log_format.value)
    site_url = read_site_url(os.environ)
    receiver = _receiver()
    trigger = options.trigger(
        *([f"webhook={address(webhook_host, webhook_port)}"] if webhook else []), poll_every_s=poll_every_s
    )
    # nobody waits at a terminal: fewer requests for the same work
    trigger.pace = replace(trigger.pace, tick_s=2.0, recheck_s=30.0)
    as_json = log_format is LogFormatChoice.json
    service = TriggerService(
        trigger, poll_every_s=poll_every_s, host=host, port=port, tell=None if as_json else _tell,
        notifier=_notifier(trigger, receiver), site_url=site_url,
    )  # fmt: skip
    service.stop_on_signals()
    say = log.info if as_json else typer.echo
    ways = " and ".join(source.description for source in trigger.arrivals.sources)
    say(f"Watching {trigger.settings.landing} by {ways}; http://{address(host, service.port)}/metrics")
    service.serve(grace_s=grace_s)
    say("Stopped.")


def _receiver() -> "Receiver | None":
    from coda.trigger.receiver import read_receiver

    return read_receiver(os.environ)


def _notifier(trigger: "Trigger", receiver: "Receiver | None") -> "Notifier | None":
    from coda.trigger.notifications import Notifier

    return Notifier(trigger.settings, receiver, trigger.metrics, trigger.ledger.owner) if receiver else None


def _tell(handled: "Handled") -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{handled.source}/{handled.batch}: {handled.state.replace('_', ' ')}", markup=False)
    for reason in handled.reasons:
        console.print(f"  {reason}", markup=False)
