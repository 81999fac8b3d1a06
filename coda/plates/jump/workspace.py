"""A batch's own platemaps: `barcode_platemap.csv` and `platemap/<name>.txt`, as a laboratory of JUMP leaves them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.layout import parse_well, well_name
from coda.plates.solvents import Solvents
from coda.plates.tabular.dialect import Dialects, UnreadableTableError
from coda.plates.tabular.doses import dose_columns, read_doses
from coda.plates.tabular.table import Table, read
from coda.plates.tabular.typed_numbers import as_text
from coda.plates.tabular.wording import plain
from coda.plates.tree import Tree

MAX_MAP_BYTES = 16 * 2**20
BARCODES = "barcode_platemap.csv"
MAPS = "platemap"

_ENDINGS = (".txt", ".csv", ".tsv", ".gz")
_BAD = "bad construct"
"""What ORF plate maps write where the reagent turned out to be another one."""

_KEYS = ("InChIKey", "Metadata_InChIKey", "inchikey")
_NAMES = ("pert_iname", "Metadata_pert_iname", "name")


@dataclass(frozen=True)
class Content:
    """What is in a well; `dose_um` as text, empty for none."""

    compound: str
    pert_type: str
    dose_um: str = ""


class Workspace:
    """The tables of a folder while they are read; problems of all of them are kept for the end."""

    def __init__(self, tree: Tree, dialects: Dialects, solvents: Solvents) -> None:
        """Keep the folder.

        Args:
            tree: Folder with `barcode_platemap.csv` and `platemap/`.
            dialects: What a person says of how the tables are written.
            solvents: Names that no treatment may have.
        """
        self._tree = tree
        self._dialects = dialects
        self._solvents = solvents
        self._problems: list[Problem] = []
        self.remarks: list[str] = []

    def raise_problems(self) -> None:
        """Raise a `ContractError` with all problems, if there are any."""
        raise_if_any(ContractError, f"{self._tree.where} cannot be used.", self._problems[:20])

    def map_names(self, plates: Collection[str]) -> dict[str, str]:
        """Return plate -> name of its map.

        Raises:
            ContractError: Plates have no map, or several; all of them together.
        """
        where = f"{self._tree.where}: {BARCODES}"
        table = self._read(BARCODES, ("Assay_Plate_Barcode", "Plate_Map_Name")).without_nothing()
        names: dict[str, tuple[int, str]] = {}
        equal, problems = [], []
        for line, plate, name in table[["Assay_Plate_Barcode", "Plate_Map_Name"]].itertuples():
            before, known = names.setdefault(plate, (line, name))
            if line != before and _stem(known) == _stem(name):
                equal.append(plate)
            elif line != before:
                found = f"the map {name!r} for plate {plate!r}, and in line {before} {known!r}"
                remedy = "Remove the row that is wrong."
                problems.append(Problem(f"{where}, line {line}", found, "one map for each plate", remedy))
        remedy = "Leave the plate out (--plate names the others), or take the folder of its batch."
        problems += [
            Problem(where, f"no plate {plate}", "a row for it", remedy) for plate in plates if plate not in names
        ]
        raise_if_any(ContractError, f"{self._tree.where} lacks plates, or contradicts itself.", problems[:20])
        if equal:
            self.remarks.append(f"{where}: {len(equal)} plate(s) stand there twice with the same map ({equal[0]}).")
        return {plate: names[plate][1] for plate in plates}

    def contents(self, name: str, samples: Mapping[str, Content]) -> dict[tuple[int, int], Content]:
        """Return place -> content of one map; what contradicts itself is kept as a problem.

        Args:
            name: Name of the map in `barcode_platemap.csv`, with or without its ending.
            samples: Sample -> content, where there is a table of them.
        """
        path = self._path(name)
        where = f"{self._tree.where}: {path}"
        table = self._read(path, ("well_position", "broad_sample"))
        doses = self._doses(table, where)
        rows = table.without_nothing()
        read_: dict[tuple[int, int], tuple[int, Content]] = {}
        equal: list[str] = []
        alone: dict[str, list[str]] = {}
        for line, row in zip(rows.index, rows.to_dict("records"), strict=True):
            place = parse_well(str(row["well_position"]))
            if place is None:
                found = f"well {plain(str(row['well_position']), 40)!r}"
                self._problems.append(Problem(f"{where}, line {line}", found, "a well", "Correct the table."))
                continue
            content = self._content(row, samples, doses.get(line, ""), f"{where}, line {line}", alone)
            before, known = read_.setdefault(place, (line, content))
            if line != before and known == content:
                equal.append(well_name(*place))
            elif line != before:
                found = f"well {well_name(*place)} a second time: {_said(content)}, and in line {before} {_said(known)}"
                remedy = "Remove the row that is wrong."
                self._problems.append(Problem(f"{where}, line {line}", found, "one content a well", remedy))
        self.remarks += [
            f"{where}: {sample!r} stands as the sample of {len(wells)} well(s) ({wells[0]}): negative controls."
            for sample, wells in alone.items()
        ]
        if equal:
            self.remarks.append(f"{where}: {len(equal)} well(s) stand there twice, equal ({equal[0]}).")
        return {place: content for place, (_, content) in read_.items()}

    def samples(self, compounds: bytes, column: str, where: str) -> dict[str, Content]:
        """Return sample -> content by a table of compounds.

        Raises:
            ContractError: It cannot be read, lacks a column, or says two things of a sample; all of it together.
        """
        table = self._parsed(compounds, where, "a table with broad_sample").without_nothing()
        self._require(table, where, ("broad_sample", column), "Name one of them (--compound-column).")
        keys = [name for name in _KEYS if name in table.columns]
        names = [name for name in _NAMES if name in table.columns]
        samples: dict[str, Content] = {}
        identities: dict[str, tuple[Content, tuple[str, ...]]] = {}
        problems = []
        for line, row in zip(table.index, table.to_dict("records"), strict=True):
            sample = str(row["broad_sample"])
            content = Content(str(row[column]) or sample, _kind(row))
            content = self._as_control(sample, content, row, names, f"{where}, line {line}")
            identity = (content, tuple(str(row[key]).upper() for key in keys))
            if sample and identities.setdefault(sample, identity) != identity:
                before = identities[sample]
                found = f"{_said(content)} {' '.join(identity[1])} and {_said(before[0])} {' '.join(before[1])}"
                problems.append(Problem(f"{where}, {sample}", found, "one row, or equal ones",
                                        "Remove the row that is wrong."))  # fmt: skip
            samples.setdefault(sample, content)
        raise_if_any(ContractError, "The compound metadata contradicts itself.", problems[:20])
        return samples

    def _as_control(
        self, sample: str, content: Content, row: Mapping[object, object], names: Sequence[str], where: str
    ) -> Content:
        """Return the content, as a negative control where a name of the compound is that of a solvent."""
        called = [sample, content.compound, *(str(row[name]) for name in names)]
        solvent = next((name for name in called if self._solvents.meaning(name) == "solvent"), None)
        if content.pert_type != "trt" or solvent is None:
            return content
        if str(row.get("pert_type", "")).lower() == "trt":
            found, expected = f"{solvent!r} as a treatment (trt)", "a solvent as negative control"
            remedy = "Write negcon in control_type; or give a list of solvents without it (--solvents FILE)."
            self._problems.append(Problem(where, found, expected, remedy))
            return content
        self.remarks.append(f"{where}: {solvent!r} is a solvent; its wells are negative controls.")
        return Content(content.compound, "negcon")

    def _content(
        self, row: Mapping[object, object], samples: Mapping[str, Content], dose: str, where: str,
        alone: dict[str, list[str]],
    ) -> Content:  # fmt: skip
        sample, solvent = str(row["broad_sample"]), str(row.get("solvent", ""))
        if not sample:
            return Content(solvent, "negcon") if solvent else Content("", "empty")
        if sample.lower() == _BAD:
            return Content("", "trt")
        known = samples.get(sample)
        if known is not None:
            return Content(known.compound, known.pert_type, "" if known.pert_type == "negcon" and dose == "0" else dose)
        meaning = self._solvents.meaning(sample)
        if meaning == "solvent":
            alone.setdefault(sample, []).append(str(row["well_position"]))
            return Content(sample, "negcon")
        if meaning == "unclear":
            remedy = "Leave broad_sample (and, for an empty well, solvent) empty; or name it in --compound-metadata."
            self._problems.append(Problem(where, f"the sample {sample!r}", "what the well holds", remedy))
        return Content(sample, "trt", dose)

    def _doses(self, table: Table, where: str) -> dict[int, str]:
        """Return line -> dose in micromolar; of several columns all that give one must agree."""
        doses: dict[int, str] = {}
        for column in dose_columns(list(table.rows.columns)):
            found, faults = read_doses(table, column)
            self._problems += [
                Problem(
                    f"{where}, line {fault.line}", f"{column.name}: {fault.found}", "a number or nothing", fault.remedy
                )
                for fault in faults
            ]
            for line, dose in found.items():
                if doses.setdefault(line, as_text(dose)) != as_text(dose):
                    both = f"doses of {doses[line]} and {as_text(dose)} uM in one row"
                    self._problems.append(Problem(f"{where}, line {line}", both, "one dose", "Correct one."))
        return doses

    def _path(self, name: str) -> str:
        """Return the file of a map: the one whose name is that of the table, with or without endings."""
        maps = [file.path for file in self._tree.files(MAPS)]
        fitting = sorted(
            path for path in maps if _stem(PurePosixPath(path).name) == _stem(name) and path.count("/") == 1
        )
        if not fitting:
            return f"{MAPS}/{name}.txt"  # so that the message says what was looked for
        contents = {self._tree.read(path, at_most=MAX_MAP_BYTES) for path in fitting}
        if len(contents) > 1:
            problem = Problem(f"{self._tree.where}: {name}", f"the maps {', '.join(fitting)}, which differ",
                              "one map of this name", "Remove the one that is wrong.")  # fmt: skip
            raise ContractError(f"{self._tree.where} has two maps of one name.", [problem])
        return fitting[0]

    def _read(self, path: str, columns: Sequence[str]) -> Table:
        where = f"{self._tree.where}: {path}"
        table = self._parsed(self._tree.read(path, at_most=MAX_MAP_BYTES), where, "a plate map of JUMP's kind")
        self._require(table.rows, where, columns, "Correct the table.")
        if table.notes and table.notes != ("values parted by tab",):
            self.remarks.append(f"{table.told(where)}.")
        return table

    def _parsed(self, data: bytes, where: str, expected: str) -> Table:
        try:
            return read(data, self._dialects.of(where))
        except UnreadableTableError as error:
            problem = Problem(where, f"a table that {error}", expected, error.remedy or "Check the file.")
            raise ContractError(f"{where} cannot be read.", [problem]) from error

    def _require(self, table: pd.DataFrame, where: str, columns: Sequence[str], remedy: str) -> None:
        found = f"the columns {', '.join(map(str, table.columns[:20]))}"
        problems = [Problem(where, found, f"a column {name}", remedy) for name in columns if name not in table.columns]
        raise_if_any(ContractError, f"{where} cannot be used.", problems)


def _stem(name: str) -> str:
    """Return the name of a map without its endings."""
    stem = name.strip()
    while stem.lower().endswith(_ENDINGS):
        stem = stem[:-4] if not stem.lower().endswith(".gz") else stem[:-3]
    return stem


def _kind(row: Mapping[object, object]) -> str:
    for column in ("control_type", "pert_type"):
        for kind in ("negcon", "poscon", "empty"):
            if str(row.get(column, "")).lower().startswith(kind):
                return kind
    return "trt"


def _said(content: Content) -> str:
    dose = f" at {content.dose_um} uM" if content.dose_um else ""
    return f"{content.compound or 'nothing'!r} ({content.pert_type}){dose}"
