"""Abstentions: rows whose prediction must not be relied on, each with its reason."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from coda.contracts.quality import QualityReport
from coda.evaluation.predictions.prediction_levels import COMPOUND, PREFIX, TREATED, WELL, classes_of
from coda.quality.stats import cells_column

FIELD = ["image_id"]

REASON = "abstain_reason"
"""Column with the reason; empty where the prediction is an answer."""

NO_CELLS = "No cell: no nucleus could be seen in any of its pictures."
"""Reason of a row whose pictures are empty."""


def mark_uncertain(table: pd.DataFrame, *, min_top_over_chance: float) -> pd.DataFrame:
    """Add the column of reasons: too low a top probability, else empty.

    Args:
        table: Prediction table of any level.
        min_top_over_chance: Smallest top probability that counts as an answer, in multiples of 1/classes; see
            `least_top` for few classes.
    """
    needed = least_top(min_top_over_chance, len(classes_of(table)))
    reasons = [
        "" if top >= needed else f"Too uncertain: the most probable mechanism has {top:.2f}; {needed:.2f} is needed."
        for top in table["top_probability"]
    ]
    return table.assign(**{REASON: reasons})


def least_top(over_chance: float, classes: int) -> float:
    """Return the smallest top probability that counts as an answer.

    Twice chance is a mild limit for fifty classes and certainty itself for two. So the multiple asks for a half at
    most, and for more only where the odds do: ``p / (1 - p) >= over_chance * (1/classes) / (1 - 1/classes)``.

    Args:
        over_chance: Multiple of chance, above 0.
        classes: Number of classes.

    Returns:
        Above 0 and at most 1; it never rises with the number of classes.
    """
    by_odds = over_chance / (over_chance + max(classes, 1) - 1)
    return max(by_odds, min(over_chance / max(classes, 1), 0.5))


def mark_without_cells(table: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Give rows without a cell a reason: a network answers about an empty picture, too, and may be certain of it.

    Args:
        table: Prediction table of fields, wells or compounds, with reasons.
        fields: Rows of the field index it was made from, with the number of nuclei where a channel shows them.
    """
    column = cells_column(fields.columns)
    if column is None or table.empty:
        return table
    level = next(keys for keys in (FIELD, WELL, COMPOUND) if set(keys) <= set(table.columns))
    most = fields[column].groupby(_keys(fields, level)).max()
    empty = _keys(table, level).map(most) == 0
    return table.assign(**{REASON: table[REASON].mask(empty, NO_CELLS)})


def withhold(table: pd.DataFrame, rows: pd.Series, reason: str) -> pd.DataFrame:
    """Take the answers out of rows of a prediction table and give each the reason: what the gate refused is not shown.

    Args:
        table: Prediction table of any level, with reasons.
        rows: Which rows, True or False for each; those without an answer keep the reason they have.
        reason: Why nothing is predicted, as a sentence.
    """
    kept = table.copy()
    kept.loc[rows & (table["predicted"] != ""), REASON] = reason
    kept.loc[rows, [PREFIX + name for name in classes_of(table)]] = np.float32(np.nan)
    kept.loc[rows, "top_probability"] = np.float32(np.nan)
    kept.loc[rows, "predicted"] = ""
    return kept


def add_missing_wells(wells: pd.DataFrame, plan: pd.DataFrame, reports: Sequence[QualityReport]) -> pd.DataFrame:
    """Add the wells of the plate maps that have no prediction, each with its reason.

    Args:
        wells: Well-level table with reasons.
        plan: Wells of the plate maps (`wells.parquet`), delivered or not; empty wells are left out.
        reports: Quality reports of the batches.

    Returns:
        One row for every well that was to be predicted, sorted by plate and well; probabilities are NaN and
        `predicted` is empty where there are none.
    """
    planned = plan[plan["Metadata_pert_type"] != "empty"]
    missing = planned[~_keys(planned, WELL).isin(_keys(wells, WELL))].copy()
    if missing.empty:
        return wells.sort_values(WELL, ignore_index=True)
    missing[REASON] = [_why_missing(row, reports) for row in missing.to_dict("records")]
    columns = [name for name in missing.columns if name in wells.columns]
    return _append(wells, missing[columns], "n_fields").sort_values(WELL, ignore_index=True)


def add_missing_compounds(compounds: pd.DataFrame, wells: pd.DataFrame) -> pd.DataFrame:
    """Add the compounds none of whose wells has a prediction.

    Args:
        compounds: Compound-level table with reasons.
        wells: Well-level table after `add_missing_wells`.
    """
    treated = wells[wells["Metadata_pert_type"].isin(TREATED)]
    missing = treated[~_keys(treated, COMPOUND).isin(_keys(compounds, COMPOUND))]
    if missing.empty:
        return compounds.sort_values(COMPOUND, ignore_index=True)
    first = missing.drop_duplicates(COMPOUND).copy()
    first[REASON] = "None of its wells could be predicted: " + first[REASON].astype(str)
    columns = [name for name in first.columns if name in compounds.columns and name != "n_wells"]
    kept = [name for name in columns if not name.startswith(PREFIX) and name not in ("predicted", "top_probability")]
    return _append(compounds, first[kept], "n_wells").sort_values(COMPOUND, ignore_index=True)


def _append(table: pd.DataFrame, rows: pd.DataFrame, counted: str) -> pd.DataFrame:
    numbers = {PREFIX + name: np.float32(np.nan) for name in classes_of(table)}
    filled = rows.assign(**numbers, predicted="", top_probability=np.float32(np.nan), **{counted: 0})
    both = [*table.to_dict("records"), *filled.to_dict("records")]
    columns = list(table.columns)
    result = pd.DataFrame(both, columns=columns)
    return result.astype({name: table[name].dtype for name in columns if table[name].dtype.kind in "fiu"})


def _why_missing(row: Mapping[Hashable, Any], reports: Sequence[QualityReport]) -> str:
    plate, well = str(row["Metadata_Plate"]), str(row["Metadata_Well"])
    for report in reports:
        if (report.source, report.batch) != (row["Metadata_Source"], row["Metadata_Batch"]):
            continue
        if plate in report.plates_refused:
            return f"Plate {plate} was refused by quality control."
        told = [item.reason for item in report.quarantined if item.plate == plate and item.well == well]
        if told:
            return f"No usable field: {' '.join(dict.fromkeys(told))}"
    return "No field of this well was delivered."


def _keys(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    return table[columns].astype(str).agg("/".join, axis=1) if len(table) else pd.Series([], dtype=str)
