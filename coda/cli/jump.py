"""What JUMP's tables say about the plates that a command line names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coda.errors import ConfigError, Problem
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.jump.plate_maps import maps_of_tables, maps_of_workspace
from coda.plates.jump.workspace import BARCODES
from coda.plates.manifests.draft import Maps
from coda.plates.readers.assemble import Identity
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import Tree


def jump_tables_of(tree: Tree) -> JumpTables | None:
    """Return the consortium's tables; None where the folder holds the platemaps of one batch."""
    return None if any(file.path == BARCODES for file in tree.files()) else JumpTables(tree)


def described(
    tree: Tree,
    tables: JumpTables | None,
    identity: Identity,
    options: ReadOptions,
    remarks: list[str],
    *,
    compounds: bytes | None,
    column: str,
    compounds_name: str = "compound metadata",
    by_type: bool = False,
) -> tuple[Identity, ReadOptions, Maps]:
    """Complete the user's options by JUMP's tables.

    Args:
        tree: The consortium's tables, or the platemaps of one batch (with `barcode_platemap.csv`).
        tables: The former, read; None for the latter (`jump_tables_of`).
        identity: What the user said; what was said stays.
        options: The same; plates of the batch are taken where none was named.
        remarks: Takes what is worth telling, once plate maps were made.
        compounds: Table of samples, for the platemaps of one batch.
        column: Its column that names a compound.
        compounds_name: Its file, for messages.
        by_type: Give plates that the table of wells lacks what all others of their type agree on.

    Returns:
        Identity, options, and what makes the plate maps.

    Raises:
        ContractError: A table is not there or cannot be read.
        ConfigError: The tables have no such batch or plate.
    """
    if tables is None:
        if by_type:
            problem = Problem("--wells-by-type", tree.where, "the consortium's tables", "Leave the option out.")
            raise ConfigError("The platemaps of one batch know no types of plates.", [problem])

        def by_workspace(plates: Sequence[PlateListing]) -> Mapping[str, str]:
            maps, told = maps_of_workspace(
                tree, _imaged(plates), compounds=compounds, compound_column=column, dialects=options.tables,
                solvents=identity.solvents, compounds_name=compounds_name,
            )  # fmt: skip
            remarks.extend(told)
            return maps

        return identity, options, by_workspace
    known = tables.plates(identity.source)
    batches = sorted({plate.batch for plate in known.values()})
    if options.batch is not None and options.batch not in batches:
        problem = Problem("--jump-batch", options.batch, f"one of {', '.join(batches)}", "Correct the name.")
        raise ConfigError(f"{identity.source} has no such batch.", [problem])
    microscope = tables.microscope(identity.source)
    completed = replace(
        identity,
        instrument=identity.instrument or microscope.name,
        modality=identity.modality or microscope.modality,
        pixel_size_um=identity.pixel_size_um or microscope.pixel_size_um,
    )

    def by_tables(plates: Sequence[PlateListing]) -> Mapping[str, str]:
        maps, told = maps_of_tables(tables, identity.source, _imaged(plates), by_type=by_type)
        remarks.extend([*told, *_sites(plates, microscope.sites_per_well)])
        return maps

    return completed, options, by_tables


def _imaged(plates: Sequence[PlateListing]) -> dict[str, set[tuple[int, int]]]:
    return {plate.plate: {item.place for item in plate.fields} for plate in plates}


def _sites(plates: Sequence[PlateListing], planned: int) -> list[str]:
    remarks = []
    for plate in plates:
        sites = {item.site for item in plate.fields}
        if len(sites) != planned:
            remarks.append(f"Plate {plate.plate}: {len(sites)} sites a well; JUMP planned {planned} for this source.")
    return remarks
