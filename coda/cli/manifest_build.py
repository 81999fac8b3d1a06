"""`coda manifest build`: finding, telling and writing one batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from coda.cli.jump import described
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.errors import ConfigError, ContractError, Problem
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import AbsentImage, Draft, Maps, draft
from coda.plates.manifests.places import Place
from coda.plates.manifests.publish import publish
from coda.plates.readers.assemble import Identity
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import Tree
from coda.settings import Settings
from coda.storage.image_places import VARIABLE
from coda.storage.named_places import images_tree

SHOWN = 20
"""Lines of a list that are printed; the rest are counted."""

Outcome = Literal["written", "the same already", "would be written"]


@dataclass(frozen=True)
class Wish:
    """What a command line asks of every batch.

    Attributes:
        layout: How the images are laid out, or 'auto'.
        identity: What the files do not say.
        options: How the tree is to be read.
        jump: Folder of JUMP's tables; None without any.
        tables: The consortium's tables, where the folder holds them.
        compounds: Table of samples, for a batch's own platemaps.
        compound_column: Its column that names a compound.
        by_type: Give plates without wells in the tables those that the plates of their type agree on.
        workers: Files that are read at once.
        replacing: Replace another manifest.
        dry_run: Print what would be written, and end.
    """

    layout: str
    identity: Identity
    options: ReadOptions
    jump: Tree | None
    tables: JumpTables | None
    compounds: Path | None
    compound_column: str
    by_type: bool
    workers: int
    replacing: bool
    dry_run: bool


def build_one(
    wish: Wish, place: Place, target: Place, kept: KeptDigests, console: Console, *, absent: list[AbsentImage]
) -> tuple[Outcome, BatchManifest]:
    """Find the plates of one batch, tell about them, and write its tables and manifest.

    Raises:
        CodaError: The batch cannot be described; see `draft` and `publish`.
    """
    identity, options, remarks = wish.identity, wish.options, list[str]()
    maps: Maps | None = None
    if wish.jump is not None:
        identity, options, maps = described(
            wish.jump, wish.tables, identity, options, remarks,
            compounds=wish.compounds.read_bytes() if wish.compounds else None, column=wish.compound_column,
            compounds_name=str(wish.compounds), by_type=wish.by_type,
        )  # fmt: skip
    _require(identity)
    images_at = None if target.where == place.where else place.where
    with console.status(f"Looking for plates at {place.where}"):
        made = draft(place, wish.layout, options, identity, maps=maps, images_at=images_at)
    absent += made.absent
    _tell(made, remarks)
    if wish.dry_run:
        _would_write(made, target)
        return "would be written", made.described()[0]
    with progress_bar(len(made.files), made.size_bytes) as advance:
        manifest, written = publish(
            made, place, target, kept, workers=wish.workers, progress=advance, replacing=wish.replacing
        )  # fmt: skip
    name = f"{target.where}/{MANIFEST_NAME}"
    console.print(
        f"Wrote {name}" if written else f"{name} says the same already; it was left as it is.", soft_wrap=True
    )
    return "written" if written else "the same already", manifest


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
def progress_bar(files: int, size_bytes: int, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
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


def write_absent(path: Path, absent: Sequence[tuple[Identity, AbsentImage]], *, several: bool) -> None:
    """Write the list of absent images; of several batches with the names of the batches before each."""
    import pandas as pd

    names = list(AbsentImage.__dataclass_fields__)
    rows = [{"source": batch.source, "batch": batch.batch, **asdict(item)} for batch, item in absent]
    columns = ["source", "batch", *names] if several else names
    pd.DataFrame(rows, columns=columns).astype({"site": "Int64"}).to_csv(path, index=False)


def _tell(made: Draft, remarks: Sequence[str]) -> None:
    fields = sum(len(plate.fields) for plate in made.plates)
    typer.echo(
        f"Layout {made.layout}: {len(made.plates)} plate(s), {fields} fields, {len(made.files)} files, "
        f"{made.size_bytes / 1e9:.2f} GB."
    )
    for remark in (*made.remarks, *remarks):
        typer.echo(remark)
    if made.absent:
        typer.echo(f"{len(made.absent)} image(s) are absent; ingest sets their fields aside:")
        for item in made.absent[:SHOWN]:
            place = f"well {item.well} site {item.site}, {item.stain}" if item.well else f"illumination of {item.stain}"
            typer.echo(f"  {item.plate}, {place}: {item.path or 'nothing names a file'}")
        if len(made.absent) > SHOWN:
            typer.echo(f"  ... and {len(made.absent) - SHOWN} more (--absent FILE lists all).")


def _would_write(made: Draft, target: Tree) -> None:
    manifest, lists = made.described()
    typer.echo(f"Would read {len(made.files)} files ({made.size_bytes / 1e9:.2f} GB), and write to {target.where}:")
    for path, body in {**made.tables, **lists}.items():
        typer.echo(f"  {path} ({len(body)} bytes)")
    typer.echo(f"  {MANIFEST_NAME} ({len(manifest.to_json())} bytes), images at {made.images_at or 'the same place'}")


def images_are_read(images_at: str | None, settings: Settings, console: Console) -> None:
    """Say so where ingest would refuse to read the images."""
    if images_at is None:
        return
    try:
        images_tree(images_at, settings)
    except ContractError:
        console.print(
            f"Ingest does not read images at {images_at} yet: add the place to {VARIABLE} (docs/settings.md).",
            soft_wrap=True,
        )


def for_batch(wish: Wish, source: str, batch: str, plates: frozenset[str]) -> Wish:
    """Return the same wish for some plates of one batch of a source of JUMP."""
    return replace(
        wish,
        layout="jump",
        identity=replace(wish.identity, source=source, batch=batch),
        options=replace(wish.options, batch=batch, plates=plates, patterns=()),
    )
