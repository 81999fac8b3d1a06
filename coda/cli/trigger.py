"""`coda trigger`: watch the landing bucket and start a run for each new batch version."""

import logging
import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coda.cli.options import DEFAULT_PARAMS, Engine, EngineChoice, Overlays, ParamsFile, Settings_, read_params
from coda.errors import ConfigError, Problem

if TYPE_CHECKING:
    from coda.trigger.authentication import Secrets
    from coda.trigger.notifications import Notifier
    from coda.trigger.receiver import Receiver
    from coda.trigger.service import Handled, Trigger
    from coda.trigger.webhook_server import WebhookServer

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
Webhook = Annotated[
    bool, typer.Option("--webhook/--no-webhook", help="Take messages by HTTP (CODA_WEBHOOK_TOKEN or CODA_WEBHOOK_KEY).")
]
Work = Annotated[Path, typer.Option(help="Folder for the runs of this machine.")]
Parallel = Annotated[int, typer.Option(min=1, help="Runs at a time in all; never more than one a source.")]
Patience = Annotated[
    float, typer.Option(min=0, help="Seconds a batch waits for missing files before it is judged as it is.")
]
Lease = Annotated[float, typer.Option(min=1, help="Seconds without a sign of life before a run is taken over.")]


@app.command()
def once(
    runner: Engine = EngineChoice.local,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    ignore_source: Ignored = [],  # noqa: B006
    poll: Poll = True,  # noqa: FBT002
    queue: Queue = True,  # noqa: FBT002
    work: Work = WORK,
    parallel: Parallel = 1,
    lease_s: Lease = 120,
    patience_s: Patience = 6 * 3600,
) -> None:
    """Poll once, run what is new, and wait until the runs end (for a CronJob)."""
    receiver = _receiver()
    trigger = _trigger(
        runner, params, overlay, changes, ignore_source, poll, queue, work, parallel, lease_s, patience_s
    )
    _require_a_way(["poll"] if poll else ["queue"] if queue and trigger.settings.queue_url else [])
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
def serve(
    runner: Engine = EngineChoice.local,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    ignore_source: Ignored = [],  # noqa: B006
    poll: Poll = True,  # noqa: FBT002
    queue: Queue = True,  # noqa: FBT002
    work: Work = WORK,
    parallel: Parallel = 1,
    lease_s: Lease = 120,
    patience_s: Patience = 6 * 3600,
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
    """Run until SIGTERM or Ctrl-C; new batches are found by any of --poll, --queue and --webhook."""
    from coda.monitoring.listening import address
    from coda.trigger.logs import log_to
    from coda.trigger.receiver import read_site_url
    from coda.trigger.server import TriggerService
    from coda.trigger.webhook_server import PATH

    log_to(log_format.value)
    secrets = _webhook_secrets() if webhook else None
    site_url = read_site_url(os.environ)
    receiver = _receiver()
    trigger = _trigger(
        runner, params, overlay, changes, ignore_source, poll, queue, work, parallel, lease_s, patience_s
    )
    # nobody waits at a terminal: fewer requests for the same work
    trigger.pace = replace(trigger.pace, tick_s=2.0, recheck_s=30.0)
    listener = _listener(trigger, secrets, webhook_host, webhook_port) if secrets else None
    ways = [f"the list of the landing prefix, every {poll_every_s:.0f} s"] if poll else []
    ways += [f"the queue {trigger.settings.queue_url}"] if queue and trigger.settings.queue_url else []
    ways += [f"the webhook http://{address(webhook_host, listener.port)}{PATH}"] if listener else []
    _require_a_way(ways)
    as_json = log_format is LogFormatChoice.json
    service = TriggerService(
        trigger, poll_every_s=poll_every_s, host=host, port=port, tell=None if as_json else _tell, webhook=listener,
        notifier=_notifier(trigger, receiver), site_url=site_url,
    )  # fmt: skip
    service.stop_on_signals()
    say = log.info if as_json else typer.echo
    say(f"Watching {trigger.settings.landing} by {' and '.join(ways)}; http://{address(host, service.port)}/metrics")
    service.serve(grace_s=grace_s)
    say("Stopped.")


def _webhook_secrets() -> "Secrets":
    from coda.trigger.authentication import read_secrets

    return read_secrets(os.environ)


def _listener(trigger: "Trigger", secrets: "Secrets", host: str, port: int) -> "WebhookServer":
    from coda.trigger.webhook import Webhook
    from coda.trigger.webhook_server import WebhookServer

    webhook = Webhook(trigger.take, landing=trigger.arrivals.landing, secrets=secrets, metrics=trigger.metrics)
    return WebhookServer(webhook, host=host, port=port)


def _receiver() -> "Receiver | None":
    from coda.trigger.receiver import read_receiver

    return read_receiver(os.environ)


def _notifier(trigger: "Trigger", receiver: "Receiver | None") -> "Notifier | None":
    from coda.trigger.notifications import Notifier

    return Notifier(trigger.settings, receiver, trigger.metrics, trigger.ledger.owner) if receiver else None


def _require_a_way(ways: list[str]) -> None:
    if not ways:
        problem = Problem("coda trigger", "neither list, nor queue, nor webhook", "at least one", "Drop --no-poll.")
        raise ConfigError("Nothing would tell the trigger of new batches.", [problem])


def _trigger(
    runner: EngineChoice,
    params: Path,
    overlay: list[Path],
    changes: list[str],
    ignore_source: list[str],
    poll: bool,  # noqa: FBT001
    queue: bool,  # noqa: FBT001
    work: Path,
    parallel: int,
    lease_s: float,
    patience_s: float,
) -> "Trigger":
    from coda.runners.engines import ENGINES
    from coda.settings import read_settings
    from coda.trigger.service import Pace, Trigger

    settings = read_settings()
    submitter = ENGINES[runner.value].submitter(settings, work.resolve())
    return Trigger(
        settings,
        submitter,
        params=read_params(params, overlay, changes),
        ignore_sources=ignore_source,
        poll=poll,
        queue=queue,
        pace=Pace(parallel=parallel, lease_s=lease_s, patience_s=patience_s),
    )


def _tell(handled: "Handled") -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{handled.source}/{handled.batch}: {handled.state.replace('_', ' ')}", markup=False)
    for reason in handled.reasons:
        console.print(f"  {reason}", markup=False)
