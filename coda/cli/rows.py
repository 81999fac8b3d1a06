"""Lists: one line an item that fits the terminal, whole in a pipe or with --wide, JSON with --json."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Wide = Annotated[bool, typer.Option("--wide", help="Print whole lines, however long; in a pipe they are.")]

GAP = 2
"""Blanks between two columns."""


@dataclass(frozen=True)
class Column:
    """One column of a list.

    Attributes:
        name: Its heading.
        cell: An item's text in it.
        yields: When a line is too long, columns of the highest number are shortened first, and left out first; 0 is
            never shortened, since it is what a person copies into the next command.
        least: Characters that a shortened column keeps; with fewer it would say nothing, and is left out.
        middle: Shorten in the middle, where beginning and end both tell: identifiers and addresses.
        right: Align right.
    """

    name: str
    cell: Callable[[Any], str]
    yields: int = 0
    least: int = 8
    middle: bool = False
    right: bool = False


def print_json(value: Any) -> None:
    """Print a value as JSON for programs; what JSON has no form for is written as text."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def print_rows(
    items: Sequence[Any], columns: Sequence[Column], *, wide: bool = False, title: str = "", empty: str = ""
) -> None:
    """Print a list, one line an item.

    Args:
        items: The items.
        columns: What is told of each.
        wide: Print whole lines also to a terminal.
        title: Line above the list; in a pipe it is left out, so that all lines there are items below one heading.
        empty: Sentence for a list without items; printed to a terminal and to a pipe alike.
    """
    if not items:
        typer.echo(empty)
        return
    table = [[column.name for column in columns]]
    table += [[" ".join(column.cell(item).split()) for column in columns] for item in items]
    if not sys.stdout.isatty() and not wide:
        # columns are parted by tabs: `cut -f` and pandas take them as they are
        typer.echo("\n".join("\t".join(row) for row in table))
        return
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    if not wide:
        widths = fitted(widths, columns, shutil.get_terminal_size().columns)
    if title:
        typer.echo(typer.style(title, bold=True))
    for number, row in enumerate(table):
        line = (" " * GAP).join(
            _padded(shortened(text, width, middle=column.middle and number > 0), width, right=column.right)
            for text, width, column in zip(row, widths, columns, strict=True)
            if width
        ).rstrip()  # fmt: skip
        typer.echo(typer.style(line, dim=True) if number == 0 else line)


def fitted(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Return the widths with which a line fits, taking from the columns that yield first.

    Args:
        widths: Characters of each column when nothing is shortened.
        columns: The columns.
        room: Characters of a line of the terminal.

    Returns:
        Widths, 0 for a column that is left out; what never yields keeps its own, also when the line stays too long.
    """
    yielding = sorted((i for i, column in enumerate(columns) if column.yields), key=lambda i: -columns[i].yields)
    floor = [
        min(width, column.least) if column.yields else width for width, column in zip(widths, columns, strict=True)
    ]
    for index in yielding:
        if _length(floor) > room:
            floor[index] = 0
    left = [width if least else 0 for width, least in zip(widths, floor, strict=True)]
    for index in yielding:
        left[index] -= max(0, min(_length(left) - room, left[index] - floor[index]))
    return left


def _length(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + GAP * (len(shown) - 1)


def shortened(text: str, width: int, *, middle: bool = False) -> str:
    """Return a text of at most `width` characters, with a mark where something is left out."""
    if len(text) <= width:
        return text
    if not middle:
        head = text[: width - 1]
        word = head.rfind(" ")
        # a word or a time that is cut tells less than its absence, where little is lost
        return (head[:word] if word >= 2 * width // 3 else head).rstrip() + "…"
    before = width // 2
    after = width - 1 - before
    return text[:before] + "…" + (text[-after:] if after else "")


def print_fields(title: str, fields: Iterable[tuple[str, str]]) -> None:
    """Print all that is known of one thing: a line a field, lines of a value below each other, nothing shortened."""
    known = list(fields)
    margin = max((len(name) for name, _ in known), default=0) + GAP
    typer.echo(typer.style(title, bold=True))
    for name, text in known:
        first, *more = text.splitlines() or [""]
        typer.echo(f"{name:<{margin}}{first}".rstrip())
        for line in more:
            typer.echo(" " * margin + line)


def _padded(text: str, width: int, *, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _plain(value: Any) -> Any:
    # contracts know their own form; times and paths are text
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
