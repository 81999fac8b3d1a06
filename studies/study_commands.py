"""The commands of `coda benchmark` that make a study again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from coda.benchmark.benchmark_report import write_json
from coda.benchmark.jobs import raise_for_failures
from coda.cli.benchmark_options import (
    DEFAULT_WORK,
    DEMO_OVERLAY,
    NONE,
    Json,
    Out,
    PlateOptions,
    Processes,
    Work,
    cores_for,
    on_plates,
    read_seeds,
)
from coda.cli.benchmark_progress import going_on, showing_jobs
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params

POLICIES = ["gate-v3", "gate-v4", "gate-v5"]


@on_plates
def granularity(plates: PlateOptions) -> None:
    """ODA on a whole source, on each batch and on each plate (the paper's figure 4)."""
    from coda.benchmark import table2 as tables
    from studies.figures import granularity_figure as module

    plates.finish(module.granularity, tables.as_json, "granularity")


@on_plates
def cka(plates: PlateOptions) -> None:
    """Which layers adaptation changes: CKA before, after, and against the target's own model (the paper's figure 6)."""
    from studies.figures import cka_figure as module

    plates.finish(module.cka, module.as_json, "cka")


@on_plates
def umap(
    plates: PlateOptions,
    whose: Annotated[Literal["extractor", "head"], typer.Option(help="Whose class token.")] = "extractor",
) -> None:
    """Class tokens on a plane, before and after adaptation (the paper's figure 5); needs umap-learn."""
    from studies.figures import umap_figure as module

    plates.finish(partial(module.umap, whose=whose), module.as_json, "umap")


@on_plates
def options(plates: PlateOptions) -> None:
    """Every option of adaptation, one at a time, beside no adaptation and the paper's method (docs/adaptation.md)."""
    from coda.benchmark import table2 as tables
    from studies import adaptation_options as module

    plates.finish(module.run_options, tables.as_json, "options")


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
    from studies.gate_calibration import calibration as module

    values = read_params(params, overlay or [params.parent / DEMO_OVERLAY], changes)
    choose, other, runs = read_seeds(choose_seeds), read_seeds(report_seeds), run or list(module.RUNS)
    for line in module.plan_lines(runs, choose, other, values, work):
        typer.echo(line)
    with going_on(work), showing_jobs("calibrate") as report:
        result = module.calibrate(
            values, out or Path("runs/benchmark/calibrate"), work, choose_seeds=choose, report_seeds=other, runs=runs,
            processes=cores_for(processes), report=report,
        )  # fmt: skip
    if json is not None:
        write_json(json, module.as_json(result))
    typer.echo(f"Wrote {result.page}")
    raise_for_failures(result.outcomes)


def policies(
    policy: Annotated[list[str], typer.Option(help="Name of a policy or path of its file; may repeat.")] = POLICIES,
    seeds: Annotated[str, typer.Option(help="Seeds of plates and models, with commas.")] = "14,15",
    run: Annotated[
        list[str], typer.Option(help="source:target:shift:layout; may repeat. A mixture if not given.")
    ] = NONE,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """Policies of the gate on the same sets of good and broken models, whose truth is known."""
    from studies.gate_calibration import policy_comparison as module
    from studies.gate_calibration.calibration import RUNS

    files = overlay or [params.parent / DEMO_OVERLAY]
    values = read_params(params, files, changes)
    compared = [read_params(params, files, [*changes, f"gate.policy={name}"]).gate.policy for name in policy]
    with going_on(work), showing_jobs("policies") as report:
        result = module.compare_policies(
            values, work, compared, seeds=read_seeds(seeds), runs=run or list(RUNS),
            processes=cores_for(processes), report=report,
        )  # fmt: skip
    if json is not None:
        write_json(json, {"runs": result.runs, "summary": result.summary, "decisions": result.decisions})
    typer.echo(result.summary.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    typer.echo(f"{result.runs} targets; docs/protocol.md asks for {module.WANTED_SETS} sets before a default follows.")
    raise_for_failures(result.outcomes)


def plate_checks(
    seeds: Annotated[str, typer.Option(help="Seeds of the plates, with commas.")] = "3,4",
    json: Json = None,
    processes: Processes = 0,
) -> None:
    """False alarms and detections of swapped stains and wrong plate maps, on simulated plates (decision 0051)."""
    from studies import plate_checks as module

    numbers, at_once = read_seeds(seeds), cores_for(processes)

    def told(what: str) -> Callable[[int], None]:
        return lambda seed: typer.echo(f"{what}: seed {seed} is done", err=True)

    stains = module.over_seeds(module.stain_cases, numbers, processes=at_once, report=told("stains"))
    maps = module.over_seeds(module.map_cases, numbers, processes=at_once, report=told("plate maps"))
    tables = {"stains": module.stain_rates(stains), "maps": module.map_rates(maps)}
    for name, table in tables.items():
        typer.echo(f"\n{name}\n{table.to_string(index=False, float_format=lambda value: f'{value:.2f}')}")
    if json is not None:
        write_json(json, {"seeds": numbers, **tables})


def add_to(app: typer.Typer) -> None:
    """Add the commands to `coda benchmark`."""
    for command in (granularity, cka, umap, options, calibrate, policies, plate_checks):
        app.command(command.__name__.replace("_", "-"))(command)
