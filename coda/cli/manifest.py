"""`coda manifest`: manifests of plates that lie somewhere already, and what does not agree with them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from coda.cli.manifest_check import findings_json, print_findings
from coda.cli.options import SolventsFile, TableDecimal, TableEncoding, TableSeparator, table_dialects
from coda.cli.reading import (
    AcquisitionOption,
    ImageOption,
    JoinOption,
    MovedOption,
    PlaneOption,
    RenameOption,
    TimeOption,
    finding_of,
)
from coda.cli.rows import AsJson, Wide, print_json
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BatchManifest
from coda.errors import ConfigError, ContractError, Problem
from coda.local.offline import storage_settings
from coda.plates.adopt.assemble import Identity
from coda.plates.adopt.layouts import LAYOUTS
from coda.plates.manifests.check import check
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import AUTO, AbsentImage, Draft, Maps, draft
from coda.plates.manifests.places import Place
from coda.plates.manifests.publish import publish
from coda.plates.solvents import read_solvents
from coda.plates.tree import Tree
from coda.settings import Settings
from coda.storage.image_places import VARIABLE
from coda.storage.places import images_tree, place_at

app = typer.Typer(no_args_is_help=True, help="Manifests of plates that lie somewhere already: build and check them.")

WORK = Path("runs/manifests")

SHOWN = 20
"""Lines of a list that are printed; the rest are counted."""

Workers = Annotated[int, typer.Option(min=1, max=256, help="Files that are read at once.")]


@app.command()
def build(
    prefix: Annotated[str, typer.Argument(help="Folder or s3:// prefix with the images.")],
    source: Annotated[str, typer.Option(help="Laboratory, such as source_4.")],
    batch: Annotated[str, typer.Option(help="Name of the batch; the one of --jump-batch if not given.")] = "",
    layout: Annotated[str, typer.Option(help=f"How the images are laid out: {AUTO}, {', '.join(LAYOUTS)}.")] = AUTO,
    instrument: Annotated[str, typer.Option(help="Name of the microscope; from the JUMP tables if not given.")] = "",
    pixel_size: Annotated[float | None, typer.Option(help="Edge of a raw pixel in micrometres.")] = None,
    modality: Annotated[Literal["widefield", "confocal"] | None, typer.Option(help="If the files do not say.")] = None,
    bit_depth: Annotated[int | None, typer.Option(help="Bits of the grey values, if the files do not say.")] = None,
    plate_wells: Annotated[int | None, typer.Option(help="Wells of the plate format, if the files do not say.")] = None,
    plate_map: Annotated[Path | None, typer.Option(help="CSV with the wells of all plates.")] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="NAME=STAIN, such as 'Cy5=Mito'; NAME=none leaves one out.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Regular expression of paths, for --layout pattern.")] = None,
    plate: Annotated[
        list[str] | None, typer.Option("--plate", "--only-plate", help="Only this plate; may repeat.")
    ] = None,
    plane: PlaneOption = None,
    time: TimeOption = None,
    acquisition: AcquisitionOption = None,
    image: ImageOption = None,
    rename: RenameOption = None,
    moved: MovedOption = None,
    jump_tables: Annotated[
        str | None,
        typer.Option(help="Folder or prefix with JUMP's plate.csv.gz, well.csv.gz, ...; or a batch's platemaps."),
    ] = None,
    jump_batch: Annotated[str | None, typer.Option(help="Batch of JUMP; its plates are taken.")] = None,
    compound_metadata: Annotated[
        Path | None, typer.Option(help="Table of broad_sample, for a batch's platemaps.")
    ] = None,
    compound_column: Annotated[str, typer.Option(help="Column of that table that names a compound.")] = "broad_sample",
    solvents: SolventsFile = None,
    table_separator: TableSeparator = None,
    table_encoding: TableEncoding = None,
    table_decimal: TableDecimal = None,
    out: Annotated[
        str | None, typer.Option(help="Folder or s3:// prefix for manifest and tables; PREFIX if not given.")
    ] = None,
    workers: Workers = 16,
    work: Annotated[Path, typer.Option(help="Folder that keeps digests, so that a build can go on.")] = Path(
        "runs/manifests"
    ),
    absent: Annotated[Path | None, typer.Option(help="Write the list of absent images to this CSV.")] = None,
    *,
    join: JoinOption = False,
    replacing: Annotated[bool, typer.Option("--replace", help="Replace another manifest that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; read no image.")] = False,
) -> None:
    """Describe plates where they lie: tables and a manifest; images are read once, for their digests, and stay."""
    settings = storage_settings()
    place = place_at(prefix, settings)
    target = place if out is None else place_at(out, settings, new=True)
    _refuse_unwritable(place, target, out)
    identity = Identity(
        source=source, batch=batch or jump_batch or "", instrument=instrument, modality=modality, bit_depth=bit_depth,
        pixel_size_um=pixel_size, plate_wells=plate_wells, plate_map=plate_map,
        solvents=read_solvents(solvents) if solvents is not None else None,
    )  # fmt: skip
    finding = finding_of(
        channels=channel, pattern=pattern, batch=jump_batch, plates=plate, planes=plane, time=time,
        acquisition=acquisition, join=join, image=image, sparse=False, renames=rename, moved=moved,
        tables=table_dialects(
            table_separator, table_encoding, table_decimal, [plate_map, compound_metadata],
            [place, *([place_at(jump_tables, settings)] if jump_tables is not None else [])],
        ),
    )  # fmt: skip
    remarks: list[str] = []
    maps: Maps | None = None
    if jump_tables is not None:
        from coda.cli.jump import described

        compounds = compound_metadata.read_bytes() if compound_metadata else None
        identity, finding, maps = described(
            place_at(jump_tables, settings),
            identity,
            finding,
            remarks,
            compounds=compounds,
            column=compound_column,
            compounds_name=str(compound_metadata),
        )
    _require(identity)
    images_at = None if target.where == place.where else place.where
    console = Console(stderr=True, highlight=False)
    with console.status(f"Looking for plates at {place.where}"):
        made = draft(place, layout, finding, identity, maps=maps, images_at=images_at)
    _tell(made, remarks, absent)
    if dry_run:
        _would_write(made, target)
        return
    with KeptDigests(work, place.where) as kept, _bar(len(made.files), made.size_bytes) as advance:
        try:
            manifest, written = publish(
                made, place, target, kept, workers=workers, progress=advance, replacing=replacing
            )  # fmt: skip
        except KeyboardInterrupt:
            console.print(f"Stopped. The digests so far are in {kept.path}; the same command goes on from there.")
            raise typer.Exit(130) from None
    name = f"{target.where}/{MANIFEST_NAME}"
    console.print(
        f"Wrote {name}" if written else f"{name} says the same already; it was left as it is.", soft_wrap=True
    )
    _how_to_go_on(manifest, target, settings, console)


@app.command("check")
def check_(
    manifest: Annotated[str, typer.Argument(help="Path or s3:// address of a manifest.json.")],
    workers: Workers = 16,
    *,
    digests: Annotated[bool, typer.Option("--digests", help="Also read every file, and compare its content.")] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Say, one line each, what is missing, extra, duplicated, of the wrong size or content; exit code 3 when wrong."""
    settings = storage_settings()
    folder, name = _split(manifest)
    beside = place_at(folder, settings)
    listed = BatchManifest.parse(beside.read(name, at_most=MAX_MANIFEST_BYTES), manifest)
    elsewhere = images_tree(listed.images_at, settings) if listed.images_at is not None else None
    sizes = {file.path: file.size_bytes for item in listed.plates for file in item.files}
    with _bar(len(sizes), sum(sizes.values()), shown=digests) as advance:
        found = check(listed, beside, elsewhere, digests=workers if digests else 0, progress=advance)
    if as_json:
        print_json(findings_json(manifest, found))
    else:
        print_findings(manifest, found, wide=wide)
    if found.wrong:
        raise ContractError(f"{manifest}: something is wrong with {found.wrong} of {found.files} files.")


