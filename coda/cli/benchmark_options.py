"""Options that the tables and figures of `coda benchmark` share, and what is done with them."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from coda.benchmark.benchmark_report import write_json
from coda.benchmark.jobs import raise_for_failures
from coda.benchmark.setting import Setting, ingested_setting, simulated_setting
from coda.cli.benchmark_progress import going_on, showing_jobs, showing_plates
from coda.cli.options import read_params
from coda.errors import ConfigError, Problem


def place_for_report(folder: Path | None) -> Path | None:
    """Return the folder of a report, once it is known that it can be written to; see `place_for_numbers`."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = Problem(f"--out {folder}", str(error), "a folder that can be written to", "Leave it out.")
        raise ConfigError("The report cannot be written there; nothing was computed.", [problem]) from error
    return folder


def place_for_numbers(path: Path | None) -> Path | None:
    """Return a path that numbers will be written to, once it is known that they can be: they take minutes to hours.

    Raises:
        ConfigError: It is a folder, or none of its folders can be written to.
    """
    if path is None:
        return None
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        found, remedy = str(error), f"Write for example --json runs/{path.stem}.json."
        problem = Problem(f"--json {path}", found, "a file in a folder that can be written to", remedy)
        raise ConfigError("The numbers cannot be written there; nothing was computed.", [problem]) from error
    return path


Seeds = Annotated[str, typer.Option("--seeds", help="Seeds, with commas.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", callback=place_for_report, help="Folder of the report; runs/benchmark/<name> if not given."),
]
Json = Annotated[Path | None, typer.Option("--json", callback=place_for_numbers, help="Also write all numbers here.")]
Processes = Annotated[
    int, typer.Option("--processes", min=0, help="Jobs at the same time; 0: one for each core, or one on a GPU.")
]
Work = Annotated[Path, typer.Option("--work", help="Where finished jobs and rendered plates are kept.")]
Source = Annotated[list[str], typer.Option("--source", help="Source to train on; may repeat. Simulated: lab_a.")]
Target = Annotated[list[str], typer.Option("--target", help="Source to apply to; may repeat. All others if not given.")]
Datasets = Annotated[list[Path], typer.Option("--dataset", help="Ingested dataset folder; may repeat.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="CSV with Metadata_Compound and moa, for --dataset.")]

DEFAULT_SEEDS, DEFAULT_WORK = "0,1,2", Path("runs/benchmark/work")
DEMO_OVERLAY = Path("params/demo.yaml")
NONE: Any = []


def read_setting(
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
    numbers = read_seeds(seeds)
    if not dataset:
        # simulated plates are of the demo's size, unless overlays say otherwise
        values = read_params(params, overlay or [params.parent / DEMO_OVERLAY], changes)
        with showing_plates() as progress:
            return simulated_setting(
                numbers, values, work, sources=source, targets=target, processes=cores_for(processes), progress=progress
            )
    if labels is None:
        problem = Problem("--labels", "nothing", "the label table of the plates", "Give the CSV with --labels.")
        raise ConfigError("The plates have no labels to train and score with.", [problem])
    values = read_params(params, overlay, changes)
    return ingested_setting(numbers, values, work, folders=dataset, labels=labels, sources=source, targets=target)


def finish(
    setting: Setting,
    run: Callable[..., Any],
    as_json: Callable[..., dict[str, Any]],
    name: str,
    out: Path | None,
    json: Path | None,
    processes: int,
) -> None:
    """Run a benchmark, say where its report lies, and fail if a job failed."""
    folder = out or Path("runs/benchmark") / name
    with going_on(setting.root), showing_jobs(name) as report:
        result = run(setting, folder, processes=cores_for(processes), report=report)
    if json is not None:
        write_json(json, as_json(result, setting))
    typer.echo(f"Wrote {result.page}")
    raise_for_failures(result.outcomes)


def read_seeds(text: str) -> list[int]:
    """Return the seeds that an option names.

    Raises:
        ConfigError: They cannot be understood.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        problem = Problem("--seeds", repr(text), "whole numbers, each once, with commas", "Write for example 0,1,2.")
        raise ConfigError("The seeds cannot be understood.", [problem])
    return [int(part) for part in parts]


def cores_for(processes: int) -> int:
    """Return the processes that are asked for; a GPU is one job's, and cores are shared one each."""
    import os

    import torch

    return processes or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
