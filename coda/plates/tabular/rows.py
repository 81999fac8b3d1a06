"""From text to rows: which character parts the values, and that every line has as many as the header."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coda.plates.tabular.dialect import SEPARATOR_OPTION, SEPARATORS, UnreadableTableError
from coda.plates.tabular.wording import plain

if TYPE_CHECKING:
    import _csv

MAX_ROWS = 1_000_000
MAX_COLUMNS = 2_000
MAX_CELLS = 50_000_000

_REMARKS = ("!", "#")
_NAMES = {character: name for name, character in SEPARATORS.items()}
_MOST_SHOWN = 5
_HINT = re.compile(r"""^"?sep=([^"\w\s]|\t)[",;\t]*\s*$""", re.IGNORECASE)
"""What Excel writes before the header to say what parts the values, also once it was saved again."""


@dataclass(frozen=True)
class Rows:
    """Rows of a text.

    Attributes:
        header: Names of the columns.
        cells: A list for each row, as long as the header; blanks around values are removed.
        lines: Line on which each row begins, from 1.
        separator: What parted them.
        notes: What was passed over.
    """

    header: list[str]
    cells: list[list[str]]
    lines: list[int]
    separator: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Start:
    """Where the header is; `named` is the separator of a first line such as 'sep=;'."""

    line: int
    offset: int
    named: str | None
    remarks: int


def split(text: str, separator: str | None = None) -> Rows:
    """Return the rows of a table.

    Lines before the header that are empty or begin with '!' or '#', and a line 'sep=;', are no rows. Every row must
    have as many values as the header; rows without any value are passed over, and so are columns without name and
    value.

    Args:
        text: The table.
        separator: What parts the values; told from the text when None.

    Raises:
        UnreadableTableError: There is no header, the separator must be named, or rows are longer or shorter than the
            header; with their lines and what they hold.
    """
    start = _start(text)
    body = text[start.offset :]
    header = _first_line(body)
    lines = body.count("\n") + (0 if "\n" in body else body.count("\r"))
    columns = max(line.count(one) for line in (header, _first_line(text)) for one in _NAMES) + 1
    if lines > MAX_ROWS + 1 or columns > MAX_COLUMNS or (lines + 1) * columns > MAX_CELLS:
        # told before anything is parsed: a cell takes far more memory than its text
        raise UnreadableTableError(f"has {lines} lines and {columns} columns, too many for a plate")
    if not body.strip():
        raise UnreadableTableError("is empty")
    given = separator or start.named
    candidates = [given] if given else [one for one in SEPARATORS.values() if len(_cells(header, one)) > 1]
    if not candidates:
        return _single(body, start)
    tried = {one: _Attempt(body, one, start.line) for one in candidates}
    fitting = [one for one, attempt in tried.items() if not attempt.faults]
    best = max(candidates, key=lambda one: len(tried[one].header))
    if fitting == [best]:
        return tried[best].rows(start.remarks)
    if fitting:
        names = " or ".join(f"{_NAMES.get(one, one)} ({len(tried[one].header)} columns)" for one in candidates)
        raise UnreadableTableError(f"may be parted by {names}", _ask(fitting[0]))
    raise tried[best].refusal(named=bool(given))


def _start(text: str) -> _Start:
    line, offset, named, remarks = 1, 0, None, 0
    for raw in io.StringIO(text, newline=""):
        bare = raw.strip()
        hint = _HINT.match(raw)
        if hint and named is None:
            named = hint.group(1)
        elif bare.startswith(_REMARKS):
            remarks += 1
        elif bare.strip(',;|\t "'):
            break
        line, offset = line + 1, offset + len(raw)
    return _Start(line, offset, named, remarks)


def _first_line(body: str) -> str:
    return next(iter(io.StringIO(body, newline="")), "")


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(iter(_reader([line], separator)), [])
    except csv.Error:
        return line.split(separator)


def _reader(lines: Iterable[str], separator: str) -> "_csv.Reader":
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


