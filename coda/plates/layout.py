"""Plate formats and well names."""

import re

FORMATS = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Wells of a format -> (rows, columns)."""

_WELL = re.compile(r"^([A-Za-z]{1,2})0{0,2}([1-9][0-9]?)$")


def parse_well(name: str) -> tuple[int, int] | None:
    """Return (row, column), both from 0, of a well name such as 'B03', 'b3' or 'AF48'; None when it is no well."""
    found = _WELL.match(name.strip())
    if found is None:
        return None
    row = 0
    for letter in found.group(1).upper():
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(found.group(2)) - 1


def row_name(row: int) -> str:
    """Return the letters of a row counted from 0: 'A' to 'Z', then 'AA'."""
    return chr(ord("A") + row) if row < 26 else row_name(row // 26 - 1) + chr(ord("A") + row % 26)


def well_name(row: int, column: int) -> str:
    """Return the name of a well, both counted from 0: (1, 2) is 'B03'."""
    return f"{row_name(row)}{column + 1:02d}"


def fits(place: tuple[int, int], wells: int) -> bool:
    """Return whether a (row, column) lies on a plate of this many wells."""
    rows, columns = FORMATS[wells]
    return place[0] < rows and place[1] < columns


def format_of(places: list[tuple[int, int]]) -> int:
    """Return the smallest usual format (96 wells or more) that holds all places.

    Raises:
        ValueError: No format does.
    """
    for wells in (96, 384, 1536):
        if all(fits(place, wells) for place in places):
            return wells
    message = f"no plate format holds {well_name(*max(places))}"
    raise ValueError(message)
