"""The command line: verbs only. Each sub-command lives in its own file and calls one function of the library.

Sub-commands are imported when they are used, so that `coda --help` answers at once.
"""

import importlib
import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from coda.errors import CodaError

COMMANDS = {
    "demo": "Run the whole loop on this machine, or keep its stack up",
    "pipeline": "Run or compile the training and adaptation pipelines",
    "trigger": "Watch the landing bucket and start a run for each new batch",
    "ledger": "What became of every batch that landed",
    "registry": "Extractors, heads and releases: list, show, promote, roll back",
    "step": "Run one step of a pipeline on local paths",
    "plates": "Look into plate stores; adopt plates of real instruments",
    "quality": "Read the verdict on a batch",
    "simulate": "Make Cell Painting plates with known truth",
    "monitoring": "Dashboards and alert rules as code",
    "params": "Check and print the parameters",
    "schemas": "Write the JSON schemas of the contracts",
}
"""Sub-command -> one line of help; the module of the same name holds its `app`."""


class LazyGroup(TyperGroup):
    """A group whose sub-commands are imported on use."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """Return the sub-commands in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:
        """Import the sub-command, or return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        if "--help" in sys.argv[1:2] or len(sys.argv) == 1:
            stub = typer.Typer(help=COMMANDS[cmd_name], name=cmd_name)
            stub.command(name=cmd_name, help=COMMANDS[cmd_name])(_nothing)
            return typer.main.get_command(stub)
        module = importlib.import_module(f"coda.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


def _nothing() -> None:
    """Stand in for a sub-command while only its one line of help is printed."""


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
    """Run the command line; a `CodaError` becomes its message and its exit code."""
    try:
        app()
    except CodaError as error:
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]{type(error).__name__}[/bold red]", end=" ")
        console.print(str(error), markup=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from error
