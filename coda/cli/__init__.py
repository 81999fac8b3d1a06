"""The command line: verbs only. Each sub-command lives in its own file and calls one function of the library.

Sub-commands are imported when they are used, so that `coda --help` answers at once.
"""

import importlib
import os
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from coda.errors import CodaError

COMMANDS = {
    "demo": "Run the whole loop on this machine, or keep its stack up",
    "pipeline": "Run or compile the training and adaptation pipelines",
    "trigger": "Watch the landing bucket and start a run for each new batch",
    "ledger": "What became of every batch that landed",
    "doctor": "What does not agree between ledger, releases, models and data",
    "registry": "Extractors, heads and releases: list, show, promote, roll back",
    "predict": "Predict a batch with the release that serves its source",
    "data": "Versions of the data: what the data registry holds",
    "step": "Run one step of a pipeline on local paths",
    "manifest": "Describe plates where they lie, and check what is there",
    "labels": "The label table that a head is trained with, from your own annotations",
    "plates": "View plate stores; import plates of real instruments",
    "quality": "Read the verdict on a batch",
    "simulate": "Make Cell Painting plates with known truth",
    "benchmark": "The paper's tables and figures, speed and calibration",
    "monitoring": "Dashboards and alert rules as code",
    "params": "Check and print the parameters",
    "schemas": "Write the JSON schemas of the contracts",
}
"""Sub-command -> one line of help; the module of the same name holds its `app`."""


class LazyGroup(TyperGroup):
    """A group whose sub-commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the sub-commands in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what the list of sub-commands shows of one: its name and its line of help."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the sub-command that is called."""
        if args[0] not in COMMANDS:
            return super().resolve_command(ctx, args)
        command = typer.main.get_command(importlib.import_module(f"coda.cli.{args[0]}").app)
        command.name = args[0]
        return args[0], command, args[1:]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="CODA: repair microscopy classifiers without labels when images come from another laboratory, microscope or "
    "week.\n\nStart with [bold]coda demo run[/bold] (or `make demo`). Exit codes: docs/errors.md.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _version() -> None:
    """Hold the group together; the sub-commands do the work."""


def main() -> None:
    """Run the command line; an error of ours, or of the operating system, becomes its message and its exit code."""
    # prometheus_client would share its numbers with other processes by files in a folder that need not be there
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    try:
        try:
            app()
        except (OSError, UnicodeError) as error:
            from coda.cli.system import explained

            raise explained(error) from error
    except CodaError as error:
        # imported here: settings bring pydantic, which takes a fifth of a second of every call of --help
        from rich.console import Console

        from coda.settings import without_secrets

        # no emoji: an address such as host:-1: would get a thumb
        console = Console(stderr=True, highlight=False, emoji=False)
        console.print(f"[bold red]{type(error).__name__}[/bold red]", end=" ")
        console.print(without_secrets(str(error)), markup=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from error
