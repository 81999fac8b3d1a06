"""`coda benchmark`: the paper's tables and figures, on simulated plates or on your own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from coda.benchmark.cells import raise_for_failures
from coda.benchmark.report import write_json
from coda.benchmark.setting import Setting, ingested_setting, simulated_setting
from coda.cli.benchmark_drift import drift
from coda.cli.benchmark_progress import going_on, showing_cells, showing_plates
from coda.cli.benchmark_scale import scale
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params
from coda.errors import ConfigError, Problem

app = typer.Typer(no_args_is_help=True, help="The paper's tables and figures, on simulated plates or on your own.")

Seeds = Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the report; runs/benchmark/<name> if not given.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write all numbers here.")]
Processes = Annotated[
    int, typer.Option("--processes", min=0, help="Cells at the same time; 0: one for each core, or one on a GPU.")
]
Work = Annotated[Path, typer.Option("--work", help="Where finished cells and rendered plates are kept.")]
Source = Annotated[list[str], typer.Option("--source", help="Source to train on; may repeat. Simulated: lab_a.")]
Target = Annotated[list[str], typer.Option("--target", help="Source to apply to; may repeat. All others if not given.")]
Datasets = Annotated[list[Path], typer.Option("--dataset", help="Ingested dataset folder; may repeat.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="CSV with Metadata_Compound and moa, for --dataset.")]

DEFAULT_SEEDS, DEFAULT_WORK = "0,1,2", Path("runs/benchmark/work")
DEMO_OVERLAY = Path("params/demo.yaml")
NONE: Any = []


@app.command()
def table2(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """All eight systems, trained on one source and applied to the others (the paper's table 2)."""
    from coda.benchmark import table2 as module

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, module.table2, module.as_json, "table2", out, json, processes)


@app.command()
def table3(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """DINO against a masked autoencoder, with and without adaptation (the paper's table 3)."""
    from coda.benchmark import table2 as tables
    from coda.benchmark import table3 as module

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, module.table3, tables.as_json, "table3", out, json, processes)


@app.command()
def granularity(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """ODA on a whole source, on each batch and on each plate (the paper's figure 4)."""
    from coda.benchmark import granularity as module
    from coda.benchmark import table2 as tables

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, module.granularity, tables.as_json, "granularity", out, json, processes)


@app.command()
def cka(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Which layers adaptation changes: CKA before, after, and against the target's own model (the paper's figure 6)."""
    from coda.benchmark import cka as module

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, module.cka, module.as_json, "cka", out, json, processes)


@app.command()
def umap(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    whose: Annotated[Literal["extractor", "head"], typer.Option(help="Whose class token.")] = "extractor",
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Class tokens on a plane, before and after adaptation (the paper's figure 5); needs umap-learn."""
    from coda.benchmark import umap as module

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, partial(module.umap, whose=whose), module.as_json, "umap", out, json, processes)


