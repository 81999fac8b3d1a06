"""`coda simulate`: Cell Painting plates with known truth, delivered as a laboratory would deliver them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from coda.errors import ConfigError, Problem
from coda.simulation.broken import KINDS, break_batch
from coda.simulation.contact_sheet import contact_sheet
from coda.simulation.delivery import rendering_pool, simulate_batch
from coda.simulation.design import PLATE_SHAPES, Design, plan_experiment, write_labels
from coda.simulation.laboratories import LABORATORIES, find_laboratory
from coda.simulation.shifted_layouts import laid_out
from coda.simulation.shifts import read_shifts, shifted_by_kind

app = typer.Typer(no_args_is_help=True, help="Make Cell Painting plates with known truth (docs/simulation.md).")


def _design(plate_wells: int, field_px: int, binning: int, sites: int) -> Design:
    if plate_wells not in PLATE_SHAPES:
        known = ", ".join(str(wells) for wells in PLATE_SHAPES)
        problem = Problem("--plate-wells", str(plate_wells), f"one of {known}", "Choose a plate format.")
        raise ConfigError("This plate cannot be simulated.", [problem])
    sizes = {"plate_wells": plate_wells, "field_px": field_px, "binning": binning, "sites_per_well": sites}
    # the usual 24 compounds and 10 controls do not fit on the smallest plate: two compounds of each mechanism do
    fewer = {"compounds_per_mechanism": 2, "negcon_wells": 6} if plate_wells == min(PLATE_SHAPES) else {}
    return Design.model_validate(sizes | fewer)


def _showing(progress: Progress, task: TaskID) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)

    return show


@app.command()
def batch(
    out: Annotated[Path, typer.Argument(help="Folder; the batches go to <out>/<lab>/<batch>/.")],
    lab: Annotated[str, typer.Option(help=f"Laboratory: {', '.join(LABORATORIES)}.")] = "lab_a",
    shift: Annotated[
        str,
        typer.Option(
            help="KIND:STRENGTH, or several with +: the laboratory differs from --shift-from in these kinds only. "
            "Kinds: photometric, optical, geometric, biological, all; missing, dominant, doses, moved (layouts)."
        ),
    ] = "all:1",
    shift_from: Annotated[str, typer.Option(help="Laboratory at strength 0.")] = "lab_a",
    batches: Annotated[int, typer.Option(min=1, max=1000, help="Number of batches.")] = 1,
    plates: Annotated[int, typer.Option(min=1, max=100, help="Plates in each batch.")] = 2,
    first: Annotated[int, typer.Option(min=1, help="Number of the first batch.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the experiment: compounds, layout and everything else.")
    ] = 0,
    plate_wells: Annotated[int, typer.Option(help="Wells of a plate: 24 (fewer compounds), 48, 96 or 384.")] = 48,
    field_px: Annotated[int, typer.Option(min=32, max=4096, help="Edge of a raw field in pixels.")] = 256,
    binning: Annotated[int, typer.Option(min=1, max=8, help="Camera binning; 1 is about 0.6 um a pixel.")] = 2,
    sites: Annotated[int, typer.Option(min=1, max=16, help="Fields in each well.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 2,
    labels: Annotated[Path | None, typer.Option(help="Also write the truth (Metadata_Compound, moa) here.")] = None,
) -> None:
    """Simulate batches of one laboratory; the same seed gives the same compounds and layout in every laboratory."""
    shifts = read_shifts(shift)
    laboratory = shifted_by_kind(find_laboratory(shift_from), find_laboratory(lab), shifts)
    planned = plan_experiment(seed, _design(plate_wells, field_px, binning, sites))
    experiment = laid_out(planned, shifts)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with rendering_pool(workers) as pool, Progress(*columns, console=console) as progress:
        for number in range(first, first + batches):
            name = f"batch_{number:02d}"
            task = progress.add_task(f"{lab}/{name}: fields", total=None)
            manifest = simulate_batch(
                experiment,
                laboratory,
                name,
                [f"{lab}_{name}_p{plate}" for plate in range(1, plates + 1)],
                out,
                workers=1,
                pool=pool,
                progress=_showing(progress, task),
            )
            progress.update(task, total=1, completed=1)
            typer.echo(out / manifest.source / manifest.batch)
    if labels is not None:
        typer.echo(write_labels(experiment, labels))


@app.command(name="break")
def break_(
    folder: Annotated[Path, typer.Argument(help="Delivered batch: <out>/<lab>/<batch>.")],
    kind: Annotated[list[str], typer.Option(help=f"May repeat: {', '.join(KINDS)}.")],
    seed: Annotated[int, typer.Option(min=0, help="Chooses the files.")] = 0,
) -> None:
    """Break a delivered batch in documented ways, to see it refused or its bad parts set aside."""
    for sentence in break_batch(folder, kind, seed):
        typer.echo(sentence)


@app.command()
def sheet(
    folder: Annotated[Path, typer.Argument(help="Folder of sources, or one delivered batch.")],
    out: Annotated[Path, typer.Argument(help="PNG to write.")],
    treatment: Annotated[list[str] | None, typer.Option(help="Treatment of the plate map; may repeat.")] = None,
) -> None:
    """Draw a contact sheet: every stain and a colour composite of several treatments and sources."""
    typer.echo(contact_sheet(folder, out, treatments=treatment))
