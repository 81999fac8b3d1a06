"""Options that the tables and figures of `coda benchmark` share, and what is done with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from coda.benchmark.benchmark_report import write_json
from coda.benchmark.jobs import raise_for_failures
from coda.benchmark.setting import Setting, ingested_setting, simulated_setting
from coda.cli.benchmark_progress import going_on, showing_jobs, showing_plates
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params, taking
from coda.errors import ConfigError, Problem, raise_if_any
from coda.simulation.shifts import read_shifts


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


@dataclass(frozen=True)
class PlateOptions:
    """What every table and figure is asked for; see the options' own help."""

    seeds: Seeds = DEFAULT_SEEDS
    out: Out = None
    json: Json = None
    processes: Processes = 0
    work: Work = DEFAULT_WORK
    source: Source = field(default_factory=list)
    target: Target = field(default_factory=list)
    dataset: Datasets = field(default_factory=list)
    labels: Labels = None
    params: ParamsFile = DEFAULT_PARAMS
    overlay: Overlays = field(default_factory=list)
    changes: Settings_ = field(default_factory=list)

    def setting(self, shift: Sequence[str] = ()) -> Setting:
        """Return the plates and models that the options ask for.

        Args:
            shift: Shifts of simulated targets, as `coda.simulation.shifts.read_shifts` reads them.

        Raises:
            CodaError: The options, the plates or the labels cannot be used.
        """
        numbers, shifts = read_seeds(self.seeds), [read_shifts(text) for text in shift]
        if not self.dataset:
            # simulated plates are of the demo's size, unless overlays say otherwise
            files = self.overlay or [self.params.parent / DEMO_OVERLAY]
            values = read_params(self.params, files, self.changes)
            with showing_plates() as progress:
                return simulated_setting(
                    numbers, values, self.work, sources=self.source, targets=self.target, shifts=shifts,
                    processes=cores_for(self.processes), progress=progress,
                )  # fmt: skip
        if shifts:
            problem = Problem("--shift", ", ".join(shift), "no --dataset beside it", "Leave out one of the two.")
            raise ConfigError("Only simulated plates can be shifted.", [problem])
        values = read_params(self.params, self.overlay, self.changes)
        return ingested_setting(
            numbers, values, self.work, folders=self.dataset, labels=self.label_table(), sources=self.source,
            targets=self.target,
        )  # fmt: skip

    def real_setting(self, hold_out: Sequence[str], shifts: Sequence[str], pseudo_compounds: int) -> Setting:
        """Return the user's own plates with some held out; see `coda.benchmark.real.real_setting`.

        Raises:
            CodaError: The options, the plates or the labels cannot be used.
        """
        from coda.benchmark.pixel_shifts import read_pixel_shift
        from coda.benchmark.real import real_setting

        problems = []
        if not self.dataset:
            remedy = "Give the folder of coda step ingest with --dataset, or use coda benchmark table2."
            problems.append(Problem("--dataset", "nothing", "your ingested plates", remedy))
        if len(self.source) != 1:
            remedy = "Name one, for example --source lab_a."
            problems.append(Problem("--source", ", ".join(self.source) or "nothing", "one source to train on", remedy))
        raise_if_any(ConfigError, "It is not said which plates to use.", problems)
        return real_setting(
            read_seeds(self.seeds), read_params(self.params, self.overlay, self.changes), self.work,
            folders=self.dataset, labels=self.label_table(), source=self.source[0], targets=self.target,
            hold_out=hold_out, shifts=[read_pixel_shift(text) for text in shifts if text != "none"],
            pseudo_compounds=pseudo_compounds,
        )  # fmt: skip

    def label_table(self) -> Path:
        """Return the label table of ingested plates.

        Raises:
            ConfigError: None was given.
        """
        if self.labels is None:
            problem = Problem("--labels", "nothing", "the label table of the plates", "Give the CSV with --labels.")
            raise ConfigError("The plates have no labels to train and score with.", [problem])
        return self.labels

    def finish(
        self,
        run: Callable[..., Any],
        as_json: Callable[..., dict[str, Any]],
        name: str,
        setting: Setting | None = None,
    ) -> None:
        """Run a benchmark, on the plates of the options if not on others, and say where its report lies.

        Raises:
            CodaError: A job failed; the report was written.
        """
        setting, folder = setting or self.setting(), self.out or Path("runs/benchmark") / name
        with going_on(setting.root), showing_jobs(name) as report:
            result = run(setting, folder, processes=cores_for(self.processes), report=report)
        if self.json is not None:
            write_json(self.json, as_json(result, setting))
        typer.echo(f"Wrote {result.page}")
        raise_for_failures(result.outcomes)


on_plates = taking(PlateOptions)
"""Gives a command all `PlateOptions` beside its own, as its first argument."""


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
