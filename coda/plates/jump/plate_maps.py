"""Plate maps in this project's columns, from the consortium's tables or from a batch's own `workspace/metadata`."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.jump.by_type import wells_by_type
from coda.plates.jump.consortium_tables import UNKNOWN, JumpTables, pert_type_of
from coda.plates.jump.workspace import Content, Workspace
from coda.plates.layout import parse_well, well_name
from coda.plates.plate_map import COLUMNS, UNKNOWN_TREATMENT
from coda.plates.solvents import Solvents, packaged
from coda.plates.tabular.dialect import Dialects
from coda.plates.tree import Tree


def maps_of_tables(
    tables: JumpTables, source: str, imaged: Mapping[str, Collection[tuple[int, int]]], *, by_type: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Return the plate maps of plates by the consortium's tables.

    The compound is the JCP2022 id, and the treatment too: these tables give no dose. Wells whose content nobody knows,
    and imaged wells that the table lacks, are treatments of their own.

    Args:
        tables: The tables.
        source: Source of the plates.
        imaged: Plate -> imaged wells as (row, column) from 0.
        by_type: Give a plate that the table of wells lacks what all other plates of its type agree on.

    Returns:
        Plate -> CSV text with the columns of `coda.plates.plate_map.COLUMNS`; and remarks.

    Raises:
        ContractError: A table is not there or cannot be read, or does not have a plate; all such plates together.
    """
    known = tables.plates(source)
    wells = tables.wells(source, imaged)
    controls = tables.controls()
    told: list[str] = []
    if by_type:
        for plate in [plate for plate in imaged if plate in known and plate not in wells]:
            wells[plate], said = wells_by_type(tables, known[plate])
            told.append(said)
    remedy = "Leave the plate out (--plate names the others), or give its wells with --plate-map"
    remedy += "." if by_type else "; plates of one type that all hold the same: --wells-by-type."
    problems = [
        Problem(f"{tables.where}, plate {plate}", f"no row of {source}", f"the plate in {table}", remedy)
        for plate in imaged
        for table, rows in (("plate.csv", known), ("well.csv", wells))
        if plate not in rows
    ]
    raise_if_any(ContractError, f"JUMP's tables lack plates of {source}.", problems)
    maps, remarks = {}, told
    for plate, places in imaged.items():
        modality = known[plate].modality
        contents = {
            _place(well, f"{tables.where}, plate {plate}"): Content(jcp, pert_type_of(jcp, modality, controls))
            for well, jcp in wells[plate].items()
        }
        maps[plate], unknown = _map(plate, contents, places)
        remarks += _remark(plate, unknown)
    return maps, remarks


def maps_of_workspace(
    tree: Tree, imaged: Mapping[str, Collection[tuple[int, int]]], *, compounds: bytes | None = None,
    compound_column: str = "broad_sample", dialects: Dialects | None = None, solvents: Solvents | None = None,
    compounds_name: str = "compound metadata",
) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Return the plate maps of plates by a `workspace/metadata/platemaps/<batch>` folder.

    A well without a sample is a negative control where the map names a solvent (it holds that and nothing else), and
    empty where it names none; a solvent that stands as the sample is a negative control, too. `mmoles_per_liter`, or
    another column of doses, gives the dose.

    Args:
        tree: Folder with `barcode_platemap.csv` and `platemap/<name>.txt`.
        imaged: Plate -> imaged wells as (row, column) from 0.
        compounds: Table with a row for each `broad_sample`: `pert_type` and `control_type` tell the controls. Without
            it every sample but a solvent is a treatment.
        compound_column: Column of that table that names the compound (broad_sample, InChIKey, pert_iname, ...).
        dialects: What a person says of how the tables are written.
        solvents: Names that no treatment may have; the packaged ones when None.
        compounds_name: Name of the file of `compounds`.

    Returns:
        Plate -> CSV text with the columns of `coda.plates.plate_map.COLUMNS`; and remarks.

    Raises:
        ContractError: A table is not there or cannot be read, contradicts itself, or does not have a plate or column;
            all of it together.
    """
    workspace = Workspace(tree, dialects or Dialects(), solvents or packaged())
    names = workspace.map_names(imaged)
    samples = workspace.samples(compounds, compound_column, compounds_name) if compounds is not None else {}
    read = {name: workspace.contents(name, samples) for name in dict.fromkeys(names.values())}
    workspace.raise_problems()
    maps, remarks = {}, list(workspace.remarks)
    for plate, places in imaged.items():
        maps[plate], unknown = _map(plate, read[names[plate]], places)
        remarks += _remark(plate, unknown)
    return maps, remarks


def _place(well: str, where: str) -> tuple[int, int]:
    place = parse_well(well)
    if place is None:
        raise ContractError(
            f"{where} cannot be used.", [Problem(where, f"well {well!r}", "a well", "Correct the table.")]
        )
    return place


def _map(
    plate: str, contents: Mapping[tuple[int, int], Content], imaged: Collection[tuple[int, int]]
) -> tuple[str, list[str]]:
    """Return the CSV text of a map, and the wells whose content nobody knows."""
    rows, unknown = [], []
    for place in sorted({*contents, *imaged}):
        content, well = contents.get(place, Content("", "trt")), well_name(*place)
        if content.pert_type == "empty":
            rows.append((plate, well, "", "", "empty", ""))
            continue
        if content.compound in UNKNOWN:
            unknown.append(well)
            name = f"{UNKNOWN_TREATMENT}{plate}:{well}"
            rows.append((plate, well, name, name, "trt", ""))
            continue
        treatment = f"{content.compound}@{float(content.dose_um):g}" if content.dose_um else content.compound
        rows.append((plate, well, content.compound, treatment, content.pert_type, content.dose_um))
    text = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")
    return text, unknown


def _remark(plate: str, unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    return [f"Plate {plate}: nobody knows what is in {len(unknown)} wells ({shown}); each is a treatment of its own."]
