"""File lists: the images of a plate as a parquet table beside the manifest; every byte of it is distrusted."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coda.contracts.manifest import MAX_FILE_LIST_BYTES, MOST_INLINE, FileEntry, FileListRef, PlateEntry
from coda.errors import ContractError, Problem, machine_error
from coda.plates.batch_files import BatchFiles
from coda.plates.file_list_rules import problems_of_rows
from coda.plates.reading import SetAsideError, read_verified
from coda.plates.tabular.wording import plain

SCHEMA = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string())])

FOLDER = "file_list"
"""Where writers put file lists, beside the manifest."""

MAX_UNPACKED = 2 * MAX_FILE_LIST_BYTES
"""Bytes that a list takes at most when it is read."""

_TEXTS = ("path", "sha256")
_COLUMNS = "the columns path and sha256 (text) and size_bytes (whole numbers)"
_REMEDY = f"Write the list again: parquet with {_COLUMNS}, a row for each image; then the manifest."
_DAMAGED = (pa.ArrowException, OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError)
"""What pyarrow raises on bytes that are not what they seem."""


class FileListError(ContractError):
    """The file list of a plate cannot be used.

    Attributes:
        delivery: Whether the list is absent or another one than the manifest's, so that a new upload may mend it.
    """

    def __init__(self, message: str, problems: Sequence[Problem], *, delivery: bool = False) -> None:
        """Keep the problems and whose they are."""
        super().__init__(message, problems)
        self.delivery = delivery


@dataclass(frozen=True)
class FileList:
    """The files of a list, in its order: columns `path`, `size_bytes`, `sha256`, all checked."""

    table: pa.Table

    def entries(self) -> Iterator[FileEntry]:
        """Yield the files as a manifest would list them."""
        for row in zip(*(self.table.column(name).to_pylist() for name in SCHEMA.names), strict=True):
            # what `FileEntry` asks for was asked of whole columns
            yield FileEntry.model_construct(path=row[0], size_bytes=row[1], sha256=row[2])

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return int(pc.sum(self.table.column("size_bytes")).as_py() or 0)


def files_of_plate(files: BatchFiles, entry: PlateEntry) -> Iterator[FileEntry]:
    """Yield all files of a plate, wherever they are listed: first the images of its file list, if it has one.

    Raises:
        FileListError: It has a file list that is absent, another one than the manifest's, or wrong.
        TransientError: The storage is away.
    """
    if entry.file_list is not None:
        yield from read_file_list(files, entry).entries()
    yield from entry.files


def read_file_list(files: BatchFiles, entry: PlateEntry) -> FileList:
    """Read the file list of a plate that has one; raises as `files_of_plate` does."""
    ref = _ref(entry)
    where = f"plate {entry.plate}, {ref.path}"
    listed = FileEntry(path=ref.path, size_bytes=ref.size_bytes, sha256=ref.sha256)
    try:
        data = read_verified(files, listed, max_bytes=MAX_FILE_LIST_BYTES)
    except SetAsideError as error:
        found, expected = f"a file list that {error}", "the file list as the manifest names it"
        problem = Problem(where, found, expected, "Deliver it again.")
        raise FileListError(f"{where} cannot be read.", [problem], delivery=error.delivery) from error
    return decoded_list(data, entry)


def written_list(path: str, entries: Sequence[FileEntry]) -> tuple[FileListRef, bytes]:
    """Return the bytes of a file list, and what the manifest says of it.

    Args:
        path: Where it will lie, beside the manifest.
        entries: The images of one plate, in the order wanted; at least one.
    """
    columns = [[getattr(entry, name) for entry in entries] for name in SCHEMA.names]
    table = pa.table([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(
        table, buffer, compression="zstd", use_dictionary=False, write_statistics=False, store_schema=False,
        row_group_size=len(entries),
    )  # fmt: skip
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    return FileListRef(path=path, size_bytes=len(data), sha256=digest, rows=len(entries)), data


def listed_apart(count: int) -> bool:
    """Return whether the files of a batch of so many are written into file lists, not into its manifest."""
    return count > MOST_INLINE


def with_list(entry: PlateEntry) -> tuple[PlateEntry, dict[str, bytes]]:
    """Return a plate whose images are in a file list, and path -> bytes of the list; one without images stays."""
    images = [file for file in entry.files if file.path not in entry.not_images]
    if not images:
        return entry, {}
    ref, data = written_list(f"{FOLDER}/{entry.plate}.parquet", images)
    rest = tuple(file for file in entry.files if file.path in entry.not_images)
    values = {name: getattr(entry, name) for name in PlateEntry.model_fields} | {"files": rest, "file_list": ref}
    return PlateEntry.model_validate(values), {ref.path: data}


def with_lists(entries: Sequence[PlateEntry]) -> tuple[tuple[PlateEntry, ...], dict[str, bytes]]:
    """Return the plates of a batch as its manifest shall hold them, and path -> bytes of their file lists.

    Args:
        entries: The plates with all of their files. Up to `MOST_INLINE` files in all, they stay as they are.
    """
    if not listed_apart(sum(entry.file_count for entry in entries)):
        return tuple(entries), {}
    plates, lists = zip(*map(with_list, entries), strict=True)
    return plates, {path: data for item in lists for path, data in item.items()}


def _ref(entry: PlateEntry) -> FileListRef:
    if entry.file_list is None:
        problem = Problem(f"plate {entry.plate}", "no file list", "a file list", "Take its files from the manifest.")
        raise FileListError(f"Plate {entry.plate} has no file list.", [problem])
    return entry.file_list


def decoded_list(data: bytes, entry: PlateEntry) -> FileList:
    """Return the file list that some bytes hold, whose size and digest are the manifest's.

    The shape of the table is looked at before it is read, and then all of its rows.

    Raises:
        FileListError: They hold none, or one that breaks a rule; with all that is wrong.
    """
    ref = _ref(entry)
    where = f"plate {entry.plate}, {ref.path}"
    refused = f"{where} cannot be used."
    try:
        schema = pq.read_schema(io.BytesIO(data))
        texts = [field.name for field in schema if field.name in _TEXTS and _is_text(field.type)]
        file = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)
        problems = _shape_problems(schema, file.metadata, ref, where)
        if problems:
            raise FileListError(refused, problems)
        # texts stay in a dictionary until their lengths are known: some hundred bytes can stand for gigabytes; and no
        # thread of the reader is left at work on bytes that were given up as damaged
        table = _columns(file.read(use_threads=False), where)
    except (*_DAMAGED, MemoryError) as error:
        if (machine := machine_error(error)) is not None and not isinstance(error, MemoryError):
            raise machine from error
        problem = Problem(where, f"parquet that cannot be read ({plain(str(error))})", "a parquet file", _REMEDY)
        raise FileListError(refused, [problem]) from error
    problems = problems_of_rows(table, entry, where)
    if problems:
        raise FileListError(refused, problems)
    return FileList(table)


def _shape_problems(schema: pa.Schema, meta: pq.FileMetaData, ref: FileListRef, where: str) -> list[Problem]:
    problems = []
    strange = [name for name in schema.names if name not in SCHEMA.names]
    lacking = [name for name in SCHEMA.names if schema.names.count(name) != 1]
    if strange or lacking:
        found = f"the columns {', '.join(map(plain, schema.names[:10]))} ({len(schema.names)} in all)"
        problems.append(Problem(where, found, _COLUMNS, _REMEDY))
    for name in (name for name in SCHEMA.names if name not in lacking):
        kind = schema.field(name).type
        text = name in _TEXTS
        if not (_is_text(kind) if text else pa.types.is_integer(kind)):
            expected = "text" if text else "whole numbers"
            problems.append(Problem(f"{where}: {name}", plain(f"values of the type {kind}"), expected, _REMEDY))
    if meta.num_rows != ref.rows:
        expected = f"{ref.rows}, as the manifest says"
        problems.append(Problem(where, f"{meta.num_rows} rows", expected, _REMEDY))
    unpacked = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    if unpacked > MAX_UNPACKED:
        problems.append(Problem(where, f"{unpacked} bytes when unpacked", f"at most {MAX_UNPACKED}", _REMEDY))
    return problems


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _columns(table: pa.Table, where: str) -> pa.Table:
    """Return the three columns with their types, whatever wrote them.

    Raises:
        FileListError: Values are missing, or texts are longer in all than a list may be.
        pa.ArrowException: A text is not UTF-8, or a number does not fit.
    """
    table.validate(full=True)
    gaps = [name for name in SCHEMA.names if table.column(name).null_count]
    if gaps:
        problems = [Problem(f"{where}: {name}", f"{table.column(name).null_count} rows without a value",
                            "a value in each row", _REMEDY) for name in gaps]  # fmt: skip
        raise FileListError(f"{where} cannot be used.", problems)
    letters = sum(_letters(table.column(name)) for name in _TEXTS)
    if letters > MAX_UNPACKED:
        problem = Problem(where, f"{letters} bytes of text", f"at most {MAX_UNPACKED}", _REMEDY)
        raise FileListError(f"{where} cannot be used.", [problem])
    return pa.table([_flat(table.column(field.name)).cast(field.type) for field in SCHEMA], SCHEMA)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _letters(column: pa.ChunkedArray) -> int:
    """Return how many bytes the texts of a column take, each row by itself."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk)
        rows = lengths.take(chunk.indices) if pa.types.is_dictionary(chunk.type) else lengths
        total += int(pc.sum(pc.cast(rows, pa.int64())).as_py() or 0)
    return total
