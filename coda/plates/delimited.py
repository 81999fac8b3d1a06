"""Tables whose columns are parted by tabs or commas, with remarks before the first line, as public collections have."""

import io

import pandas as pd

from coda.plates.tables import MAX_COLUMNS, MAX_ROWS, MAX_TABLE_BYTES, UnreadableTableError, read_table, unpacked

_REMARKS = ("!", "#")

NOTHING = frozenset({"", "na", "nan", "null", "none"})
"""Texts, in lower case, with which tables say that there is no value."""


def read_delimited(data: bytes) -> pd.DataFrame:
    """Read a table as text: parted by tabs or commas (gzipped or not), or parquet.

    Lines before the header that begin with '!' or '#' are passed over. Values that say that there is none ('NA', 'nan',
    ...) become empty.

    Args:
        data: The whole file.

    Raises:
        UnreadableTableError: It is none of these, is damaged, or too large.
    """
    if data.startswith(b"\x1f\x8b"):
        data = unpacked(data)
    table = _tabbed(data) if _has_tabs(data) else read_table(_without_remarks(data))
    return pd.DataFrame({name: table[name].where(~table[name].str.lower().isin(NOTHING), "") for name in table.columns})


def _has_tabs(data: bytes) -> bool:
    return b"\t" in _without_remarks(data[: 1 << 20]).partition(b"\n")[0] and not data.startswith(b"PAR1")


def _without_remarks(data: bytes) -> bytes:
    start = 0
    while data[start : start + 1] in {mark.encode() for mark in _REMARKS}:
        end = data.find(b"\n", start)
        if end < 0:
            return b""
        start = end + 1
    return data[start:] if start else data


def _tabbed(data: bytes) -> pd.DataFrame:
    if len(data) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"is larger than {MAX_TABLE_BYTES // 2**20} MiB")
    text = _without_remarks(data)
    header = [name.strip() for name in text.partition(b"\n")[0].split(b"\t")]
    if len(set(header)) < len(header):
        raise UnreadableTableError("has a column twice")
    if text.count(b"\n") > MAX_ROWS + 1 or len(header) > MAX_COLUMNS:
        raise UnreadableTableError("has too many lines or columns")
    try:
        table = pd.read_csv(
            io.BytesIO(text), sep="\t", dtype=str, keep_default_na=False, na_filter=False, index_col=False,
            encoding="utf-8-sig",
        )  # fmt: skip
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableTableError(f"is not a table of values parted by tabs ({reason})") from error
    table.columns = [str(name).strip() for name in table.columns]
    if len(table) == 0:
        raise UnreadableTableError("has no rows")
    return pd.DataFrame({name: table[name].str.strip() for name in table.columns})
