"""The consortium's own tables: plates, wells, controls and microscopes of all sources."""

import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.layout import parse_well
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read_table
from coda.plates.tree import Tree

MAX_PACKED_BYTES = 256 * 2**20
MAX_WELLS = 20_000_000
"""Rows of the well table; the whole of JUMP has about 1.2 million."""

EMPTY = "JCP2022_999999"
"""What the tables call a well with nothing in it."""

UNKNOWN = frozenset({"", "JCP2022_UNKNOWN"})
"""What they write where nobody knows what is in a well."""

Modality = Literal["compound", "orf", "crispr"]

_PLATE_COLUMNS = ("Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_PlateType")
_WELL_COLUMNS = ("Metadata_Source", "Metadata_Plate", "Metadata_Well", "Metadata_JCP2022")


@dataclass(frozen=True)
class JumpPlate:
    """One plate of `plate.csv`."""

    source: str
    batch: str
    plate: str
    plate_type: str

    @property
    def modality(self) -> Modality:
        """What its wells are treated with: plate types other than ORF and CRISPR are all of compounds."""
        known: dict[str, Modality] = {"ORF": "orf", "CRISPR": "crispr"}
        return known.get(self.plate_type, "compound")


@dataclass(frozen=True)
class Microscope:
    """One row of `microscope_config.csv`; `sites_per_well` as planned, plates may have fewer."""

    name: str
    modality: Literal["widefield", "confocal"]
    objective: str
    pixel_size_um: float
    sites_per_well: int


@dataclass(frozen=True)
class Control:
    """One row of `perturbation_control.csv`; `modality` is 'any' for empty wells."""

    pert_type: str
    name: str
    modality: str


@dataclass(frozen=True)
class PlateWells:
    """Well of a plate, as the table writes it -> JCP2022 id; and rows that contradict each other."""

    wells: dict[str, str]
    problems: list[Problem]


