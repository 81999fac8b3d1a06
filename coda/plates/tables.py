"""Reading the tables of a delivery: CSV, gzipped CSV and parquet, as text, with limits; and which file a row means."""

import gzip
import io
import zlib
from collections import defaultdict
from collections.abc import Iterable
from math import isnan
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_TABLE_BYTES = 256 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 2_000


class UnreadableTableError(ValueError):
    """A table that cannot be read; the text is the reason, as a part of a sentence."""


def read_table(data: bytes) -> pd.DataFrame:
    """Read a table of any of the three kinds, told apart by their first bytes.

    Args:
        data: The whole file: CSV in UTF-8 (with or without a byte order mark), the same gzipped, or parquet.

    Returns:
        One column of text for each column of the file; missing values are empty strings, blanks around values are
        removed.

    Raises:
        UnreadableTableError: It is none of these, is damaged, or is larger than any plate's table.
    """
    if data.startswith(b"PAR1"):
        table = _read_parquet(data)
    else:
        table = _read_csv(unpacked(data) if data.startswith(b"\x1f\x8b") else data)
    if table.shape[1] > MAX_COLUMNS or len(table) > MAX_ROWS:
        raise UnreadableTableError(f"has {len(table)} rows and {table.shape[1]} columns, too many for a plate")
    if len(table) == 0:
        raise UnreadableTableError("has no rows")
    return pd.DataFrame({name: table[name].str.strip() for name in table.columns})


def unpacked(data: bytes) -> bytes:
    """Return what a gzip file holds.

    Raises:
        UnreadableTableError: It is damaged, or unpacks to more than a table may have.
    """
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableTableError(f"is damaged gzip ({error})") from error
    if len(text) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"unpacks to more than {MAX_TABLE_BYTES // 2**20} MiB")
    return text


def _read_csv(data: bytes) -> pd.DataFrame:
    if len(data) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"is larger than {MAX_TABLE_BYTES // 2**20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableTableError(f"is not text in UTF-8 (byte {error.start})") from error
    lines, columns = text.count("\n"), text.partition("\n")[0].count(",") + 1
    if lines > MAX_ROWS + 1 or columns > MAX_COLUMNS:
        # told before anything is parsed: a cell takes far more memory than its text
        raise UnreadableTableError(f"has {lines} lines and {columns} columns, too many for a plate")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_filter=False, index_col=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        reason = plain(str(error))
        raise UnreadableTableError(f"is not a table of comma-separated values ({reason})") from error
    table.columns = [str(name).strip() for name in table.columns]
    if table.columns.has_duplicates:
        repeated = sorted(set(table.columns[table.columns.duplicated()]))
        raise UnreadableTableError(f"has the columns {', '.join(repeated)} more than once")
    return table


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
    return pd.DataFrame(columns, dtype=str)


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


class FileResolver:
    """Finds the delivered file that a row of load_data means.

    Tables name files where the microscope or the bucket had them (an absolute path, an `s3://` address, a folder that
    was renamed since). The file is the one of the manifest that shares the longest end of the path with that name, so
    nothing outside the manifest can ever be read, whatever a table says.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Index the manifest's paths by file name."""
        self._by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in paths:
            parts = PurePosixPath(path).parts
            self._by_name[parts[-1]].append(parts)

    def resolve(self, reference: str) -> str:
        """Return the manifest's path for a reference such as 's3://bucket/a/b/c.tif' or 'b/c.tif'.

        Raises:
            LookupError: No file of the manifest has this name, or several fit equally well; the text says which.
        """
        parts = _parts(reference)
        candidates = self._by_name.get(parts[-1], []) if parts else []
        if not candidates:
            message = f"{shown(reference)} is not among the files of the manifest"
            raise LookupError(message)
        shared = [_common_end(parts, candidate) for candidate in candidates]
        best = max(shared)
        if shared.count(best) > 1:
            message = f"{shown(reference)} may be any of {shared.count(best)} files of the manifest"
            raise LookupError(message)
        return "/".join(candidates[shared.index(best)])


def shown(name: str) -> str:
    """Return a name from a table in quotation marks for a message, on one line and not endless."""
    return f"'{plain(name)}'"


def plain(text: str, most: int = 200) -> str:
    """Return a text of somebody else's for a message: printable, on one line, and not endless."""
    line = " ".join(text.split())
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= most else line[:most] + "..."


def _parts(reference: str) -> tuple[str, ...]:
    text = unquote(urlsplit(reference).path) if "://" in reference else reference
    return tuple(part for part in text.replace("\\", "/").split("/") if part not in {"", "."})


def _common_end(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        count += 1
    return count
