"""The commands of `coda benchmark` that measure the program itself."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.drift.drift_command import drift
from benchmarks.scale.scale_command import scale
from coda.benchmark.benchmark_report import write_json
from coda.cli.benchmark_options import DEFAULT_WORK, NONE, Json, Out, Work
from coda.cli.benchmark_progress import showing_words
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params


def speed(
    scale: Annotated[list[str], typer.Option(help="demo or deit-small; may repeat. Both if not given.")] = NONE,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each comparison.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.01, help="About how long each side runs in a turn.")] = 1.5,
    out: Out = None,
    json: Json = None,
    work: Work = DEFAULT_WORK,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
    *,
    compiled: Annotated[bool, typer.Option("--compiled", help="Also with torch.compile: a minute or more.")] = False,
) -> None:
    """The engine against the customary way and against this machine's matrix rate (docs/speed.md)."""
    from benchmarks.printing import print_tables
    from benchmarks.speed.throughput import measure_speed
    from benchmarks.speed.throughput_options import SCALES, read_scales
    from benchmarks.speed.throughput_tables import as_json, machine_facts, speed_tables, write_speed_report

    found = read_scales(scale or SCALES, params, overlay, changes)
    with showing_words() as told:
        report = measure_speed(found, turns=turns, seconds=seconds, compiled=compiled, cache=work / "plates", told=told)
    print_tables(machine_facts(report), [(table.title, table.values) for table in speed_tables(report)])
    if json is not None:
        write_json(json, as_json(report))
    typer.echo(f"Wrote {write_speed_report(out or Path('runs/benchmark/speed'), report)}")


def ingest(
    side: Annotated[int, typer.Option(min=64, max=4096, help="Edge of a raw image in pixels.")] = 1080,
    different: Annotated[int, typer.Option(min=2, help="Fields that are simulated; stages are measured on them.")] = 12,
    fields: Annotated[int, typer.Option(min=12, max=3456, help="Fields of the plate that is ingested whole.")] = 144,
    turns: Annotated[int, typer.Option(min=1, help="Times everything is measured.")] = 3,
    out: Out = None,
    json: Json = None,
    work: Work = DEFAULT_WORK,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Reading, correcting, compressing and writing plates, against the codecs alone and the obvious way."""
    from benchmarks.ingest.ingest_speed import measure_ingest
    from benchmarks.ingest.ingest_tables import as_json, ingest_facts, ingest_tables, write_ingest_report
    from benchmarks.printing import print_tables

    values = read_params(params, overlay, changes)
    with showing_words() as told:
        report = measure_ingest(
            values, work / "ingest", side=side, different=different, fields=fields, turns=turns, told=told
        )
    print_tables(ingest_facts(report), [(table.title, table.values) for table in ingest_tables(report)])
    if json is not None:
        write_json(json, as_json(report))
    typer.echo(f"Wrote {write_ingest_report(out or Path('runs/benchmark/ingest'), report)}")


def add_to(app: typer.Typer) -> None:
    """Add the commands to `coda benchmark`."""
    for command in (speed, ingest, scale, drift):
        app.command()(command)