class JumpTables:
    """The tables in a folder; each is read when it is first asked for, and kept."""

    def __init__(self, tree: Tree) -> None:
        """Keep the folder.

        Args:
            tree: Folder with `plate.csv`, `well.csv`, `perturbation_control.csv` and `microscope_config.csv`, each as
                it is or gzipped.
        """
        self._tree = tree
        self._tables: dict[str, pd.DataFrame] = {}
        self._wells: dict[tuple[str, str], PlateWells] = {}

    @property
    def where(self) -> str:
        """The folder, for messages."""
        return self._tree.where

    def sources(self) -> list[str]:
        """Return the names of the sources that have plates; see `plates` for the errors."""
        return sorted(set(self._table("plate.csv", _PLATE_COLUMNS)["Metadata_Source"]))

    def plates_of_type(self, plate_type: str) -> dict[tuple[str, str], JumpPlate]:
        """Return the plates of one type in all sources, by source and name; see `plates` for the errors."""
        found = (plate for source in self.sources() for plate in self.plates(source).values())
        return {(plate.source, plate.plate): plate for plate in found if plate.plate_type == plate_type}

    def plates(self, source: str) -> dict[str, JumpPlate]:
        """Return the plates of a source by name.

        Raises:
            ContractError: The table is not there, cannot be read, or has no plate of this source.
        """
        table = self._table("plate.csv", _PLATE_COLUMNS)
        rows = table.loc[table["Metadata_Source"] == source, list(_PLATE_COLUMNS)]
        if rows.empty:
            raise self._no_source("plate.csv", table, source)
        plates: dict[str, JumpPlate] = {}
        problems = []
        for line, *row in rows.itertuples():
            item = JumpPlate(*map(str, row))
            if plates.setdefault(item.plate, item) != item:
                where, before = f"{self.where}: plate.csv, line {line}", plates[item.plate]
                found = f"{item.plate} of {item.batch} ({item.plate_type}), and of {before.batch} ({before.plate_type})"
                problems.append(
                    Problem(where, found, "one row a plate, or equal ones", "Remove the row that is wrong.")
                )
        raise_if_any(ContractError, "plate.csv contradicts itself.", problems[:20])
        return plates

    def microscope(self, source: str) -> Microscope:
        """Return the microscope of a source.

        Raises:
            ContractError: The table is not there, cannot be read, or has no usable row of this source.
        """
        columns = (
            "Metadata_Source", "Metadata_Microscope_Name", "Metadata_Widefield_vs_Confocal", "Metadata_Objective_NA",
            "Metadata_Sites_Per_Well", "Metadata_Pixel_Size_Microns",
        )  # fmt: skip
        table = self._table("microscope_config.csv", columns)
        rows = table[table["Metadata_Source"] == source]
        if rows.empty:
            raise self._no_source("microscope_config.csv", table, source)
        if len(rows[list(columns)].drop_duplicates()) > 1:
            found = " and ".join(", ".join(map(str, one)) for one in rows[list(columns)].itertuples(index=False))
            problem = Problem(f"{self.where}: microscope_config.csv, {source}", found[:300], "one microscope a source",
                              "Remove the row that is wrong.")  # fmt: skip
            raise ContractError("microscope_config.csv contradicts itself.", [problem])
        row = rows.iloc[0]
        kind = str(row["Metadata_Widefield_vs_Confocal"]).lower()
        try:
            return Microscope(
                name=str(row["Metadata_Microscope_Name"]),
                modality={"widefield": "widefield", "confocal": "confocal"}[kind],  # type: ignore[arg-type]
                objective=f"NA {float(row['Metadata_Objective_NA']):g}",
                pixel_size_um=float(row["Metadata_Pixel_Size_Microns"]),
                sites_per_well=int(row["Metadata_Sites_Per_Well"]),
            )
        except (KeyError, ValueError) as error:
            found = ", ".join(map(str, row[list(columns)]))
            remedy = "Correct the row, or give --pixel-size and --modality without these tables."
            where = f"{self.where}: microscope_config.csv, {source}"
            problem = Problem(where, found, "widefield or confocal, and numbers", remedy)
            raise ContractError("The microscope of this source cannot be read.", [problem]) from error

    def controls(self) -> dict[str, Control]:
        """Return the controls by their JCP2022 id; see `plates` for the errors."""
        columns = ("Metadata_JCP2022", "Metadata_pert_type", "Metadata_Name", "Metadata_modality")
        table = self._table("perturbation_control.csv", columns)
        controls: dict[str, Control] = {}
        problems = []
        for line, jcp, kind, name, modality in table[list(columns)].itertuples():
            control = Control(kind, name, modality)
            if controls.setdefault(jcp, control) != control:
                where = f"{self.where}: perturbation_control.csv, line {line}, {jcp}"
                problems.append(
                    Problem(where, f"{control} and {controls[jcp]}", "one row, or equal ones", "Correct it.")
                )
        raise_if_any(ContractError, "perturbation_control.csv contradicts itself.", problems[:20])
        return controls

    def wells(self, source: str, plates: Collection[str]) -> dict[str, dict[str, str]]:
        """Return what is in the wells of some plates of a source.

        The table is read in blocks, of which only these plates are kept: memory does not grow with its 20 MB.

        Returns:
            Plate -> well, as the table writes it -> JCP2022 id; a plate without any row is not in it.

        Raises:
            ContractError: The table is not there or cannot be read, or names a well of a plate twice.
        """
        self.keep([(source, plate) for plate in plates])
        read = {plate: self._wells[source, plate] for plate in plates}
        problems = [problem for plate in read.values() for problem in plate.problems]
        raise_if_any(ContractError, "well.csv contradicts itself.", problems[:20])
        return {plate: dict(found.wells) for plate, found in read.items() if found.wells}

    def keep(self, plates: Collection[tuple[str, str]]) -> None:
        """Read the wells of plates of any sources, all in one turn through the table; they are not read again.

        Raises:
            ContractError: The table is not there or cannot be read. What contradicts itself is told by `wells`.
        """
        missing = set(plates) - set(self._wells)
        if not missing:
            return
        name, data = self._read("well.csv")
        found = {key: PlateWells({}, []) for key in missing}
        by_place: dict[tuple[str, str, tuple[int, int] | str], str] = {}
        wanted = [pa.array(sorted({key[number] for key in missing}), pa.string()) for number in (0, 1)]
        try:
            for rows in _blocks(data, *wanted):
                for source, plate, well, jcp in rows:
                    item = found.get((source, plate))
                    if item is None:
                        continue
                    known = item.wells.setdefault(well, jcp)
                    other = by_place.setdefault((source, plate, parse_well(well) or well), jcp)  # 'B3' is 'B03'
                    if {jcp, known, other} != {jcp}:
                        where = f"{self.where}: {name}, plate {plate}, well {well}"
                        problem = Problem(where, f"{other} and {jcp}", "one content a well", "Correct it.")
                        item.problems.append(problem)
        except (pa.ArrowException, OSError, EOFError, KeyError, zlib.error, UnreadableTableError) as error:
            raise self._unreadable(name, str(error)) from error
        self._wells |= found

    def _table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        kept = name
        if kept not in self._tables:
            name, data = self._read(name)
            try:
                self._tables[kept] = read_table(data)
            except UnreadableTableError as error:
                raise self._unreadable(name, str(error)) from error
        table = self._tables[kept]
        absent = [column for column in columns if column not in table.columns]
        if absent:
            raise self._unreadable(name, f"has no column {', '.join(absent)}")
        return table

    def _read(self, name: str) -> tuple[str, bytes]:
        present = {file.path for file in self._tree.files()}
        for candidate in (name, f"{name}.gz"):
            if candidate in present:
                return candidate, self._tree.read(candidate, at_most=MAX_PACKED_BYTES)
        remedy = "Take the folder metadata/ of JUMP's datasets repository, whole (docs/manifests.md)."
        problem = Problem(self.where, f"no {name} or {name}.gz", "the tables of JUMP-CP", remedy)
        raise ContractError(f"{self.where} lacks a table.", [problem])

    def _unreadable(self, name: str, reason: str) -> ContractError:
        found = " ".join(f"a table that {reason}".split())[:300]
        problem = Problem(f"{self.where}: {name}", found, "the table as JUMP-CP publishes it", "Download it again.")
        return ContractError(f"{name} cannot be read.", [problem])

    def _no_source(self, name: str, table: pd.DataFrame, source: str) -> ContractError:
        known = ", ".join(sorted(set(table["Metadata_Source"]))[:20])
        problem = Problem(f"{self.where}: {name}", f"the sources {known}", f"rows of {source}", "Correct --source.")
        return ContractError(f"{source} is no source of these tables.", [problem])


