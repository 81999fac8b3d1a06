"""`coda manifest`: manifests of plates that lie somewhere already, and what does not agree with them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from coda.cli.jump import jump_tables_of
from coda.cli.manifest_batches import build_batches, places_of, wanted_plates
from coda.cli.manifest_build import Wish, build_one, images_are_read, progress_bar, write_absent
from coda.cli.manifest_check import findings_json, print_findings
from coda.cli.options import taking
from coda.cli.reading import ReadingOptions
from coda.cli.rows import AsJson, Wide, print_json
from coda.cli.selecting import PlateType
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, SMALLER, BatchManifest
from coda.errors import ConfigError, ContractError, Problem
from coda.local.offline import storage_settings
from coda.plates.jump.selection import PlateFilter
from coda.plates.manifests.check import check
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import AUTO, AbsentImage
from coda.plates.manifests.places import Place
from coda.plates.readers.jump import recognised
from coda.settings import Settings
from coda.storage.named_places import images_tree, place_at

app = typer.Typer(no_args_is_help=True, help="Manifests of plates that lie somewhere already: build and check them.")

Workers = Annotated[int, typer.Option(min=1, max=256, help="Files that are read at once.")]


@app.command()
@taking(ReadingOptions)
def build(
    given: ReadingOptions,
    prefix: Annotated[str, typer.Argument(help="Folder or s3:// prefix with the images; of several sources, above.")],
    source: Annotated[list[str], typer.Option(help="Laboratory, such as source_4; JUMP: may repeat.")],
    batch: Annotated[str, typer.Option(help="Name of the batch; the one of --jump-batch if not given.")] = "",
    instrument: Annotated[str, typer.Option(help="Name of the microscope; from the JUMP tables if not given.")] = "",
    plate_type: PlateType = None,
    jump_tables: Annotated[
        str | None,
        typer.Option(help="Folder or prefix with JUMP's plate.csv.gz, well.csv.gz, ...; or a batch's platemaps."),
    ] = None,
    jump_batch: Annotated[
        list[str] | None, typer.Option(help="Batch of JUMP; its plates are taken; may repeat.")
    ] = None,
    compound_metadata: Annotated[
        Path | None, typer.Option(help="Table of broad_sample, for a batch's platemaps.")
    ] = None,
    compound_column: Annotated[str, typer.Option(help="Column of that table that names a compound.")] = "broad_sample",
    out: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// prefix for manifest and tables; PREFIX if not given. Of several batches: "
                          "for OUT/SOURCE/BATCH."),
    ] = None,
    workers: Workers = 16,
    absent: Annotated[Path | None, typer.Option(help="Write the list of absent images to this CSV.")] = None,
    *,
    all_batches: Annotated[bool, typer.Option("--all-batches", help="All batches of the source (JUMP).")] = False,
    wells_by_type: Annotated[
        bool,
        typer.Option("--wells-by-type", help="Plates that well.csv lacks hold what all others of their type hold."),
    ] = False,
    replacing: Annotated[bool, typer.Option("--replace", help="Replace another manifest that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; read no image.")] = False,
) -> None:  # fmt: skip
    """Describe plates where they lie: tables and a manifest; images are read once, for their digests, and stay.

    With a filter of plates, several batches or sources, or --all-batches, and without one --batch or --jump-batch,
    every batch of the sources that has such plates gets a manifest of its own below OUT.
    """
    settings = storage_settings()
    chosen = given.wanted(plate_type)
    batches, sources = list(dict.fromkeys(jump_batch or ())), list(dict.fromkeys(source))
    places = places_of(prefix, sources, settings)
    listed = given.plates is not None
    several = _several(places, batch, batches, given.layout, chosen, all_batches=all_batches, listed=listed)
    target = place_at(out, settings, new=True) if out is not None else places[sources[0]]
    _refuse_unwritable(places[sources[0]], target, out, several=several)
    jump = place_at(jump_tables, settings) if jump_tables is not None else None
    tables, trees = [given.plate_map, compound_metadata], [*places.values(), *([jump] if jump is not None else [])]
    wish = Wish(
        layout=given.layout,
        identity=given.identity(sources[0], batch or (batches[0] if batches else ""), instrument),
        options=given.read_options(batches[0] if batches else None, chosen, tables, trees),
        jump=jump, tables=jump_tables_of(jump) if jump is not None else None, compounds=compound_metadata,
        compound_column=compound_column, by_type=wells_by_type, workers=workers, replacing=replacing, dry_run=dry_run,
    )  # fmt: skip
    console = Console(stderr=True, highlight=False)
    try:
        if several and out is not None:
            wanted = wanted_plates(wish, places, chosen, batches)
            build_batches(wish, places, wanted, out, given.work, absent, settings, console)
        else:
            alone = _of_its_types(wish, places, chosen, batches)
            _build_alone(alone, places[sources[0]], target, given.work, absent, settings, console)
    except KeyboardInterrupt:
        console.print(f"Stopped. The digests so far are in {given.work}; the same command resumes from there.")
        raise typer.Exit(130) from None


def _several(
    places: dict[str, Place], batch: str, batches: list[str], layout: str, chosen: PlateFilter, *, all_batches: bool,
    listed: bool,
) -> bool:  # fmt: skip
    """Return whether every batch gets a manifest of its own below OUT."""
    many = len(places) > 1 or len(batches) > 1 or all_batches
    if many and batch:
        found = f"{batch}, for several batches or sources"
        problem = Problem("--batch", found, "the batches' own names", "Leave --batch out.")
        raise ConfigError("One name cannot stand for several batches.", [problem])
    if many and layout not in {AUTO, "jump"}:
        remedy = "Build each batch by itself, with --batch and a prefix of its own."
        problem = Problem("--layout", layout, "jump, the layout that has batches", remedy)
        raise ConfigError("This layout has no batches.", [problem])
    if chosen.types and batch and not batches:
        problem = Problem("--plate-type", "--batch beside it", "the batch as JUMP calls it", "Name it (--jump-batch).")
        raise ConfigError("It is not said whose plates are meant.", [problem])
    filtered = bool(chosen.types or chosen.patterns or listed) and not batch and not batches
    if many or not filtered or layout == "jump":
        return many or filtered
    return layout == AUTO and recognised(next(iter(places.values())))


def _of_its_types(wish: Wish, places: dict[str, Place], chosen: PlateFilter, batches: list[str]) -> Wish:
    """Return the wish with the plates of one batch that the filter takes, by name."""
    if not batches or not (chosen.types or chosen.patterns):
        return wish
    (found,) = wanted_plates(wish, places, chosen, batches).values()
    return replace(wish, options=replace(wish.options, plates=found[batches[0]], patterns=()))


def _build_alone(
    wish: Wish, place: Place, target: Place, work: Path, absent: Path | None, settings: Settings, console: Console
) -> None:
    lacking: list[AbsentImage] = []
    with KeptDigests(work, place.where) as kept:
        outcome, manifest = build_one(wish, place, target, kept, console, absent=lacking)
    if absent is not None:
        write_absent(absent, [(wish.identity, item) for item in lacking], several=False)
    if outcome == "would be written":
        return
    images_are_read(manifest.images_at, settings, console)
    if not target.where.rstrip("/").endswith(f"/{manifest.batch_id}"):
        console.print(
            f"The trigger starts a run for <landing>/{manifest.batch_id}/{MANIFEST_NAME} alone; by hand: "
            f"coda step ingest --manifest {target.where}/{MANIFEST_NAME} --out DATASET", soft_wrap=True,
        )  # fmt: skip


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
    size = beside.size(name)
    if size is not None and size > MAX_MANIFEST_BYTES:
        problem = Problem(manifest, f"{size} bytes", f"at most {MAX_MANIFEST_BYTES} bytes", SMALLER)
        raise ContractError(f"{manifest} is too large.", [problem])
    listed = BatchManifest.parse(beside.read(name, at_most=MAX_MANIFEST_BYTES), manifest)
    elsewhere = images_tree(listed.images_at, settings) if listed.images_at is not None else None
    telling = partial(progress_bar, shown=digests)
    found = check(listed, beside, elsewhere, digests=workers if digests else 0, telling=telling)
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


def _refuse_unwritable(place: Place, target: Place, out: str | None, *, several: bool) -> None:
    if several and out is None:
        remedy = "Name a place for them with --out; the images stay where they are."
        problem = Problem("--out", "nothing", "where OUT/SOURCE/BATCH/manifest.json go", remedy)
        raise ConfigError("Several batches need a place for their manifests.", [problem])
    store = getattr(target, "store", None)
    if store is not None and store.unsigned:
        found = "a place that is read without credentials"
        remedy = "Name a place of your own with --out; the images stay where they are."
        raise ConfigError(
            f"Nothing can be written to {target.where}.",
            [Problem("--out" if out else place.where, found, "a place that may be written", remedy)],
        )
