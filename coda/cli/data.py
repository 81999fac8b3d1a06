"""`coda data`: the batches that the data registry holds."""

from pathlib import Path
from typing import Annotated

import typer

from coda.cli.rows import AsJson, Column, Wide, print_json, print_rows
from coda.errors import ConfigError, Problem
from coda.settings import read_settings
from coda.storage.data_registry import create_registry, fetch_batch, find_batch, list_batches
from coda.storage.objects import store_for
from coda.storage.probe import require_conditional_writes

app = typer.Typer(no_args_is_help=True, help="The data registry: versioned batches in Git and DVC.")

Source = Annotated[str, typer.Argument(help="Source (laboratory).")]


@app.command()
def init() -> None:
    """Create what is missing: the buckets, and the data registry that CODA_DATA_REGISTRY names when it is a path."""
    settings = read_settings()
    for uri in (settings.landing, settings.platform, settings.data_remote):
        store_for(uri, settings).ensure_bucket()
    require_conditional_writes(store_for(settings.platform, settings))
    if "://" in settings.data_registry:
        remedy = "Create an empty repository at the Git server; the first run sets it up."
        problem = Problem("CODA_DATA_REGISTRY", settings.data_registry, "a path of this machine", remedy)
        raise ConfigError("A data registry behind a URL cannot be created from here.", [problem])
    if Path(settings.data_registry).exists():
        typer.echo(f"The data registry {settings.data_registry} is there already.")
        return
    create_registry(Path(settings.data_registry), settings.data_remote)
    typer.echo(f"The data registry is at {settings.data_registry}; its bytes go to {settings.data_remote}.")


@app.command("list")
def list_(
    source: Source,
    revision: Annotated[str, typer.Option("--revision", help="Commit to read; the newest if not given.")] = "",
    *,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """The batches of a source, in the order in which they came."""
    found = list_batches(source, settings=read_settings(), revision=revision or None)
    if as_json:
        print_json(found)
        return
    columns = (
        Column("batch", lambda item: item.batch),
        Column("revision", lambda item: item.revision, yields=1),
        Column("digest", lambda item: item.digest, yields=2),
    )
    empty = f"The data registry holds no batch of {source}."
    print_rows(found, columns, wide=wide, title=f"Batches of {source}", empty=empty)


@app.command()
def fetch(
    source: Source,
    batch: Annotated[str, typer.Argument(help="Batch.")],
    out: Annotated[Path, typer.Option("--out", help="Dataset folder to write to.")],
    revision: Annotated[str, typer.Option("--revision", help="Commit; the newest if not given.")] = "",
) -> None:
    """Fetch one batch as a dataset folder, every byte verified."""
    settings = read_settings()
    found = find_batch(source, batch, settings=settings, revision=revision or None)
    typer.echo(str(fetch_batch(found, out, settings=settings)))


@app.command()
def deliver(
    folder: Annotated[Path, typer.Argument(help="Batch folder with a manifest.json, as a producer lays it out.")],
) -> None:
    """Send a batch to the landing prefix as a producer does: all files, and the manifest last of all."""
    from coda.contracts import MANIFEST_NAME, BatchManifest
    from coda.storage.bulk import upload_folder

    settings = read_settings()
    manifest = BatchManifest.read(folder / MANIFEST_NAME)
    landing = store_for(settings.landing, settings)
    count = upload_folder(landing, folder, manifest.batch_id, last=(MANIFEST_NAME,), workers=8)
    typer.echo(f"{count} files of {manifest.batch_id} lie in {landing.url(manifest.batch_id)}.")
