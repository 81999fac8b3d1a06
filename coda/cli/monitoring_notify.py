"""`coda monitoring notify`: what is configured of the receiver of notifications, and whether it takes them."""

import os
from typing import Annotated

import typer

from coda.errors import ConfigError, Problem, TransientError


def notify(
    *, test: Annotated[bool, typer.Option("--test", help="Send a test message and print the answer.")] = False
) -> None:
    """Show who is notified of refused, held, failed and drifting batches; --test tries it. The trigger notifies."""
    from coda.trigger.notifications import trial
    from coda.trigger.receiver import KEY, URL, read_receiver, send

    receiver = read_receiver(dict(os.environ))
    if receiver is None:
        problem = Problem(f"{URL}, {KEY}", "neither", "an address and a key", "Set both (docs/monitoring.md).")
        raise ConfigError("No receiver of notifications is configured.", [problem])
    typer.echo(f"{receiver.host} is told of: {', '.join(receiver.on)}")
    if not test:
        return
    answer = send(receiver, trial())
    if answer.status is None:
        raise TransientError(f"The test message did not reach {receiver.host}: {answer.words}.")
    if not answer.taken:
        remedy = f"Compare {URL} with what the receiver shows you, and {KEY} with what it checks signatures by."
        problem = Problem(receiver.host, str(answer), "an answer of 200 to 299; redirects are not followed", remedy)
        raise ConfigError("The receiver did not take the test message.", [problem])
    typer.echo(f"The receiver answered: {answer}")
