"""Options that choose batches and plates among many, the same for every command that takes a source as a whole."""

from pathlib import Path
from typing import Annotated

import typer

from coda.errors import ConfigError, ContractError, Problem
from coda.plates.jump.selection import PlateFilter
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read

PlateOption = Annotated[list[str] | None, typer.Option("--plate", "--only-plate", help="Only this plate; may repeat.")]
PlatesFile = Annotated[
    Path | None,
    typer.Option("--plates", help="File with plates to take: one name a line, or a table with Metadata_Plate."),
]
PlatePattern = Annotated[
    list[str] | None, typer.Option("--plate-pattern", help="Only plates of such names, as 'BR0012*'; may repeat.")
]
PlateType = Annotated[
    list[str] | None,
    typer.Option("--plate-type", help="Only plates of this type by JUMP's tables, such as TARGET2; may repeat."),
]

COLUMN = "Metadata_Plate"


def plate_filter(
    types: list[str] | None, plates: list[str] | None, listed: Path | None, patterns: list[str] | None
) -> PlateFilter:
    """Return what these options ask for.

    Raises:
        ConfigError: The file of plates cannot be read, or names none.
        ContractError: It is a table without the column.
    """
    names = frozenset(plates or ()) | (names_in(listed) if listed is not None else frozenset())
    return PlateFilter(tuple(types or ()), names, tuple(patterns or ()))


def names_in(path: Path) -> frozenset[str]:
    """Return the plates of a file: the column `Metadata_Plate` of a table, or each line that is not empty or a remark.

    Raises:
        ConfigError: The file cannot be read, or names no plate.
        ContractError: It is a table that cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = Problem(f"--plates {path}", str(error.strerror), "a file of plates", "Check the name.")
        raise ConfigError("The plates cannot be read.", [problem]) from error
    lines = _lines(data)
    names = lines if lines is not None else _column(data, path)
    found_names = frozenset(name.strip() for name in names if name.strip() and not name.startswith("#"))
    if not found_names:
        problem = Problem(f"--plates {path}", "no name", "one plate a line", "Write them down, or leave it out.")
        raise ConfigError("No plate is asked for.", [problem])
    return found_names


def _lines(data: bytes) -> list[str] | None:
    """Return the lines of a plain list; None where it is a table."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return None
    return None if any(COLUMN in line for line in lines[:20]) else lines


def _column(data: bytes, path: Path) -> list[str]:
    try:
        table = read(data).without_nothing()
    except UnreadableTableError as error:
        remedy = error.remedy or "Write one name a line."
        problem = Problem(f"--plates {path}", f"a table that {error}", "names or a table", remedy)
        raise ContractError(f"{path} cannot be read.", [problem]) from error
    if COLUMN in table.columns:
        return [str(name) for name in table[COLUMN]]
    found = f"the columns {', '.join(map(str, table.columns[:20]))}"
    problem = Problem(f"--plates {path}", found, f"a column {COLUMN}, or one name a line", "Name the column so.")
    raise ContractError(f"{path} lacks a column.", [problem])
