"""Tables of a batch folder on the way back in: a damaged one is an error, never taken for what it should be."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from coda.errors import IntegrityError, Problem, machine_error, raise_if_any
from coda.plates.tabular.wording import plain

_MALFORMED = (
    pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError,
    NotImplementedError,
)  # fmt: skip
"""What pyarrow and pandas raise on bytes, or on descriptions of columns, that are not what they seem."""

REMEDY = "Fetch this batch again from the data registry, or ingest it again; find out who changed the file."


def read_stored(path: Path, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that ingest or validation wrote.

    Raises:
        IntegrityError: It is absent, damaged, or lacks a column.
        TransientError: The machine failed while it was read.
        ConfigError: It may not be read.
    """
    try:
        # pages carry a checksum (`coda.plates.index.write_parquet`): without it a flipped bit would be another value;
        # and no thread of the reader is left at work on a file that was given up as damaged
        table = pd.read_parquet(path, page_checksum_verification=True, use_threads=False, pre_buffer=False)
    except (*_MALFORMED, MemoryError) as error:
        if (machine := machine_error(error)) is not None:
            raise machine from error
        found = "no such file" if isinstance(error, FileNotFoundError) else plain(str(error))
        problem = Problem(str(path), found, "the table as it was written", REMEDY)
        raise IntegrityError("A table of a batch cannot be read.", [problem]) from error
    require(table, path, needed)
    return table


def require(table: pd.DataFrame, path: Path, needed: Sequence[str]) -> None:
    """Raise an `IntegrityError` when a table lacks columns."""
    absent = [name for name in needed if name not in table.columns]
    if absent:
        problem = Problem(str(path), f"no column {', '.join(absent)}", "all columns of the table", REMEDY)
        raise IntegrityError("A table of a batch is not whole.", [problem])


def require_places(table: pd.DataFrame, path: Path, needed: Sequence[str]) -> None:
    """Raise an `IntegrityError` when rows of a field index do not say where their pixels lie, in this very folder.

    Args:
        table: The index.
        path: Its file, for messages.
        needed: Columns that say where the pixels are and what they must be; none may be empty.
    """
    require(table, path, needed)
    problems = [
        Problem(f"{path}: {name}", f"{int(table[name].isna().sum())} empty values", "a value in each row", REMEDY)
        for name in needed
        if table[name].isna().any()
    ]
    stores = {str(name) for name in table["store"].unique()} if not problems else set()
    problems += [
        Problem(f"{path}: store", repr(name)[:100], "the name of a file in the same folder", REMEDY)
        for name in sorted(stores)
        if not name or PurePosixPath(name).name != name or "\\" in name or "\0" in name
    ]
    raise_if_any(IntegrityError, "A field index does not say where its pixels are.", problems)
