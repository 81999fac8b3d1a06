"""`coda plates`: view ingested plates; import plates of real instruments."""

import functools
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from coda.cli.import_images import Images, leave, way_of
from coda.cli.manifest_build import images_are_read
from coda.cli.options import taking
from coda.cli.plates_show import show_plates
from coda.cli.reading import AUTO, ReadingOptions
from coda.contracts.manifest import BatchManifest
from coda.local.offline import storage_settings
from coda.plates.earlier_illumination import write_earlier
from coda.plates.readers.deliver import import_plates as deliver
from coda.plates.readers.layouts import detect, find_plates
from coda.storage.named_places import place_at

RENAMED = "`coda plates adopt` is now called `coda plates import`; the old name goes with the next minor version."
"""Deprecated in 0.1."""

app = typer.Typer(no_args_is_help=True, help="View plate stores; import plates of real instruments.")


app.command("show")(show_plates)


@app.command("illumination")
def keep_illumination(
    folder: Annotated[Path, typer.Argument(help="Ingested batch: DATASET/SOURCE/BATCH.")],
    plate: Annotated[str, typer.Option(help="Plate whose function was estimated.")],
    out: Annotated[Path, typer.Option(help="File to write (.npz).")],
) -> None:
    """Write a plate's illumination function to a file, for later plates of the same instrument (docs/plates.md)."""
    digest = write_earlier(folder, plate, out)
    name = BatchManifest.read(folder / "manifest.json").instrument.name
    typer.echo(f"Wrote {out}. Plates of {name} use it, and their images are read once, with")
    typer.echo(f"--set 'ingest.earlier_illumination={{{json.dumps(name)}: {{file: {out}, sha256: {digest}}}}}'")


@app.command("import")
@taking(ReadingOptions)
def import_plates(
    given: ReadingOptions,
    folder: Annotated[
        str, typer.Argument(help="Folder as the instrument (or the download) left it, or an s3:// prefix.")
    ],
    out: Annotated[Path, typer.Argument(help="Where the delivery goes: OUT/SOURCE/BATCH/.")],
    source: Annotated[str, typer.Option(help="Laboratory.")],
    batch: Annotated[str, typer.Option(help="Name of the batch.")],
    instrument: Annotated[str, typer.Option(help="Name of the microscope.")],
    jump_batch: Annotated[str | None, typer.Option(help="Batch folder of a gallery source (layout jump).")] = None,
    images: Annotated[
        Images,
        typer.Option(
            help="in-place: images stay, and the manifest says where; copy: copies; auto: in place where ingest may "
            "read them there, else linked, and copied only where they are few."
        ),
    ] = "auto",
    *,
    sparse: Annotated[
        bool,
        typer.Option("--sparse", help="Chunks that are absent were never written: they stand for the fill value."),
    ] = False,
) -> None:
    """Make a delivery with a manifest out of a folder of real images, which stay as they are (docs/instruments.md)."""
    settings = storage_settings()
    tree = place_at(folder, settings)
    identity = given.identity(source, batch, instrument)
    options = given.read_options(jump_batch, given.wanted(), [given.plate_map], [tree], sparse=sparse)
    layout = given.layout
    if layout == AUTO:
        layout = detect(tree)
        typer.echo(f"Layout: {layout}.")
    found = find_plates(layout, tree, options)
    way = way_of(images, tree, found, out / source / batch, settings)
    typer.echo(way.said)
    console = Console(stderr=True, highlight=False)
    if way.in_place:
        manifest, remarks = leave(tree, found, layout, options, identity, out / source / batch, given.work)
        images_are_read(tree.where, settings, console)
    else:
        with Progress(console=console, transient=True) as shown:
            task = shown.add_task("Files brought", total=None)
            manifest, remarks = deliver(
                layout, tree, out, identity, options,
                lambda done, total: shown.update(task, completed=done, total=total), found=found, linking=way.linking,
            )  # fmt: skip
    for remark in remarks:
        typer.echo(remark)
    typer.echo(f"Wrote {manifest}")


@app.command("adopt", hidden=True)
@functools.wraps(import_plates)
def adopt_plates(*args: object, **kwargs: object) -> None:
    """Do what `import` does, under its former name, and say so."""
    Console(stderr=True, highlight=False).print(RENAMED, style="yellow", markup=False, soft_wrap=True)
    import_plates(*args, **kwargs)
