"""Tables as text, whatever they were written as: delimited text, the same gzipped, or parquet; with limits."""

import io
from dataclasses import dataclass
from math import isnan

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coda.plates.tabular.dialect import Dialect, UnreadableTableError
from coda.plates.tabular.encoding import MAX_TABLE_BYTES, decoded, unpacked
from coda.plates.tabular.rows import MAX_COLUMNS, MAX_ROWS, duplicates, split
from coda.plates.tabular.wording import NOTHING, plain


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        rows: One column of text for each column of the file; missing values are empty strings, blanks around values are
            removed. The index is the line on which a row begins, the header being line 1.
        separator: What parted the values; empty for parquet.
        decimal: The decimal sign where a person named it.
        notes: How it is written, where that is not UTF-8 with commas, and what was passed over.
    """

    rows: pd.DataFrame
    separator: str = ","
    decimal: str | None = None
    notes: tuple[str, ...] = ()

    def without_nothing(self) -> pd.DataFrame:
        """Return the rows with values that say that there is none ('NA', 'nan', ...) made empty."""
        rows = self.rows
        return pd.DataFrame(
            {name: rows[name].where(~rows[name].str.lower().isin(NOTHING), "") for name in rows.columns}
        )

    def told(self, name: str) -> str:
        """Return how the table is written, for a person; empty where there is nothing to say."""
        return f"{name}: {', '.join(self.notes)}" if self.notes else ""


def read(data: bytes, dialect: Dialect | None = None) -> Table:
    """Read a table of any kind, detected by its first bytes; how text is written is detected from it, or asked.

    Args:
        data: The whole file: delimited text (separator, encoding and decimal sign as `coda.plates.tabular.rows`,
            `encoding` and `numbers` say), the same gzipped, or parquet.
        dialect: What a person says of how it is written.

    Raises:
        UnreadableTableError: It is none of these, is damaged, is larger than any plate's table, has rows that do not
            fit its header, or may be read in several ways.
    """
    dialect = dialect or Dialect()
    notes: tuple[str, ...] = ()
    if data.startswith(b"PAR1"):
        rows, separator = _read_parquet(data), ""
    else:
        text, remark = decoded(unpacked(data) if data.startswith(b"\x1f\x8b") else data, dialect.encoding)
        parted = split(text, dialect.separator)
        separator, notes = parted.separator, (*([remark] if remark else []), *parted.notes)
        twice = duplicates(parted.header)
        if twice:
            raise UnreadableTableError(f"has the columns {', '.join(twice)} more than once")
        columns = zip(*parted.cells, strict=True) if parted.cells else ([] for _ in parted.header)
        rows = pd.DataFrame(
            dict(zip(parted.header, map(list, columns), strict=True)), index=pd.Index(parted.lines, dtype="int64"),
            dtype=str,
        )  # fmt: skip
    if rows.shape[1] > MAX_COLUMNS or len(rows) > MAX_ROWS:
        raise UnreadableTableError(f"has {len(rows)} rows and {rows.shape[1]} columns, too many for a plate")
    if len(rows) == 0:
        raise UnreadableTableError("has no rows")
    return Table(rows, separator, dialect.decimal, notes)


def read_table(data: bytes) -> pd.DataFrame:
    """Return the rows of a table that holds no numbers to be read; see `read`."""
    return read(data).rows


def _read_parquet(data: bytes) -> pd.DataFrame:
    try:
        schema = pq.read_schema(io.BytesIO(data))
        flat = [pa.types.is_primitive(kind) or _is_text(kind) for kind in schema.types]
        if not all(flat):
            raise UnreadableTableError("has columns that hold lists or records, not single values")
        # texts stay in the dictionary that the file keeps them in, so that a text is in memory once, however many rows
        # repeat it: some hundred bytes of parquet can stand for gigabytes
        file = pq.ParquetFile(io.BytesIO(data), read_dictionary=_texts(schema))
        meta = file.metadata
        unpacked = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
        if meta.num_rows > MAX_ROWS or meta.num_columns > MAX_COLUMNS or unpacked > MAX_TABLE_BYTES:
            raise UnreadableTableError(f"has {meta.num_rows} rows and {meta.num_columns} columns, too many for a plate")
        table = file.read(use_threads=False)  # no thread is left at work on bytes that were given up as damaged
        if sum(_characters(table.column(name)) for name in _texts(schema)) > MAX_TABLE_BYTES:
            raise UnreadableTableError(f"unpacks to more than {MAX_TABLE_BYTES // 2**20} MiB")
        columns = {name: [_text(value) for value in table.column(name).to_pylist()] for name in table.column_names}
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        # text that is not UTF-8 is found only when a value is asked for
        raise UnreadableTableError(f"is damaged parquet ({plain(str(error))})") from error
    stripped = {name: [value.strip() for value in values] for name, values in columns.items()}
    # as in text, the first row is that of line 2
    return pd.DataFrame(stripped, dtype=str, index=pd.RangeIndex(2, 2 + meta.num_rows).astype("int64"))


def _texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_binary(inner))


def _characters(column: pa.ChunkedArray) -> int:
    """Return how many bytes the texts of a column would take, each row by itself."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk)
        rows = lengths.take(chunk.indices) if pa.types.is_dictionary(chunk.type) else lengths
        total += pc.sum(pc.cast(rows, pa.int64())).as_py() or 0
    return total


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
