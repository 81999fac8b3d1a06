"""Scores against the truth: the one place of the benchmarks where labels of a target source are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.benchmark_figures import UNNAMED
from coda.evaluation.metrics.accuracy import accuracy, macro_f1
from coda.evaluation.metrics.metric_result import Matrix
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, probabilities_of, well_table
from coda.training.labels import LabelList

LEVELS = ("image", "well", "compound")
METRICS = ("accuracy", "macro_f1")


def truth(table: pd.DataFrame, labels: LabelList, classes: Sequence[str]) -> NDArray[np.intp]:
    """Return the class of every row, -1 without a label or with a mechanism that the head does not know.

    Args:
        table: Field index or prediction table, with `Metadata_Compound` and `Metadata_pert_type`.
        labels: Compound -> mechanism, for all compounds that are known.
        classes: Classes of the head, in the order of its probabilities.
    """
    known = LabelList({name: mechanism for name, mechanism in labels.compounds.items() if mechanism in classes})
    place = np.array([list(classes).index(name) for name in known.classes] + [-1], dtype=np.intp)
    return place[known.codes(table)]


def score_predictions(fields: pd.DataFrame, labels: LabelList, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return accuracy and macro F1 of fields, wells (mean over fields) and compounds (mean over a batch's wells).

    Args:
        fields: Field-level prediction table (`coda.evaluation.predictions.prediction_levels.field_table`).
        labels: Compound -> mechanism.
        classes: Classes of the head.

    Returns:
        Rows with ``level``, ``metric``, ``value`` (0 to 1, not rounded) and ``n`` (rows that were scored).
    """
    wells = well_table(fields)
    rows: list[dict[str, Any]] = []
    for level, table in zip(LEVELS, (fields, wells, compound_table(wells)), strict=True):
        found, true = probabilities_of(table), truth(table, labels, classes)
        for metric, score in (("accuracy", accuracy(found, true)), ("macro_f1", macro_f1(found, true))):
            rows.append({"level": level, "metric": metric, "value": score.value, "n": score.n})
    return rows


def keep_and_score(
    rows: pd.DataFrame, probabilities: Matrix, classes: Sequence[str], labels: LabelList, path: Path
) -> list[dict[str, Any]]:
    """Write per-image predictions, so that any metric can be computed later, and return their scores.

    Args:
        rows: Rows of the field index.
        probabilities: Shape (fields, classes).
        classes: Classes of the head.
        labels: Compound -> mechanism; never written.
        path: Parquet file to write.
    """
    table = field_table(rows, probabilities, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    table.to_parquet(draft, index=False)
    draft.replace(path)
    return score_predictions(table, labels, classes)


def mechanisms(table: pd.DataFrame, labels: LabelList) -> list[str]:
    """Return the mechanism of every row for colouring a finished picture; 'no label' without one."""
    names = (*labels.classes, UNNAMED)
    return [names[code] for code in labels.codes(table)]
