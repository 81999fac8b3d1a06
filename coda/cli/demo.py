"""`coda demo`: the whole loop on this machine, and its stack to explore."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.hangup import end_on_hangup
from coda.cli.rows import Column, print_rows
from coda.contracts.recipe import ALIGNMENTS, METHODS, RECIPES, Recipe

app = typer.Typer(no_args_is_help=True, help="Run the whole loop on this machine, or keep its stack up.")

Seed = Annotated[int, typer.Option(help="Seed of plates and training.", min=0)]
Runs = Annotated[Path, typer.Option("--runs", help="Folder for the demo's state.")]
RUNS = Path("runs/demo")
SERVED = (
    Column("source", lambda item: item[0]),
    Column("release", lambda item: item[1]["release_id"]),
    Column("method", lambda item: item[1]["method"], yields=1),
    Column("extractor", lambda item: str(item[1]["extractor"]["version"]), right=True),
    Column("head", lambda item: str(item[1]["head"]["version"]), right=True),
)
ORDER = (
    *(name for name, recipe in RECIPES.items() if recipe.method is None),
    *(str(Recipe.of(method, alignment)) for alignment in ALIGNMENTS for method in METHODS if method),
    "incumbent", "released",
)  # fmt: skip
"""Methods in the order of the table."""


@app.command()
def run(
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(help="Number of seeds to run and average, from --seed on.", min=1)] = 1,
    runs: Runs = RUNS,
) -> None:
    """Simulate, train, adapt, judge, release, predict and report; resumes where it was interrupted."""
    from coda.local.demo import demo_params, require_checkout, run_seed
    from coda.local.summary import average

    # bound now: a runner that captures what its steps print must not capture the story
    console = Console(file=sys.stdout)
    root = Path.cwd()
    require_checkout(root)
    end_on_hangup()
    summaries = []
    for number in range(seed, seed + seeds):
        if seeds > 1:
            console.rule(f"seed {number}")
        summaries.append(run_seed(runs / f"seed-{number}", number, demo_params(number, root), console))
    summary = average(summaries)
    path = runs / "summary.json"
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
    _print(summary, path, console)


@app.command()
def up(seed: Seed = 0, runs: Runs = RUNS) -> None:
    """Keep the stack up: object store, MLflow UI, metrics endpoint and the trigger; Ctrl-C stops it."""
    from coda.local.demo import demo_params, require_checkout
    from coda.local.up import keep_up

    root = Path.cwd()
    require_checkout(root)
    end_on_hangup()
    keep_up(runs / f"seed-{seed}", demo_params(seed, root), Console())


def _print(summary: dict[str, Any], path: Path, console: Console) -> None:
    console.print()
    _print_accuracies(summary["sources"], console)
    _print_releases(summary["sources"], console)
    for item in summary["refused"]:
        console.print(f"Refused: {item['batch']}. {item['sentence']}", markup=False)
    console.print("What the pages about drift say:")
    for source, told in summary["drift"].items():
        console.print(f"  {source}: {told['sentence']}", markup=False, highlight=False)
    console.print("Pages to open in a browser, with a report of each batch behind them:")
    console.print(f"  {summary['pages']}", markup=False, soft_wrap=True)
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    console.print(
        f"Everything above in numbers: {path} (after {minutes} min {seconds} s). `make up` lets you look around."
    )


def _print_accuracies(sources: dict[str, Any], console: Console) -> None:
    table = Table(title="Accuracy against the simulation's truth, which no adaptation step ever reads")
    names: list[str] = []
    for entry in sources.values():
        names.extend(name for name in entry["methods"] if name not in names)
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER) - 1)
    table.add_column("fields / wells")
    for source, entry in sources.items():
        table.add_column(f"{source} ({entry['role']})", justify="right")
    for name in names:
        scores = [entry["methods"].get(name) for entry in sources.values()]
        cells = [f"{score['accuracy_field']:.3f} / {score['accuracy_well']:.3f}" if score else "" for score in scores]
        table.add_row(name, *cells, style="bold" if name == "released" else "")
    console.print(table)


def _print_releases(sources: dict[str, Any], console: Console) -> None:
    served = [(source, entry["release"]) for source, entry in sources.items() if entry["release"]]
    print_rows(served, SERVED, title="Which release serves which source", empty="Nothing serves.")
    for source, entry in sources.items():
        if release := entry["release"]:
            console.print(f"{source}: {release['gate_sentence']}", markup=False, highlight=False)
