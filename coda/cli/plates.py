"""`coda plates`: look into ingested plates; adopt plates of real instruments."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from coda.cli.options import SolventsFile, TableDecimal, TableEncoding, TableSeparator, table_dialects
from coda.cli.plates_show import show_plates
from coda.cli.reading import (
    AcquisitionOption,
    ImageOption,
    JoinOption,
    MovedOption,
    PlaneOption,
    RenameOption,
    SparseOption,
    TimeOption,
    finding_of,
)
from coda.local.offline import storage_settings
from coda.plates.adopt.deliver import Identity, adopt
from coda.plates.adopt.layouts import LAYOUTS, detect
from coda.plates.solvents import read_solvents
from coda.storage.places import place_at

app = typer.Typer(no_args_is_help=True, help="Look into plate stores; adopt plates of real instruments.")


app.command("show")(show_plates)


@app.command("adopt")
def adopt_plates(
    folder: Annotated[
        str, typer.Argument(help="Folder as the instrument (or the download) left it, or an s3:// prefix.")
    ],
    out: Annotated[Path, typer.Argument(help="Where the delivery goes: OUT/SOURCE/BATCH/.")],
    source: Annotated[str, typer.Option(help="Laboratory.")],
    batch: Annotated[str, typer.Option(help="Name of the batch.")],
    instrument: Annotated[str, typer.Option(help="Name of the microscope.")],
    layout: Annotated[str, typer.Option(help=f"How the folder is laid out: auto, {', '.join(LAYOUTS)}.")] = "auto",
    modality: Annotated[Literal["widefield", "confocal"] | None, typer.Option(help="If the files do not say.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Edge of a stored pixel in micrometres.")] = None,
    bit_depth: Annotated[int | None, typer.Option(help="Bits of the grey values.")] = None,
    plate_wells: Annotated[int | None, typer.Option(help="Wells of the plate format, if the files do not say.")] = None,
    plate_map: Annotated[
        Path | None, typer.Option(help="CSV with the wells; without it each is an unknown treatment, none a control.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="NAME=STAIN, such as 'Cy5=Mito' or 'C01=DNA'; NAME=none leaves one out; may repeat."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Regular expression of the images' paths with groups well, channel, ...")
    ] = None,
    only_plate: Annotated[list[str] | None, typer.Option(help="Take this plate alone; may repeat.")] = None,
    jump_batch: Annotated[str | None, typer.Option(help="Batch folder of a gallery source (layout jump).")] = None,
    plane: PlaneOption = None,
    time: TimeOption = None,
    acquisition: AcquisitionOption = None,
    image: ImageOption = None,
    rename: RenameOption = None,
    moved: MovedOption = None,
    solvents: SolventsFile = None,
    table_separator: TableSeparator = None,
    table_encoding: TableEncoding = None,
    table_decimal: TableDecimal = None,
    *,
    join: JoinOption = False,
    sparse: SparseOption = False,
) -> None:
    """Make a delivery with a manifest out of a folder of real images, which stay as they are (docs/instruments.md)."""
    tree = place_at(folder, storage_settings())
    identity = Identity(
        source=source,
        batch=batch,
        instrument=instrument,
        modality=modality,
        pixel_size_um=pixel_size,
        bit_depth=bit_depth,
        plate_wells=plate_wells,
        plate_map=plate_map,
        solvents=read_solvents(solvents) if solvents is not None else None,
    )
    finding = finding_of(
        channels=channel, pattern=pattern, batch=jump_batch, plates=only_plate, planes=plane, time=time,
        acquisition=acquisition, join=join, image=image, sparse=sparse, renames=rename, moved=moved,
        tables=table_dialects(table_separator, table_encoding, table_decimal, [plate_map], [tree]),
    )  # fmt: skip
    if layout == "auto":
        layout = detect(tree)
        typer.echo(f"Layout: {layout}.")
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("Files brought", total=None)
        manifest, remarks = adopt(
            layout, tree, out, identity, finding,
            lambda done, total: shown.update(task, completed=done, total=total),
        )  # fmt: skip
    for remark in remarks:
        typer.echo(remark)
    typer.echo(f"Wrote {manifest}")