def pert_type_of(jcp: str, modality: Modality, controls: Mapping[str, Control]) -> str:
    """Return what a perturbation is on a plate: 'negcon', 'poscon', 'empty' or 'trt'.

    A negative control is one of its own kind of plate only: DMSO beside reagents for genes says nothing of a cell
    without them. Positive controls count on every plate; JUMP puts compounds of known effect on its ORF plates.
    """
    control = controls.get(jcp)
    if jcp == EMPTY or (control is not None and control.pert_type == "empty"):
        return "empty"
    if control is None or (control.pert_type == "negcon" and control.modality not in {modality, "any"}):
        return "trt"
    return control.pert_type if control.pert_type in {"negcon", "poscon"} else "trt"


def _blocks(data: bytes, sources: pa.Array, plates: pa.Array) -> "Iterator[zip[tuple[str, str, str, str]]]":
    """Yield source, plate, well and id of the rows that are wanted, one block of the table after the other."""
    stream = io.BytesIO(data)
    file = gzip.GzipFile(fileobj=stream) if data.startswith(b"\x1f\x8b") else stream
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(_WELL_COLUMNS, pa.string()), include_columns=list(_WELL_COLUMNS),
        strings_can_be_null=False,
    )  # fmt: skip
    seen = 0
    with pa_csv.open_csv(file, convert_options=options, read_options=pa_csv.ReadOptions(use_threads=False)) as reader:
        for block in reader:
            seen += block.num_rows
            if seen > MAX_WELLS:
                raise UnreadableTableError(f"has more than {MAX_WELLS} rows")
            mine = pc.and_(pc.is_in(block.column(0), value_set=sources), pc.is_in(block.column(1), value_set=plates))
            rows = block.filter(mine)
            if rows.num_rows:
                yield zip(*(rows.column(number).to_pylist() for number in range(4)), strict=True)
