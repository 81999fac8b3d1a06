"""Tables for people: small CSV files that open in a spreadsheet, and that cannot run anything there.

Names of compounds, wells and plates come from the delivery. A spreadsheet takes a cell that begins with ``=``, ``+``,
``-`` or ``@`` for a formula and runs it, quoted or not; an apostrophe in front makes it text.
"""

import re
from collections.abc import Mapping

import pandas as pd

from coda.evaluation.predictions.prediction_levels import TREATED, classes_of, probabilities_of

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Beginnings of cells that spreadsheets take for formulas; the wide forms count too where East Asian input is used."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")

_ANSWER = {
    "predicted": "predicted_mechanism",
    "top_probability": "probability",
    "runner_up": "runner_up",
    "runner_up_probability": "runner_up_probability",
}
_END = {"abstain_reason": "do_not_rely_because", "release_id": "release"}

WELL_COLUMNS = {
    "Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_Compound": "compound", **_ANSWER,
    "n_fields": "fields", **_END,
}  # fmt: skip
"""Column of the well table -> heading of ``well.csv``."""

COMPOUND_COLUMNS = {
    "Metadata_Batch": "batch", "Metadata_Compound": "compound", **_ANSWER, "n_wells": "wells", **_END,
}  # fmt: skip
"""Column of the compound table -> heading of ``compound.csv``."""


def well_sheet(wells: pd.DataFrame) -> str:
    """Return the treated wells of a well table as CSV, one line a well."""
    return _sheet(wells[wells["Metadata_pert_type"].isin(TREATED)], WELL_COLUMNS)


def compound_sheet(compounds: pd.DataFrame) -> str:
    """Return a compound table as CSV, one line a compound and batch."""
    return _sheet(compounds, COMPOUND_COLUMNS)


def plain_cell(text: str) -> str:
    """Return a cell of one line that every spreadsheet shows as the text it is."""
    # some readers end a line at a lone carriage return, and what follows would begin a cell of its own
    line = _CONTROL.sub(" ", text).strip()
    return f"'{line}" if line.startswith(FORMULA_STARTS) else line


def _sheet(table: pd.DataFrame, columns: Mapping[str, str]) -> str:
    rows = _with_runner_up(table)[list(columns)].rename(columns=columns)
    texts = [name for name in rows.columns if not pd.api.types.is_numeric_dtype(rows[name])]
    rows = rows.assign(**{name: [plain_cell(str(value)) for value in rows[name]] for name in texts})
    return rows.to_csv(index=False, float_format="%.3f", lineterminator="\n")


def _with_runner_up(table: pd.DataFrame) -> pd.DataFrame:
    """Add the second most probable mechanism: empty where there is no answer, or no second class."""
    classes, p = classes_of(table), probabilities_of(table)
    second: list[tuple[str, float]] = []
    for answer, row in zip(table["predicted"], p, strict=True):
        others = [k for k in range(len(classes)) if classes[k] != answer] if answer else []
        best = max(others, key=lambda k: row[k]) if others else None
        second.append(("", float("nan")) if best is None else (classes[best], float(row[best])))
    return table.assign(runner_up=[name for name, _ in second], runner_up_probability=[value for _, value in second])
