"""Mechanisms of action from the user's own table: the one place where labels enter (paper section 4)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.base import digest_of_json
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read
from coda.training.mechanism_names import BAR, doubtful, spellings

COMPOUND, MECHANISM = "Metadata_Compound", "moa"
REMEDY = "Correct the label table and start the training again."
BUILD = "Let coda labels build make the table of yours: it joins spellings and parts mechanisms, and says which."


@dataclass(frozen=True)
class LabelList:
    """The frozen list of labels that a head was trained with.

    Attributes:
        compounds: Compound -> mechanism.
    """

    compounds: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Mechanisms in alphabetical order: the order of the logits."""
        return tuple(sorted(set(self.compounds.values())))

    @property
    def digest(self) -> str:
        """SHA-256 that names the list."""
        return digest_of_json(dict(self.compounds))

    def to_bytes(self) -> bytes:
        """Return the list as JSON."""
        content = {"classes": self.classes, "compounds": dict(sorted(self.compounds.items())), "digest": self.digest}
        return (json.dumps(content, indent=2) + "\n").encode()

    def codes(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Return the class of every field, -1 where its compound has no label (controls among them)."""
        number = {mechanism: code for code, mechanism in enumerate(self.classes)}
        by_compound = {compound: number[mechanism] for compound, mechanism in self.compounds.items()}
        treated = _treated(table)
        compounds = table["Metadata_Compound"].tolist()
        codes = np.array([by_compound.get(str(name), -1) for name in compounds], dtype=np.int64)
        return np.where(treated, codes, -1)


@dataclass(frozen=True)
class JoinReport:
    """What became of fields and labels when they were brought together.

    Attributes:
        labelled_fields: Fields with a label.
        unlabelled_fields: Treated fields without one.
        missed_compounds: Treated compounds of the fields that the table does not know.
        absent_compounds: Compounds of the table that no field shows.
    """

    labelled_fields: int
    unlabelled_fields: int
    missed_compounds: tuple[str, ...]
    absent_compounds: tuple[str, ...]


def read_labels(content: bytes, where: str, *, built: bool = False) -> LabelList:
    r"""Read a label table: CSV with the columns Metadata_Compound and moa; rows without a mechanism are passed over.

    Args:
        content: The file.
        where: Its name for messages.
        built: Whether `coda labels build` made it, which has asked about names that look like several.

    Raises:
        ContractError: The table cannot be read, lacks a column, gives a compound two mechanisms, spells one mechanism
            in two ways, has names that look like several mechanisms, or has fewer than two mechanisms; all problems
            together.

    Example:
        >>> labels = read_labels(b"Metadata_Compound,moa\nc1,tubulin inhibitor\nc2,kinase inhibitor\n", "labels.csv")
        >>> labels.classes
        ('kinase inhibitor', 'tubulin inhibitor')
    """
    try:
        table = read(content).rows
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", f"a CSV with {COMPOUND} and {MECHANISM}", REMEDY)
        raise ContractError("The labels cannot be read.", [problem]) from error
    missing = [name for name in (COMPOUND, MECHANISM) if name not in table]
    if missing:
        columns = ", ".join(map(str, table.columns))
        problems = [Problem(where, f"columns {columns}", f"a column {name}", REMEDY) for name in missing]
        raise ContractError("The label table lacks columns.", problems)
    named = pd.DataFrame({name: table[name].str.strip() for name in (COMPOUND, MECHANISM)})
    lines = named.index
    problems = [
        Problem(f"{where}, line {line}", "no compound", "a compound", REMEDY)
        for line in lines[(named[COMPOUND] == "") & (named[MECHANISM] != "")]
    ]
    named = named[(named[COMPOUND] != "") & (named[MECHANISM] != "")]
    for compound, mechanisms in named.groupby(COMPOUND)[MECHANISM]:
        different = sorted(set(mechanisms))
        if len(different) > 1:
            problems.append(Problem(f"{where}: {compound}", " and ".join(different), "one mechanism", REMEDY))
    _, joined = spellings(named[MECHANISM])
    problems += [Problem(where, " and ".join(map(repr, names)), "one spelling of a mechanism", BUILD)
                 for names in joined.values()]  # fmt: skip
    barred = named[MECHANISM].str.contains(BAR, regex=False)
    problems += [Problem(f"{where}, line {line}", repr(name), "one mechanism", BUILD)
                 for line, name in named.loc[barred, MECHANISM].items()]  # fmt: skip
    if not built:
        problems += [replace(problem, remedy=BUILD) for problem in doubtful(named[MECHANISM], where)]
    if named[MECHANISM].nunique() < 2:
        found = f"{named[MECHANISM].nunique()} mechanism(s)"
        problems.append(Problem(where, found, "at least two to distinguish", REMEDY))
    raise_if_any(ContractError, f"The label table {where} cannot be used.", problems)
    return LabelList(dict(zip(named[COMPOUND], named[MECHANISM], strict=True)))


def _treated(table: pd.DataFrame) -> NDArray[np.bool_]:
    return ~table["Metadata_pert_type"].isin(["negcon", "empty"]).to_numpy(bool)


def join(labels: LabelList, table: pd.DataFrame, where: str) -> tuple[LabelList, JoinReport]:
    """Keep the labels that the fields can teach, and report what was missed.

    Returns:
        The frozen list: only compounds that at least one treated field shows.

    Raises:
        ContractError: Fewer than two mechanisms are left.
    """
    treated = table[_treated(table)]
    shown = set(treated["Metadata_Compound"].astype(str))
    kept = LabelList({name: mechanism for name, mechanism in labels.compounds.items() if name in shown})
    labelled = treated["Metadata_Compound"].astype(str).isin(list(kept.compounds))
    report = JoinReport(
        int(labelled.sum()),
        int((~labelled).sum()),
        tuple(sorted(shown - set(kept.compounds))),
        tuple(sorted(set(labels.compounds) - shown)),
    )
    if len(kept.classes) < 2:
        examples = ", ".join(report.missed_compounds[:3]) or "none"
        found = f"{len(kept.compounds)} compound(s) in common, {len(kept.classes)} mechanism(s); plates hold {examples}"
        expected = "compounds of at least two mechanisms on the plates"
        problem = Problem(where, found, expected, "Name the compounds as the plate maps do (Metadata_Compound).")
        raise ContractError("The labels do not belong to these plates.", [problem])
    return kept, report
