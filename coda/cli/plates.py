"""`coda plates`: look into ingested plates; adopt plates of real instruments."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.options import channel_mapping
from coda.contracts.ingest import IngestReport
from coda.errors import ConfigError, Problem
from coda.plates.adopt.deliver import Identity, adopt
from coda.plates.adopt.layouts import LAYOUTS, Finding, detect
from coda.plates.batch import REPORT_NAME
from coda.plates.dataset import BatchFolder
from coda.plates.pictures import draw_plate
from coda.plates.tree import LocalTree

app = typer.Typer(no_args_is_help=True, help="Look into plate stores; adopt plates of real instruments.")


@app.command("show")
def show_plates(
    batch: Annotated[Path, typer.Argument(help="Batch folder: DATASET/SOURCE/BATCH.")],
    plate: Annotated[list[str] | None, typer.Option(help="Only this plate; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
) -> None:
    """Print what became of each plate, and write its contact sheet, wells and heat maps (PNG)."""
    if not (batch / REPORT_NAME).is_file():
        problem = Problem(str(batch), f"no {REPORT_NAME}", "a batch folder that ingest has finished",
                          "Name DATASET/SOURCE/BATCH, or run `coda step ingest` first.")  # fmt: skip
        raise ConfigError("This is not an ingested batch.", [problem])
    folder = BatchFolder(batch)
    report = folder.ingest
    known = [outcome.plate for outcome in report.plates]
    unknown = sorted(set(plate or ()) - set(known))
    if unknown:
        problem = Problem("--plate", ", ".join(unknown), f"plates among {', '.join(known)}", "Correct the name.")
        raise ConfigError("There is no such plate in this batch.", [problem])
    console = Console()
    _tell(console, folder)
    for outcome in report.plates:
        if outcome.outcome == "accepted" and (not plate or outcome.plate in plate):
            for path in draw_plate(folder, outcome.plate, out):
                console.print(f"Wrote {path}", soft_wrap=True)


def _tell(console: Console, folder: BatchFolder) -> None:
    """Print what ingest and validation found, all but the pictures."""
    report = folder.ingest
    refused = set(folder.quality.plates_refused) if folder.quality else set()
    console.print(_summary(report, refused))
    if folder.quality:
        console.print(f"Validation: {folder.quality.sentence}", soft_wrap=True, markup=False)
    for item in report.problems:
        console.print("Problem", style="red", end=" ")
        console.print(f"{item.where}: found {item.found}; expected {item.expected}. {item.remedy}",
                      soft_wrap=True, markup=False)  # fmt: skip
    for aside in report.quarantined[:40]:
        site = "" if aside.site is None else f" site {aside.site}"
        console.print(f"Set aside: {aside.plate} {aside.well}{site} {aside.channel} {aside.path} {aside.reason}",
                      soft_wrap=True, markup=False)  # fmt: skip
    if len(report.quarantined) > 40:
        console.print(f"... and {len(report.quarantined) - 40} more; all of them are in {folder.path / REPORT_NAME}.")
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)


def _summary(report: IngestReport, refused: set[str]) -> Table:
    table = Table(title=f"{report.source}/{report.batch}: {', '.join(report.channels)}")
    for name in ("plate", "outcome", "fields", "illumination", "store", "reason"):
        table.add_column(name)
    for item in report.plates:
        fields = f"{item.fields_accepted} of {item.fields_expected}"
        size = f"{item.store_bytes / 2**20:.1f} MiB" if item.store else ""
        outcome = (
            "read, refused by validation" if item.outcome == "accepted" and item.plate in refused else item.outcome
        )
        table.add_row(item.plate, outcome, fields, item.illumination.replace("_", " "), size, item.reason)
    return table


@app.command("adopt")
def adopt_plates(
    folder: Annotated[Path, typer.Argument(help="Folder as the instrument (or the download) left it.")],
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
    plane: Annotated[int | None, typer.Option(help="Plane of stacks, as the instrument numbers it.")] = None,
    time: Annotated[int | None, typer.Option(help="Time point, as the instrument numbers it.")] = None,
) -> None:
    """Make a delivery with a manifest out of a folder of real images, which stay as they are (docs/instruments.md)."""
    if not folder.is_dir():
        problem = Problem(str(folder), "no folder", "a folder with images", "Correct the name.")
        raise ConfigError("There is nothing to adopt.", [problem])
    identity = Identity(
        source=source,
        batch=batch,
        instrument=instrument,
        modality=modality,
        pixel_size_um=pixel_size,
        bit_depth=bit_depth,
        plate_wells=plate_wells,
        plate_map=plate_map,
    )
    finding = Finding(
        channels=channel_mapping(channel or []),
        pattern=pattern,
        batch=jump_batch,
        plates=frozenset(only_plate or ()),
        plane=plane,
        time=time,
    )
    tree = LocalTree(folder)
    if layout == "auto":
        layout = detect(tree)
        typer.echo(f"Layout: {layout}.")
    manifest, remarks = adopt(layout, tree, out, identity, finding)
    for remark in remarks:
        typer.echo(remark)
    typer.echo(f"Wrote {manifest}")
