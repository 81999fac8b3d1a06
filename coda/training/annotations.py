"""Annotations of compounds, from the user's own file, joined with the compounds of the plates.

Collections name compounds by words, by structure keys and by their own numbers; what a file has decides how it is
joined. The project ships no annotations: the terms of the known collections do not allow it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.tabular.dialect import Dialect, UnreadableTableError
from coda.plates.tabular.normal_names import hyphened
from coda.plates.tabular.table import read
from coda.plates.tabular.unique import contradictions
from coda.training.labels import COMPOUND, REMEDY
from coda.training.mechanism_names import doubtful, parted, spellings

By = Literal["compound", "name", "inchikey", "brd"]

KEY_COLUMNS: Mapping[By, tuple[str, ...]] = {
    "compound": (COMPOUND, "Metadata_JCP2022"),
    "name": ("pert_iname", "Metadata_pert_iname", "Metadata_Name", "name"),
    "inchikey": ("InChIKey", "Metadata_InChIKey", "inchikey"),
    "brd": ("broad_sample", "broad_id", "Metadata_broad_sample", "brd_id"),
}
"""How tables are joined -> the columns that are looked for, in this order, when none is named."""

SEPARATOR = "|"
"""What parts several names of one compound in a cell."""

INCHIKEY_BLOCK = 14
"""Characters of an InChIKey that name the skeleton; the rest tells stereochemistry and charge."""

_BRD_NUMBER = 13
"""Characters of 'BRD-K12345678-001-02-3' that name the compound; the rest is the batch."""


@dataclass(frozen=True)
class Annotated:
    """The compounds of the plates with what an annotation says of them.

    Attributes:
        mechanisms: Compound -> its mechanisms, each once, in alphabetical order; empty where a row gives none.
        missed: Compounds that no row of the annotation is about.
        by_block: Compounds that were only found by the first block of their InChIKey.
        unused: Rows of the annotation that are about no compound of the plates.
        rows: Rows of the annotation.
        joined: Mechanism as it is shown -> all its spellings, where the annotation has several.
    """

    mechanisms: Mapping[str, tuple[str, ...]]
    missed: tuple[str, ...]
    by_block: tuple[str, ...]
    unused: int
    rows: int
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyedTable:
    """A table of the user, the column that its rows are named by, and how it is written where that is worth telling."""

    rows: pd.DataFrame
    key: str
    where: str
    told: str = ""


def read_keyed(
    content: bytes, where: str, by: By, column: str | None = None, dialect: Dialect | None = None
) -> KeyedTable:
    """Read a table of any kind that `coda.plates.tabular.table.read` knows.

    Args:
        content: The file.
        where: Its name for messages.
        by: What its rows are named by.
        column: The column with that name; one of `KEY_COLUMNS` when None.
        dialect: What a person says of how it is written.

    Raises:
        ContractError: It cannot be read, or lacks the column.
    """
    try:
        table = read(content, dialect)
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", "a table of compounds", error.remedy or REMEDY)
        raise ContractError(f"{where} cannot be read.", [problem]) from error
    rows = table.without_nothing()
    wanted = (column,) if column else KEY_COLUMNS[by]
    found = next((name for name in wanted if name in rows.columns), None)
    if found is None:
        columns = ", ".join(map(str, rows.columns[:30]))
        problem = Problem(where, f"the columns {columns}", f"a column {' or '.join(wanted)}", "Name the column.")
        raise ContractError(f"{where} lacks a column.", [problem])
    return KeyedTable(rows, found, where, table.told(PurePath(where).name))


def annotate(
    compounds: KeyedTable, annotations: KeyedTable, by: By, mechanism: str, separators: Collection[str] = ()
) -> Annotated:
    """Join compounds with their annotations.

    All rows of the annotation that are about one compound count together: its mechanisms are those of all of them, so
    that the order of rows never matters, and two rows that differ make several mechanisms. Spellings of one mechanism
    are joined (`coda.training.mechanism_names`).

    Args:
        compounds: A row for each compound, with `Metadata_Compound` (or `Metadata_JCP2022`) and the key; several names
            of one compound in a cell are parted by '|'.
        annotations: Rows with the key and the mechanism.
        by: What the key is.
        mechanism: Column of the annotations with the mechanisms, several parted by '|'.
        separators: What else parts several mechanisms in a cell; when none is named, cells that seem to hold several
            are asked about ('|' alone says that they are names as they stand).

    Raises:
        ContractError: A column is missing, a compound has two InChIKeys, cells may hold several mechanisms, or the
            tables have nothing in common; all problems together.
    """
    name = next((column for column in KEY_COLUMNS["compound"] if column in compounds.rows.columns), None)
    problems = []
    if name is None:
        columns = ", ".join(map(str, compounds.rows.columns[:30]))
        problems.append(Problem(compounds.where, f"the columns {columns}", f"a column {COMPOUND}", "Add it."))
    if mechanism not in annotations.rows.columns:
        columns = ", ".join(map(str, annotations.rows.columns[:30]))
        remedy = "Name the column of the mechanisms (--mechanism)."
        problems.append(Problem(annotations.where, f"the columns {columns}", f"a column {mechanism}", remedy))
    raise_if_any(ContractError, "The tables cannot be joined.", problems)
    index, blocks = _index(annotations, by)
    found: dict[str, set[int]] = {}
    missed: set[str] = set()
    by_block: set[str] = set()
    for compound, cell in zip(compounds.rows[name], compounds.rows[compounds.key], strict=True):
        if not compound:
            continue
        keys = _keys(cell, by)
        numbers = {number for key in keys for number in index.get(key, ())}
        if not numbers and by == "inchikey":
            numbers = {number for key in keys for number in blocks.get(key[:INCHIKEY_BLOCK], ())}
            by_block |= {compound} if numbers else set()
        if numbers:
            found.setdefault(compound, set()).update(numbers)
        else:
            missed.add(compound)
    cells = annotations.rows[mechanism]
    used = sorted(set().union(*found.values()))
    problems = _two_keys(compounds, str(name)) if by == "inchikey" else []
    if not separators:
        problems += doubtful(cells.iloc[used], annotations.where)
    if not found:
        seen = [", ".join(map(str, table.rows[table.key][:3])) for table in (compounds, annotations)]
        held, expected = f"{compounds.key} as {seen[0]}", f"{annotations.key} as {seen[1]}"
        problems.append(Problem(compounds.where, held, expected, "Join by another column (--by)."))
    raise_if_any(
        ContractError, "The tables cannot be joined." if found else "No compound is in the annotations.", problems[:20]
    )
    parts = [parted(cell, separators) for cell in cells]
    shown, joined = spellings(one for part in parts for one in part)
    mechanisms = {
        compound: tuple(sorted({shown[one] for number in numbers for one in parts[number]}))
        for compound, numbers in sorted(found.items())
    }
    on_plates = {one for names in mechanisms.values() for one in names}
    return Annotated(
        mechanisms=mechanisms,
        missed=tuple(sorted(missed - set(mechanisms))),
        by_block=tuple(sorted(by_block)),
        unused=len(cells) - len(used),
        rows=len(cells),
        joined={one: names for one, names in joined.items() if one in on_plates},
    )


def _two_keys(compounds: KeyedTable, name: str) -> list[Problem]:
    """Return a problem for each compound that rows give different keys."""
    keys = compounds.rows[compounds.key].map(lambda cell: SEPARATOR.join(sorted(_keys(str(cell), "inchikey"))))
    rows = compounds.rows.assign(**{compounds.key: keys})
    return contradictions(rows[keys != ""], name, [compounds.key], compounds.where)


def _index(table: KeyedTable, by: By) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return key -> rows, and for InChIKeys first block -> rows."""
    index: dict[str, list[int]] = defaultdict(list)
    blocks: dict[str, list[int]] = defaultdict(list)
    for number, cell in enumerate(table.rows[table.key]):
        for key in _keys(cell, by):
            index[key].append(number)
            blocks[key[:INCHIKEY_BLOCK]].append(number)
    return index, blocks


def _keys(cell: str, by: By) -> Sequence[str]:
    """Return the keys of a cell in the form in which they are compared."""
    texts = [text.strip() for text in cell.split(SEPARATOR)] if by != "compound" else [cell.strip()]
    texts = [text for text in texts if text]
    if by == "name":
        return [hyphened(text) for text in texts]
    if by == "inchikey":
        return ["".join(text.split()).upper().removeprefix("INCHIKEY=") for text in texts]
    if by == "brd":
        return [text.upper()[:_BRD_NUMBER] for text in texts]
    return texts
