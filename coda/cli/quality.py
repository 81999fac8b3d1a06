"""`coda quality`: the verdict on a batch, with reasons and remedies."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coda.contracts.quality import Check, QualityReport
from coda.errors import ContractError, Problem

app = typer.Typer(no_args_is_help=True, help="Read the verdict on a batch.")

WIDE = 120
"""Columns from which six columns of words are readable side by side."""

COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


@app.callback()
def _group() -> None:
    """Keep `show` a sub-command also while it is the only one."""


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Batch folder, <dataset>/<source>/<batch>, or a quality.json.")],
    everything: Annotated[bool, typer.Option("--all", help="Also list the checks that were passed.")] = False,  # noqa: FBT002
    width: Annotated[int | None, typer.Option(help="Columns of the output; by default the terminal's.")] = None,
) -> None:
    """Print what was found in a batch, what it means, and what to do about it."""
    path = folder if folder.is_file() else folder / "quality.json"
    if not path.is_file():
        problem = Problem(str(path), "no such file", "the report of the validation step", "Run `coda step validate`.")
        raise ContractError("There is no verdict on this batch yet.", [problem])
    report = QualityReport.read(path)
    console = Console(width=width, highlight=False)
    console.print(Text(report.sentence, style="bold red" if report.refused else "bold green"))
    console.print(
        f"{report.fields_accepted} of {report.fields_expected} fields, plates accepted: "
        f"{', '.join(report.plates_accepted) or 'none'}; refused: {', '.join(report.plates_refused) or 'none'}; "
        f"suite: {report.suite_version}",
        markup=False,
    )
    shown = [check for check in report.checks if everything or not check.passed]
    if shown:
        console.print(checks_table(shown) if console.width >= WIDE else checks_list(shown))
    else:
        console.print(f"All {len(report.checks)} checks were passed.")
    if report.quarantined:
        console.print(quarantine_table(report))


def checks_table(checks: list[Check]) -> Table:
    """Return the checks as a table, the gravest first."""
    table = Table(title="Checks", show_lines=True, expand=True)
    table.add_column("", min_width=8, no_wrap=True)
    for name, ratio in (("where", 2), ("found", 5), ("expected", 4), ("what it means", 5), ("what to do", 5)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for check in _gravest_first(checks):
        found = f"{check.name.replace('_', ' ')}: {check.observed}"
        cells = (check.where, found, check.expected, check.reason, check.remedy)
        table.add_row(_mark(check), *(Text(cell) for cell in cells))
    return table


def checks_list(checks: list[Check]) -> Group:
    """Return the checks one below the other, the gravest first, for terminals too narrow for a table."""
    blocks = []
    for check in _gravest_first(checks):
        title = Text.assemble("\n", _mark(check), f"  {check.where}: {check.name.replace('_', ' ')}")
        lines = Table.grid(padding=(0, 1))
        lines.add_column(min_width=10)
        lines.add_column(overflow="fold")
        rows = [("found", check.observed), ("expected", check.expected)]
        rows += [] if check.passed else [("meaning", check.reason), ("what to do", check.remedy)]
        for name, words in rows:
            lines.add_row(Text(name, "dim"), Text(words))
        blocks.append(Group(title, Padding(lines, (0, 0, 0, 2))))
    return Group(*blocks)


def _gravest_first(checks: list[Check]) -> list[Check]:
    order = {"critical": 0, "warning": 1, "info": 2}
    return sorted(checks, key=lambda check: (check.passed, order[check.severity]))


def _mark(check: Check) -> Text:
    return Text("passed", "green") if check.passed else Text(check.severity, COLOURS[check.severity])


def quarantine_table(report: QualityReport) -> Table:
    """Return the fields and files that were set aside, at most fifty."""
    table = Table(title=f"Set aside: {len(report.quarantined)} fields or files", expand=True)
    for name in ("plate", "well", "site", "stain", "why"):
        table.add_column(name, overflow="fold")
    for item in report.quarantined[:50]:
        site = "" if item.site is None else str(item.site)
        table.add_row(*(Text(cell) for cell in (item.plate, item.well, site, item.channel, item.reason)))
    return table
