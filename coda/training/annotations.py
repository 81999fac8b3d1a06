"""Annotations of compounds, from the user's own file, joined with the compounds of the plates.

Collections name compounds by words, by structure keys and by their own numbers; what a file has decides how it is
joined. The project ships no annotations: the terms of the known collections do not allow it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read
from coda.plates.tabular.wording import NOTHING
from coda.training.labels import COMPOUND, REMEDY

By = Literal["compound", "name", "inchikey", "brd"]

KEY_COLUMNS: Mapping[By, tuple[str, ...]] = {
    "compound": (COMPOUND, "Metadata_JCP2022"),
    "name": ("pert_iname", "Metadata_pert_iname", "Metadata_Name", "name"),
    "inchikey": ("InChIKey", "Metadata_InChIKey", "inchikey"),
    "brd": ("broad_sample", "broad_id", "Metadata_broad_sample", "brd_id"),
}
"""How tables are joined -> the columns that are looked for, in this order, when none is named."""

SEPARATOR = "|"
"""What parts several mechanisms (or several names of one compound) in a cell."""

_NO_MECHANISM = NOTHING | {"unknown"}

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
    """

    mechanisms: Mapping[str, tuple[str, ...]]
    missed: tuple[str, ...]
    by_block: tuple[str, ...]
    unused: int
    rows: int


@dataclass(frozen=True)
class KeyedTable:
    """A table of the user with the column that its rows are named by."""

    rows: pd.DataFrame
    key: str
    where: str


def read_keyed(content: bytes, where: str, by: By, column: str | None = None) -> KeyedTable:
    """Read a table: CSV, tabs, gzip or parquet, with remarks ('!') before the header.

    Args:
        content: The file.
        where: Its name for messages.
        by: What its rows are named by.
        column: The column with that name; one of `KEY_COLUMNS` when None.

    Raises:
        ContractError: It cannot be read, or lacks the column.
    """
    try:
        rows = read(content).without_nothing()
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", "a table of compounds", REMEDY)
        raise ContractError(f"{where} cannot be read.", [problem]) from error
    wanted = (column,) if column else KEY_COLUMNS[by]
    found = next((name for name in wanted if name in rows.columns), None)
    if found is None:
        columns = ", ".join(map(str, rows.columns[:30]))
        problem = Problem(where, f"the columns {columns}", f"a column {' or '.join(wanted)}", "Name the column.")
        raise ContractError(f"{where} lacks a column.", [problem])
    return KeyedTable(rows, found, where)


def annotate(compounds: KeyedTable, annotations: KeyedTable, by: By, mechanism: str) -> Annotated:
    """Join compounds with their annotations.

    All rows of the annotation that are about one compound count together: its mechanisms are those of all of them, so
    that the order of rows never matters, and two rows that differ make several mechanisms.

    Args:
        compounds: A row for each compound, with `Metadata_Compound` (or `Metadata_JCP2022`) and the key; several names
            of one compound in a cell are parted by '|'.
        annotations: Rows with the key and the mechanism.
        by: What the key is.
        mechanism: Column of the annotations with the mechanisms, several parted by '|'.

    Raises:
        ContractError: A column is missing, or the tables have nothing in common; all problems together.
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
    texts = annotations.rows[mechanism].tolist()
    mechanisms: dict[str, set[str]] = {}
    missed: set[str] = set()
    by_block: set[str] = set()
    used: set[int] = set()
    for compound, cell in zip(compounds.rows[name], compounds.rows[compounds.key], strict=True):
        if not compound:
            continue
        keys = _keys(cell, by)
        numbers = {number for key in keys for number in index.get(key, ())}
        if not numbers and by == "inchikey":
            numbers = {number for key in keys for number in blocks.get(key[:INCHIKEY_BLOCK], ())}
            by_block |= {compound} if numbers else set()
        if not numbers:
            missed.add(compound)
            continue
        used |= numbers
        mechanisms.setdefault(compound, set()).update(one for number in numbers for one in _mechanisms(texts[number]))
    if not mechanisms:
        shown = [", ".join(map(str, table.rows[table.key][:3])) for table in (compounds, annotations)]
        found, expected = f"{compounds.key} as {shown[0]}", f"{annotations.key} as {shown[1]}"
        problem = Problem(compounds.where, found, expected, "Join by another column (--by).")
        raise ContractError("No compound is in the annotations.", [problem])
    return Annotated(
        mechanisms={compound: tuple(sorted(found)) for compound, found in sorted(mechanisms.items())},
        missed=tuple(sorted(missed - set(mechanisms))),
        by_block=tuple(sorted(by_block)),
        unused=len(texts) - len(used),
        rows=len(texts),
    )


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
        return ["-".join(text.casefold().split()) for text in texts]
    if by == "inchikey":
        return [text.upper() for text in texts]
    if by == "brd":
        return [text.upper()[:_BRD_NUMBER] for text in texts]
    return texts


def _mechanisms(cell: str) -> list[str]:
    parts = (" ".join(part.split()) for part in cell.split(SEPARATOR))
    return [part for part in parts if part.casefold() not in _NO_MECHANISM]
