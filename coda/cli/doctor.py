"""`coda doctor`: whether ledger, runs, releases, models, data and results agree."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from coda.cli.trigger import WORK, Lease
from coda.settings import read_settings

app = typer.Typer(help="Whether ledger, runs, releases, models, data and results agree.")


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--repair", help="Repair what is safe, and check again.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
    work: Annotated[Path, typer.Option(help="Folder of the runs of this machine.")] = WORK,
    lease_s: Lease = 120,
    abandoned_s: Annotated[
        float, typer.Option(min=0, help="Seconds of silence after which runs, uploads and folders count as left.")
    ] = 86400,
) -> None:
    """Say exactly what does not agree, with the remedy; exit code 0 only if nothing (docs/doctor.md)."""
    from coda.doctor import examine, repair

    settings = read_settings()
    found = examine(settings, work=work, lease_s=lease_s, abandoned_s=abandoned_s)
    done = repair(found) if fix else []
    if done:
        found = examine(settings, work=work, lease_s=lease_s, abandoned_s=abandoned_s)
    if as_json:
        facts = {"batches": found.batches, "releases": found.releases, "versions": found.versions}
        typer.echo(json.dumps({**facts, "repaired": done, "findings": [item.to_json() for item in found.findings]}))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for words in done:
            console.print(f"Repaired: {words}", markup=False)
        seen = f"{found.batches} batch version(s), {found.releases} release(s) and {found.versions} model version(s)"
        console.print(f"Looked at {seen}: {'nothing to report' if not found.findings else 'not all agree'}.")
    found.raise_if_any()
