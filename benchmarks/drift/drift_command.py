"""`coda benchmark drift`: the drift rules beside plain limits and well-known detectors."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.benchmark_options import Json
from coda.cli.benchmark_progress import showing_words

REPORT_FROM = 100
"""First seed that figures come from; thresholds are chosen on those below."""

CHOOSE = range(10, 30)


def drift(
    seeds: Annotated[int, typer.Option(min=1, help=f"Seeds that figures come from, {REPORT_FROM} and up.")] = 100,
    steady: Annotated[int, typer.Option(min=20, help="Steady histories of each choosing seed.")] = 1500,
    changed: Annotated[int, typer.Option(min=2, help="Histories of each seed and change.")] = 50,
    json: Json = None,
) -> None:
    """False alarms and delays of the drift rules, plain limits and known detectors (docs/drift_rules.md)."""
    from benchmarks.drift.drift_runs import run_study
    from benchmarks.drift.drift_tables import as_json, tables
    from benchmarks.drift.odd_plates import run_plates
    from coda.benchmark.benchmark_report import write_json

    report = range(REPORT_FROM, REPORT_FROM + seeds)
    with showing_words() as told:
        study = run_study(CHOOSE, report, steady=steady, changed=changed, tell=told)
        plates = run_plates(report, changed, tell=told)
    console = Console(highlight=False)
    for title, columns, rows in tables(study, plates):
        table = Table(title=title, title_justify="left")
        for place, name in enumerate(columns):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if json is not None:
        typer.echo(f"Wrote {write_json(json, as_json(study, plates))}")
