"""Doses in micromoles a litre, by the unit that the header names or the value carries."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from coda.plates.tabular.table import Table
from coda.plates.tabular.typed_numbers import REWRITE, Fault, read_numbers
from coda.plates.tabular.wording import NOTHING, shown

DOSE = "Metadata_Dose_uM"

MAX_UM = 10**8
"""Largest dose in micromolar; water itself is 55 molar."""

_EXPONENTS = {"": 6, "m": 3, "u": 0, "n": -3, "p": -6}
"""Prefix of 'molar' -> power of ten that makes micromolar of it."""

_SHORT = re.compile(r"^([munp])m$")
_LONG = re.compile(r"^(milli|micro|nano|pico|[munp])?(?:mol(?:e?s?|ar)?)(?:(?:/|_?per_?| ?per ?)l(?:it(?:re|er))?)?$")
_WORDS = {"milli": "m", "micro": "u", "nano": "n", "pico": "p", None: ""}
_NAMES = re.compile(
    r"^(?:pert[_ ]?|cpd[_ ]?|compound[_ ]?|final[_ ]?|treatment[_ ]?)*(?:dose|conc(?:entration)?|molarity)$"
)
_HEADER = re.compile(r"^(.*?)[ _\-]*[(\[]?\s*([^\s_()\[\]]+(?:[_ ]per[_ ]lit(?:re|er))?)\s*[)\]]?$")
_QUANTITY = re.compile(r"^([+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]{1,3})?|[+-]?[.,][0-9]+)\s*(\D.*)?$")


@dataclass(frozen=True)
class DoseColumn:
    """A column of doses: its name, and the power of ten that makes micromolar of its values (None: no unit named)."""

    name: str
    exponent: int | None


def exponent_of(unit: str) -> int | None:
    """Return the power of ten that makes micromolar of a unit such as 'nM', 'µM', 'mmol/l'; None when it is no unit."""
    text = unicodedata.normalize("NFKC", unit).strip().replace("μ", "u")
    if text == "M":
        return _EXPONENTS[""]
    text = text.lower()
    found = _SHORT.match(text)
    if found:
        return _EXPONENTS[found.group(1)]
    found = _LONG.match(text)
    if found is None:
        return None
    prefix = found.group(1)
    return _EXPONENTS[_WORDS.get(prefix, prefix or "")]


def dose_columns(columns: Sequence[str]) -> list[DoseColumn]:
    """Return the columns that hold doses: Metadata_Dose_uM, dose (nM), Concentration [µM], mmoles_per_liter."""
    found = []
    for name in columns:
        bare = unicodedata.normalize("NFKC", name).strip()
        bare = bare[9:] if bare.lower().startswith("metadata_") else bare
        parts = _HEADER.match(bare)
        if exponent_of(bare) is not None and len(bare) > 2:
            found.append(DoseColumn(name, exponent_of(bare)))
        elif _NAMES.match(bare.lower()):
            found.append(DoseColumn(name, None))
        elif parts and _NAMES.match(parts.group(1).lower()) and exponent_of(parts.group(2)) is not None:
            found.append(DoseColumn(name, exponent_of(parts.group(2))))
    return found


def read_doses(table: Table, column: DoseColumn) -> tuple[dict[int, Decimal], list[Fault]]:
    """Read a column of doses.

    A value may carry its unit: the header's own, or, in a column whose header names none, any; there each value needs
    one.

    Returns:
        Line -> dose in micromolar, for rows that give one; and what cannot be read.
    """
    cells: list[tuple[int, str]] = []
    exponents: dict[int, int] = {}
    texts: dict[int, str] = {}
    faults: list[Fault] = []
    for line, text in zip(table.rows.index, table.rows[column.name], strict=True):
        if text.lower() in NOTHING:
            continue
        parts = _QUANTITY.match(text)
        if parts is None:
            faults.append(Fault(line, f"dose {shown(text)}", REWRITE))
            continue
        own = exponent_of(parts.group(2)) if parts.group(2) else None
        if parts.group(2) and own is None:
            faults.append(Fault(line, f"dose {shown(text)}", "Write it in uM, nM, mM or M, and without thousands."))
        elif own is not None and column.exponent not in {None, own}:
            faults.append(Fault(line, f"dose {shown(text)} in the column {column.name}", "Write it in one unit."))
        elif own is None and column.exponent is None:
            faults.append(Fault(line, f"dose {shown(text)} without a unit", f"Name the column {DOSE} (or _nM, _mM)."))
        else:
            cells.append((line, parts.group(1)))
            texts[line] = text
            exponents[line] = column.exponent if own is None else own  # type: ignore[assignment]
    numbers, wrong = read_numbers(cells, decimal=table.decimal, separator=table.separator)
    doses = {line: number.scaleb(exponents[line]) for line, number in numbers.items()}
    faults += [Fault(fault.line, f"dose {fault.found}", fault.remedy) for fault in wrong]
    faults += [Fault(line, f"dose {shown(texts[line])}", "Correct it, or the unit.")
               for line, dose in doses.items() if not 0 <= dose <= MAX_UM]  # fmt: skip
    return doses, sorted(faults, key=lambda fault: fault.line)
