"""Red-flag list: plates that are known to have a fault, as the operator gives them.

A CSV with a row a plate: ``Metadata_Source`` and ``Metadata_Plate``, and if wanted ``Metadata_Batch``, ``flag`` (or
``qc_flag``, as public lists of JUMP plates call it) and ``reason``. A row without a plate is about all plates of its
batch; a row without a batch about the plate in any batch. Without a column of flags every row is red.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read_table

FLAGS: Mapping[str, str] = {
    "ok": "ok", "pass": "ok", "none": "ok", "green": "ok", "": "ok",
    "gray": "gray", "grey": "gray", "yellow": "gray", "warning": "gray",
    "red": "red", "fail": "red", "exclude": "red",
}  # fmt: skip
"""Words of a list -> what they mean here."""

_GRAVITY = {"ok": 0, "gray": 1, "red": 2}

NO_REASON = "the list gives no reason"


@dataclass(frozen=True)
class RedFlag:
    """What the list says of a plate: 'red' or 'gray', and why."""

    flag: str
    reason: str


@dataclass(frozen=True)
class RedFlags:
    """A list that was read.

    Attributes:
        digest: SHA-256 of its bytes.
        entries: (source, batch, plate) -> flag; batch and plate are '' where the row names none.
    """

    digest: str
    entries: Mapping[tuple[str, str, str], RedFlag]

    def of(self, source: str, batch: str, plate: str) -> RedFlag | None:
        """Return the gravest flag of a plate, or None when the list says nothing against it."""
        places = ((source, batch, plate), (source, "", plate), (source, batch, ""))
        found = [self.entries[place] for place in places if place in self.entries]
        return max(found, key=lambda item: _GRAVITY[item.flag], default=None)


def read_red_flags(data: bytes, where: str) -> RedFlags:
    """Read a list.

    Args:
        data: The file: CSV, gzipped CSV or parquet.
        where: Its name, for messages.

    Raises:
        ConfigError: It is no such table, lacks a column, or has a row that names no plate or a flag nobody knows; all
            problems together.
    """
    try:
        table = read_table(data)
    except UnreadableTableError as error:
        problem = Problem(where, f"a table that {error}", "a CSV with a row a plate", "Correct quality.red_flags.")
        raise ConfigError("The red-flag list cannot be read.", [problem]) from error
    absent = [name for name in ("Metadata_Source", "Metadata_Plate") if name not in table]
    if absent:
        problem = Problem(where, f"no column {', '.join(absent)}", "Metadata_Source and Metadata_Plate",
                          "See docs/quality.md for the columns of a red-flag list.")  # fmt: skip
        raise ConfigError("The red-flag list cannot be read.", [problem])
    flags = next((name for name in ("flag", "qc_flag") if name in table), None)
    entries: dict[tuple[str, str, str], RedFlag] = {}
    problems: list[Problem] = []
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        source, batch, plate = (str(row.get(f"Metadata_{name}", "")) for name in ("Source", "Batch", "Plate"))
        word = str(row[flags]).lower() if flags else "red"
        if not source or not (batch or plate):
            problems.append(Problem(f"{where}, line {number}", f"source {source!r}, batch {batch!r}, plate {plate!r}",
                                    "a source, and a plate or a batch", "Complete the row."))  # fmt: skip
        elif word not in FLAGS:
            problems.append(Problem(f"{where}, line {number}", f"the flag {word[:40]!r}",
                                    f"one of {', '.join(name for name in FLAGS if name)}, or nothing",
                                    "Correct the flag."))  # fmt: skip
        elif FLAGS[word] != "ok":
            new = RedFlag(FLAGS[word], str(row.get("reason", "")).rstrip(".")[:300] or NO_REASON)
            before = entries.get((source, batch, plate), new)
            entries[source, batch, plate] = max(before, new, key=lambda item: _GRAVITY[item.flag])
    raise_if_any(ConfigError, "The red-flag list has rows that cannot be used.", problems[:20])
    return RedFlags(hashlib.sha256(data).hexdigest(), entries)
