"""`coda benchmark scale`: how one batch grows through the adaptation pipeline."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coda.cli.benchmark_options import Json
from coda.cli.benchmark_progress import going_on, showing_words
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params
from coda.errors import ConfigError, Problem

DEFAULT_WORK = Path("runs/benchmark/scale")
MOST_PLATES = 99
NONE: Any = []


def scale(
    plates: Annotated[str, typer.Option(help="Plates of the batches that are measured, with commas.")] = "1,4,8",
    archive: Annotated[int, typer.Option(min=0, max=20, help="Accepted batches of the source before each.")] = 0,
    field_px: Annotated[int, typer.Option(min=128, max=2160, help="Side of the images, in pixels.")] = 128,
    json: Json = None,
    work: Annotated[
        Path, typer.Option("--work", help="Plates, services and sizes that were measured; may be deleted.")
    ] = DEFAULT_WORK,
    objects: Annotated[
        int, typer.Option(min=0, help="Objects in the landing prefix that a trigger polls; 0: none.")
    ] = 100_000,
    versions: Annotated[int, typer.Option(min=0, help="Batch versions in its ledger.")] = 1_000,
    manifest_plates: Annotated[
        int, typer.Option(min=0, help="Plates of 17,280 images of a manifest that a trigger takes; 0: none.")
    ] = 30,
    releases: Annotated[int, typer.Option(min=0, help="Releases that `coda registry list` lists; 0: none.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that simulate plates.")] = 2,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Seconds, memory and bytes of every step of the adaptation pipeline as a batch grows (docs/benchmark.md)."""
    from benchmarks.scale.scale_json import as_json
    from benchmarks.scale.scale_runs import Scale, Size
    from benchmarks.scale.scale_tables import print_growth, print_parts, print_sizes, print_steps, print_verdicts
    from benchmarks.scale.scale_verdicts import verdicts_of
    from coda.benchmark.benchmark_report import write_json

    sizes = [Size(count, archive) for count in read_plates(plates)]
    values = read_params(params, overlay or [params.parent / "params" / "demo.yaml"], changes)
    with going_on(work, "sizes"), showing_words() as told:
        bench = Scale(work, values, field_px=field_px, workers=workers, told=told)
        rows = bench.measure(sizes)
        parts = bench.measure_parts(
            objects=objects, versions=versions, manifest_plates=manifest_plates, releases=releases
        )
    console = Console(highlight=False)
    print_sizes(rows, console)
    print_steps(rows[-1], console)
    print_growth(rows, console)
    print_parts(parts, console)
    print_verdicts(verdicts_of(rows), console)
    if json is not None:
        typer.echo(f"Wrote {write_json(json, as_json(rows, parts, field_px))}")


def read_plates(text: str) -> list[int]:
    """Return the numbers of plates that an option names, smallest first.

    Raises:
        ConfigError: They cannot be understood.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) if part.isdecimal() and part.isascii() else 0 for part in parts]
    if len(set(numbers)) < len(numbers) or not all(1 <= number <= MOST_PLATES for number in numbers):
        expected = f"whole numbers of 1 to {MOST_PLATES}, each once, with commas"
        raise ConfigError(
            "The sizes cannot be understood.", [Problem("--plates", repr(text), expected, "Write for example 1,4,8.")]
        )
    return sorted(numbers)