class _Attempt:
    """A text as one separator parts it."""

    def __init__(self, body: str, separator: str, first: int) -> None:
        self.separator = separator
        self.header: list[str] = []
        self.cells: list[list[str]] = []
        self.lines: list[int] = []
        self.faults: list[str] = []
        self._more = 0
        self._blank = 0
        self._comments = 0
        starts = _Raw(body)
        reader = _reader(io.StringIO(body, newline=""), separator)
        before = 0
        try:
            for cells in reader:
                self._take(cells, first + before, starts(before))
                before = reader.line_num
        except csv.Error as error:
            self._fault(f"line {first + before}: quotation marks or a value that do not end ({error})")
        self._unnamed()

    def _take(self, cells: list[str], line: int, raw: str) -> None:
        values = [value.strip() for value in cells]
        if not self.header:
            self.header = values
        elif not any(values):
            self._blank += 1
        elif raw.startswith("#") and len(cells) == 1 < len(self.header):
            self._comments += 1
        elif raw.startswith("#"):
            self._fault(f"line {line} begins with '#' and may be a remark or a value ({plain(raw, 80)!r})")
        elif len(cells) != len(self.header):
            self._fault(f"line {line} has {len(cells)} values ({plain(raw, 80)!r})")
        elif any(self.separator in value and ("\n" in value or "\r" in value) for value in values):
            self._fault(f"line {line}: a value in quotation marks goes over several lines ({plain(raw, 80)!r})")
        else:
            self.cells.append(values)
            self.lines.append(line)

    def _fault(self, text: str) -> None:
        if len(self.faults) < _MOST_SHOWN:
            self.faults.append(text)
        else:
            self._more += 1

    def _unnamed(self) -> None:
        """Drop columns that have neither name nor value; one with values shifts them, or its name was forgotten."""
        unnamed = [number for number, name in enumerate(self.header) if not name]
        if not unnamed:
            return
        for line, values in zip(self.lines, self.cells, strict=True):
            held = [values[number] for number in unnamed if values[number]]
            if held:
                self._fault(f"line {line} has {plain(held[0], 60)!r} in a column without a name")
        kept = [number for number, name in enumerate(self.header) if name]
        self.header = [self.header[number] for number in kept]
        self.cells = [[values[number] for number in kept] for values in self.cells]

    def rows(self, remarks: int) -> Rows:
        """Return the rows, if there are no faults."""
        notes = []
        if remarks + self._comments:
            notes.append(f"{remarks + self._comments} remark line(s) passed over")
        if self._blank:
            notes.append(f"{self._blank} empty row(s) passed over")
        if self.separator != ",":
            notes.insert(0, f"values parted by {_NAMES.get(self.separator, self.separator)}")
        return Rows(self.header, self.cells, self.lines, self.separator, tuple(notes))

    def refusal(self, *, named: bool) -> UnreadableTableError:
        """Return the error with the lines that do not fit."""
        name = _NAMES.get(self.separator, repr(self.separator))
        more = f"; and {self._more} more" if self._more else ""
        reason = f"does not have the {len(self.header)} values of its header (parted by {name}) in every line: "
        remedy = "Put values that hold the separator in quotation marks, and write the decimal sign as a point"
        remedy += "." if named else f"; or name what parts the values ({SEPARATOR_OPTION} semicolon, tab, ...)."
        return UnreadableTableError(reason + "; ".join(self.faults) + more, remedy)


class _Raw:
    """Gives lines of a text in order, for messages, without keeping them all."""

    def __init__(self, body: str) -> None:
        self._lines = iter(io.StringIO(body, newline=""))
        self._number = 0

    def __call__(self, number: int) -> str:
        """Return the line of this number from 0; numbers only ever grow."""
        line = ""
        while self._number <= number:
            line = next(self._lines, "")
            self._number += 1
        return line


def _single(body: str, start: _Start) -> Rows:
    """Return a table of one column; a line that could be parted shows that the header is wrong."""
    attempt = _Attempt(body, ",", start.line)
    for line, (value,) in zip(attempt.lines, attempt.cells, strict=True):
        parted = next((name for one, name in _NAMES.items() if one in value and name in {"semicolon", "tab"}), None)
        if parted and not attempt.faults:
            attempt.faults.append(f"line {line} may have several values, parted by {parted} ({plain(value, 80)!r})")
    if attempt.faults:
        raise attempt.refusal(named=False)
    return attempt.rows(start.remarks)


def _ask(separator: str) -> str:
    return f"Name what parts the values, for example {SEPARATOR_OPTION} {_NAMES.get(separator, separator)}."


def duplicates(header: Sequence[str]) -> list[str]:
    """Return the names that a header has more than once."""
    return sorted(name for name, times in Counter(header).items() if times > 1)
