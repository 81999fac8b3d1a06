"""`coda predict`: predict a dataset folder with the release that serves its source, or with a given one."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params
from coda.contracts.release import ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.settings import Settings, read_settings

app = typer.Typer(help="Predict a batch with the release that serves its source.")


@app.command()
def predict(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with one validated batch or more of one source.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the field, well and compound tables.")],
    release: Annotated[Path | None, typer.Option("--release", help="ReleaseRecord file; else what serves now.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Write probabilities per field, well and compound, with the release that made them and reasons to abstain."""
    from coda.steps.predict import predict as step

    settings = read_settings()
    with tempfile.TemporaryDirectory() as work:
        record = ReleaseRecord.read(release) if release else _serving(dataset, settings)
        path = record.write(Path(work) / "release.json")
        summary = step(dataset, path, out, params=read_params(params, overlay, changes), settings=settings)
    table = Table(title=f"Predicted with release {summary['release_id']} ({summary['method']})")
    for name in ("level", "rows", "with a reason to abstain"):
        table.add_column(name)
    for level, counts in summary["levels"].items():
        table.add_row(level, str(counts["rows"]), str(counts["abstained"]))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Tables: {out} (well.csv is the one for people)", markup=False)


def _serving(dataset: Path, settings: Settings) -> ReleaseRecord:
    from coda.plates.dataset import open_batches
    from coda.registry import ReleaseLog

    sources = sorted({batch.manifest.source for batch in open_batches(dataset)})
    if len(sources) != 1:
        found = ", ".join(sources) or "no batch"
        problem = Problem(str(dataset), found, "batches of one source", "Name one, or give --release.")
        raise ConfigError("The release to predict with is not clear.", [problem])
    record = ReleaseLog(settings).serving(sources[0])
    if record is None:
        remedy = "Run the training pipeline first, or give --release."
        problem = Problem(f"release log of {sources[0]!r}", "no release", "one that serves", remedy)
        raise ConfigError(f"Nothing serves {sources[0]} yet.", [problem])
    return record
