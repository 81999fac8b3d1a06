"""Numbers as people write them: the decimal sign is detected from a whole column, and thousands are never guessed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from coda.plates.tabular.dialect import DECIMAL_OPTION
from coda.plates.tabular.wording import plain, shown

POINT, COMMA = ".", ","

_NUMBER = re.compile(r"^([+-]?)([0-9.,]+)(?:[eE]([+-]?[0-9]{1,3}))?$")
_PARTED = re.compile(r"^[1-9][0-9]{0,2}(?:([.,])[0-9]{3})+(?![0-9])")
_WHOLE = re.compile(r"^([0-9]{1,6})(?:\.0*|,0{1,2})?$")

REMEDY = (
    f"Name the decimal sign ({DECIMAL_OPTION} point, or comma), or write numbers with a point and without thousands."
)
REWRITE = "Write numbers with a point and without thousands, such as 1250.5."


@dataclass(frozen=True)
class Fault:
    """A value that is no number, or more than one: the line, what it is, and what helps."""

    line: int
    found: str
    remedy: str


def whole_number(text: str) -> int | None:
    """Return a whole number such as '1', '01' or '1.0' (as programs write a column with a gap); None for others."""
    found = _WHOLE.match(text.strip())
    return int(found.group(1)) if found else None


def read_numbers(
    cells: Sequence[tuple[int, str]], *, decimal: str | None = None, separator: str = ","
) -> tuple[dict[int, Decimal], list[Fault]]:
    """Read a column of numbers.

    Args:
        cells: Line and text of each value; none of them empty.
        decimal: The decimal sign as a person says; told from the column when None.
        separator: What parts the values of the table: where it is a comma, programs write numbers with a point.

    Returns:
        Line -> number; and what is none. When the sign is not sure, there are only faults.
    """
    matched = [(line, text, _NUMBER.match(text.strip())) for line, text in cells]
    faults = [Fault(line, shown(text), "Write a number.") for line, text, found in matched if found is None]
    mantissas = [(line, text, found) for line, text, found in matched if found is not None]
    if decimal is None:
        said, asked = _told([(line, found.group(2)) for line, _, found in mantissas], separator)
        if asked is not None:
            return {}, [*faults, asked]
        decimal = said
        parted: str | None = None
    else:
        parted = COMMA if decimal == POINT else POINT
    numbers: dict[int, Decimal] = {}
    for line, text, found in mantissas:
        plain_digits = _plain(found.group(2), decimal, parted)
        if plain_digits is None:
            faults.append(Fault(line, f"{shown(text)} beside the decimal sign '{decimal}'", REMEDY))
        else:
            numbers[line] = Decimal(f"{found.group(1)}{plain_digits}e{found.group(3) or 0}")
    return numbers, sorted(faults, key=lambda fault: fault.line)


def as_text(number: Decimal) -> str:
    """Return a number as a table has it: with a point, without needless zeros and without loss."""
    if not number:
        return "0"
    text = format(number.normalize(), "f")
    return text if len(text) <= 24 else str(number.normalize())


def _told(mantissas: Iterable[tuple[int, str]], separator: str) -> tuple[str, Fault | None]:
    """Return the decimal sign that a column shows, or what must be asked."""
    sure: dict[str, tuple[int, str]] = {}
    unsure: dict[str, tuple[int, str]] = {}
    for line, text in mantissas:
        signs = [sign for sign in text if sign in {POINT, COMMA}]
        if len(signs) > 1:
            return POINT, Fault(line, f"{shown(text)}, with {len(signs)} signs", REMEDY)
        for sign in signs:
            (unsure if _PARTED.fullmatch(text) else sure).setdefault(sign, (line, text))
    if len({*sure, *unsure}) > 1:
        (first, one), (second, other) = sorted([*sure.values(), *unsure.values()])[:2]
        return POINT, Fault(second, f"{shown(other)}, and {shown(one)} in line {first}: two decimal signs", REWRITE)
    if unsure and not sure and (COMMA in unsure or separator in {";", "\t"}):
        line, text = min(unsure.values())
        return POINT, Fault(line, f"{shown(text)}, which may have a decimal sign or part thousands", REMEDY)
    return next(iter({**sure, **unsure}), POINT), None


def _plain(text: str, decimal: str, parted: str | None) -> str | None:
    """Return digits with at most one point; None when signs stand where none may."""
    whole, sign, rest = text.partition(decimal)
    if parted is not None and parted in whole:
        if not _PARTED.fullmatch(whole) or parted not in whole or decimal in rest or parted in rest:
            return None
        whole = whole.replace(parted, "")
    if not (whole + rest).isdigit():
        return None
    return plain(f"{whole or 0}.{rest}" if sign and rest else whole or "0")
