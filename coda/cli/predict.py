"""`coda predict`: predict a batch with the release that serves its source, or with a given one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.options import NamedParams, Overlays, Settings_
from coda.errors import ConfigError, Problem
from coda.login import login_name
from coda.settings import read_settings

if TYPE_CHECKING:
    from coda.steps.publication import Replacement

app = typer.Typer(help="Predict a batch with the release that serves its source.")


@app.command()
def predict(
    batch: Annotated[str, typer.Argument(help="Dataset folder, or source/batch of the data registry.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the tables.")] = None,
    release: Annotated[str | None, typer.Option("--release", help="File or id of a release; else what serves.")] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit of the data registry; else newest.")
    ] = None,
    *,
    publish: Annotated[
        bool | None,
        typer.Option(
            "--publish/--no-publish",
            help="Whether the tables go into the platform bucket. Else: a batch named source/batch is published, a "
            "folder is not.",
            show_default=False,
        ),
    ] = None,
    replace_because: Annotated[
        str | None,
        typer.Option(
            "--replace-because", help="Why these tables take the place of other ones that are published; those stay."
        ),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who publishes; this login's name when not given.")] = None,
    params: NamedParams = None,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Write probabilities per field, well and compound, with the release that made them and reasons to abstain.

    Everything that the numbers depend on is recorded with the release. Parameters are not needed; those that are given
    must be the recorded ones.
    """
    from coda.config.recorded import Today
    from coda.steps.predict import predict as step
    from coda.steps.prediction_inputs import dataset_of, release_for, unfit_for

    settings, values = read_settings(), Today.read(params, overlay, changes)
    who = by or login_name()
    replacement = _replacement(replace_because, who)
    with dataset_of(batch, revision=revision, settings=settings) as (dataset, fetched), _work() as work:
        record = release_for(dataset, release, settings)
        # a release that a person names need not be the one that the gate found unfit
        unfit = unfit_for(dataset, record, settings) if release is None else None
        published = fetched if publish is None else publish
        folder = out or (dataset / "predictions" / record.release_id if not fetched else None)
        if folder is None and not published:
            folder = Path("predictions") / batch / record.release_id
        summary = step(
            dataset,
            record.write(work / "release.json"),
            folder or work / "tables",
            params=values,
            settings=settings,
            gate=unfit.write(work / "gate.json") if unfit else None,
            publish=published,
            by=who,
            replacement=replacement,
        )
        places = [str(folder)] if folder else []
        places += [f"{settings.platform.rstrip('/')}/{prefix}" for prefix in summary["prefixes"]]
    _show(summary, places, unfit.sentence if unfit else "")


@contextmanager
def _work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coda-predict-") as folder:
        yield Path(folder)


def _replacement(reason: str | None, by: str) -> "Replacement | None":
    from coda.steps.publication import Replacement

    if reason is None:
        return None
    if not reason.strip():
        problem = Problem("--replace-because", "nothing", "a reason", "Write why; it is kept for good.")
        raise ConfigError("Published tables are not replaced without a reason.", [problem])
    return Replacement(by, reason.strip())


def _show(summary: dict[str, Any], places: list[str], unfit: str) -> None:
    table = Table(title=f"Predicted with release {summary['release_id']} ({summary['method']})")
    for name in ("level", "rows", "with a reason to abstain"):
        table.add_column(name)
    for level, counts in summary["levels"].items():
        table.add_row(level, str(counts["rows"]), str(counts["abstained"]))
    console = Console(highlight=False)
    console.print(table)
    if unfit:
        console.print(f"Nothing fit serves this batch, so no answers are given: {unfit}", markup=False)
    for note in summary["notes"]:
        console.print(f"Note: {note}", markup=False)
    for place in places:
        console.print(f"Tables: {place} (compound.csv and well.csv are the ones for people)", markup=False)