@app.command()
def options(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Every option of adaptation, one at a time, beside no adaptation and the paper's method (docs/adaptation.md)."""
    from coda.benchmark import options as module
    from coda.benchmark import table2 as tables

    setting = _setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    _finish(setting, module.run_options, tables.as_json, "options", out, json, processes)


@app.command()
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
    from coda.benchmark.speed import measure_speed
    from coda.benchmark.speed_tables import as_json, machine_facts, speed_tables, write_speed_report
    from coda.cli.benchmark_speed import SCALES, print_tables, read_scales, showing_words

    found = read_scales(scale or SCALES, params, overlay, changes)
    with showing_words() as told:
        report = measure_speed(found, turns=turns, seconds=seconds, compiled=compiled, cache=work / "plates", told=told)
    print_tables(machine_facts(report), [(table.title, table.values) for table in speed_tables(report)])
    if json is not None:
        write_json(json, as_json(report))
    typer.echo(f"Wrote {write_speed_report(out or Path('runs/benchmark/speed'), report)}")


@app.command()
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
    from coda.benchmark.ingest import measure_ingest
    from coda.benchmark.ingest_tables import as_json, ingest_facts, ingest_tables, write_ingest_report
    from coda.cli.benchmark_speed import print_tables, showing_words

    values = read_params(params, overlay, changes)
    with showing_words() as told:
        report = measure_ingest(
            values, work / "ingest", side=side, different=different, fields=fields, turns=turns, told=told
        )
    print_tables(ingest_facts(report), [(table.title, table.values) for table in ingest_tables(report)])
    if json is not None:
        write_json(json, as_json(report))
    typer.echo(f"Wrote {write_ingest_report(out or Path('runs/benchmark/ingest'), report)}")


app.command()(scale)
app.command()(drift)


@app.command()
def calibrate(
    choose_seeds: Annotated[
        str, typer.Option(help="Seeds that thresholds are chosen on, with commas.")
    ] = "10,11,12,13",
    report_seeds: Annotated[str, typer.Option(help="Seeds that they are reported on, with commas.")] = "20,21",
    run: Annotated[
        list[str], typer.Option(help="source:target:shift:layout; may repeat. A mixture if not given.")
    ] = NONE,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """How well label-free metrics rank true accuracy, and what the gate makes of good and broken models."""
    from coda.benchmark import calibrate as module

    values = read_params(params, overlay or [params.parent / DEMO_OVERLAY], changes)
    choose, other, runs = _seeds(choose_seeds), _seeds(report_seeds), run or list(module.RUNS)
    for line in module.plan_lines(runs, choose, other, values, work):
        typer.echo(line)
    with going_on(work), showing_cells("calibrate") as report:
        result = module.calibrate(
            values, out or Path("runs/benchmark/calibrate"), work, choose_seeds=choose, report_seeds=other, runs=runs,
            processes=_cores(processes), report=report,
        )  # fmt: skip
    if json is not None:
        write_json(json, module.as_json(result))
    typer.echo(f"Wrote {result.page}")
    raise_for_failures(result.outcomes)


def _setting(
    seeds: str,
    work: Path,
    processes: int,
    source: list[str],
    target: list[str],
    dataset: list[Path],
    labels: Path | None,
    params: Path,
    overlay: list[Path],
    changes: list[str],
) -> Setting:
    """Return what the options of every table and figure ask for."""
    numbers = _seeds(seeds)
    if not dataset:
        # simulated plates are of the demo's size, unless overlays say otherwise
        values = read_params(params, overlay or [params.parent / DEMO_OVERLAY], changes)
        with showing_plates() as progress:
            return simulated_setting(
                numbers, values, work, sources=source, targets=target, processes=_cores(processes), progress=progress
            )
    if labels is None:
        problem = Problem("--labels", "nothing", "the label table of the plates", "Give the CSV with --labels.")
        raise ConfigError("The plates have no labels to train and score with.", [problem])
    values = read_params(params, overlay, changes)
    return ingested_setting(numbers, values, work, folders=dataset, labels=labels, sources=source, targets=target)


def _finish(
    setting: Setting,
    run: Callable[..., Any],
    as_json: Callable[..., dict[str, Any]],
    name: str,
    out: Path | None,
    json: Path | None,
    processes: int,
) -> None:
    """Run a benchmark, say where its report lies, and fail if a cell failed."""
    folder = out or Path("runs/benchmark") / name
    with going_on(setting.root), showing_cells(name) as report:
        result = run(setting, folder, processes=_cores(processes), report=report)
    if json is not None:
        write_json(json, as_json(result, setting))
    typer.echo(f"Wrote {result.page}")
    raise_for_failures(result.outcomes)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        problem = Problem("--seeds", repr(text), "whole numbers, each once, with commas", "Write for example 0,1,2.")
        raise ConfigError("The seeds cannot be understood.", [problem])
    return [int(part) for part in parts]


def _cores(processes: int) -> int:
    """Return the processes that are asked for; a GPU is one cell's, and cores are shared one each."""
    import os

    import torch

    return processes or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
