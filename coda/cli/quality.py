"""`coda quality`: the verdict on a batch, with reasons and remedies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coda.contracts.quality import Check, PlateFigures, QualityReport
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
        f"suite: {report.suite_version}"
        + (f"; red-flag list: SHA-256 {report.red_flags[:12]}" if report.red_flags else ""),
        markup=False,
    )
    if report.plates:
        console.print(figures_table(report.plates) if console.width >= WIDE else figures_list(report.plates))
    shown = [check for check in report.checks if everything or not check.passed]
    if shown:
        console.print(checks_table(shown) if console.width >= WIDE else checks_list(shown))
    else:
        console.print(f"All {len(report.checks)} checks were passed.")
    if report.quarantined:
        console.print(quarantine_table(report))


FIGURES = {
    "cells": "nuclei a field in a typical well",
    "edge": "edge less inner wells, in standard deviations of the inner ones",
    "rows": "standard deviation between rows over that within a row",
    "columns": "the same for columns",
    "controls": "SSMD of positive against negative controls in the statistic that separates best, and robust Z'",
    "replicates": "difference of wells of one treatment over that of wells of different ones (pairs)",
    "untreated CV": "robust coefficient of variation of untreated wells: brightness, and nuclei",
}
"""Column of the table of figures -> what it is."""


def _figures(plate: PlateFigures) -> list[str]:
    controls = f"{plate.ssmd:.1f} {plate.control_statistic}" if plate.ssmd is not None else "-"
    z_prime = f", Z' {plate.robust_z_prime:.2f}" if plate.robust_z_prime is not None else ""
    replicates = (
        f"{plate.replicate_spread:.2f} ({plate.replicate_pairs})" if plate.replicate_spread is not None else "-"
    )
    return [
        "-" if plate.cells_median is None else f"{plate.cells_median:.0f}",
        _effect(plate.edge_effect, plate.edge_statistic),
        _effect(plate.row_effect, plate.row_statistic),
        _effect(plate.column_effect, plate.column_statistic),
        controls + z_prime,
        replicates,
        " / ".join("-" if value is None else f"{value:.2f}" for value in (plate.negcon_cv, plate.negcon_cells_cv)),
    ]


def _effect(value: float | None, statistic: str) -> str:
    return "-" if value is None else f"{value:.1f} {statistic}"


def figures_table(plates: Sequence[PlateFigures]) -> Table:
    """Return the figures of the plates, one row a plate; '-' where there are too few wells to say."""
    flagged = any(plate.red_flag for plate in plates)
    table = Table(title="Plates", caption="; ".join(f"{name}: {words}" for name, words in FIGURES.items()))
    for name in ("plate", *(("flag",) if flagged else ()), *FIGURES):
        table.add_column(name, overflow="fold")
    for plate in plates:
        flag = [_flag(plate)] if flagged else []
        table.add_row(*(Text(cell) for cell in (plate.plate, *flag, *_figures(plate))))
    return table


def figures_list(plates: Sequence[PlateFigures]) -> Group:
    """Return the figures one below the other, for terminals too narrow for a table."""
    blocks = []
    for plate in plates:
        lines = Table.grid(padding=(0, 1))
        lines.add_column(min_width=12)
        lines.add_column(overflow="fold")
        rows = [("flag", _flag(plate))] if plate.red_flag else []
        for name, words in [*rows, *zip(FIGURES, _figures(plate), strict=True)]:
            lines.add_row(Text(name, "dim"), Text(words))
        blocks.append(Group(Text(f"\nplate {plate.plate}"), Padding(lines, (0, 0, 0, 2))))
    return Group(*blocks)


def _flag(plate: PlateFigures) -> str:
    return f"{plate.red_flag}: {plate.red_flag_reason}" if plate.red_flag else ""


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