def _split(manifest: str) -> tuple[str, str]:
    folder, _, name = manifest.rpartition("/")
    if manifest.endswith(".json") or Path(manifest).is_file():
        return folder or (manifest[:1] if manifest.startswith("/") else "."), name
    return manifest, MANIFEST_NAME


def _refuse_unwritable(place: Place, target: Place, out: str | None) -> None:
    store = getattr(target, "store", None)
    if store is not None and store.unsigned:
        found = "a place that is read without credentials"
        remedy = "Name a place of your own with --out; the images stay where they are."
        raise ConfigError(
            f"Nothing can be written to {target.where}.",
            [Problem("--out" if out else place.where, found, "a place that may be written", remedy)],
        )


def _require(identity: Identity) -> None:
    options = {"--batch": identity.batch, "--instrument": identity.instrument}
    problems = [
        Problem(name, "nothing", "a name", "Give it; --jump-tables and --jump-batch know it for plates of JUMP.")
        for name, value in options.items()
        if not value
    ]
    if problems:
        raise ConfigError("The manifest needs more names.", problems)


@contextmanager
def _bar(files: int, size_bytes: int, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show files and bytes on the terminal while they are read."""
    columns: Sequence[Any] = (
        "[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(f"0 of {files} files", total=size_bytes)
        done = 0

        def advance(count: int, size: int) -> None:
            nonlocal done
            done += count
            bar.update(task, advance=size, description=f"{done} of {files} files")

        yield advance


def _tell(made: Draft, remarks: Sequence[str], absent: Path | None) -> None:
    fields = sum(len(plate.fields) for plate in made.plates)
    typer.echo(
        f"Layout {made.layout}: {len(made.plates)} plate(s), {fields} fields, {len(made.files)} files, "
        f"{made.size_bytes / 1e9:.2f} GB."
    )
    for remark in (*made.remarks, *remarks):
        typer.echo(remark)
    if absent is not None:
        import pandas as pd

        names = list(AbsentImage.__dataclass_fields__)
        rows = [asdict(item) for item in made.absent]
        pd.DataFrame(rows, columns=names).astype({"site": "Int64"}).to_csv(absent, index=False)
    if made.absent:
        typer.echo(f"{len(made.absent)} image(s) are absent; ingest sets their fields aside:")
        for item in made.absent[:SHOWN]:
            place = f"well {item.well} site {item.site}, {item.stain}" if item.well else f"illumination of {item.stain}"
            typer.echo(f"  {item.plate}, {place}: {item.path or 'nothing names a file'}")
        if len(made.absent) > SHOWN:
            typer.echo(
                f"  ... and {len(made.absent) - SHOWN} more" + ("." if absent else " (--absent FILE lists all).")
            )


def _would_write(made: Draft, target: Tree) -> None:
    size = len(made.manifest().to_json())
    typer.echo(f"Would read {len(made.files)} files ({made.size_bytes / 1e9:.2f} GB), and write to {target.where}:")
    for path, body in made.tables.items():
        typer.echo(f"  {path} ({len(body)} bytes)")
    typer.echo(f"  {MANIFEST_NAME} ({size} bytes), images at {made.images_at or 'the same place'}")


def _how_to_go_on(manifest: BatchManifest, target: Tree, settings: Settings, console: Console) -> None:
    if manifest.images_at is not None:
        try:
            images_tree(manifest.images_at, settings)
        except ContractError:
            console.print(
                f"Ingest does not read images at {manifest.images_at} yet: add the place to {VARIABLE} "
                "(docs/settings.md).", soft_wrap=True,
            )  # fmt: skip
    if not target.where.rstrip("/").endswith(f"/{manifest.batch_id}"):
        console.print(
            f"The trigger starts a run for <landing>/{manifest.batch_id}/{MANIFEST_NAME} alone; by hand: "
            f"coda step ingest --manifest {target.where}/{MANIFEST_NAME} --out DATASET", soft_wrap=True,
        )  # fmt: skip
