"""Scores against the truth: the one place of the benchmarks where labels of a target source are read."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.benchmark_figures import UNNAMED
from coda.benchmark.feature_scores import score_features
from coda.evaluation.metrics.accuracy import accuracy, macro_f1
from coda.evaluation.metrics.calibration_error import expected_calibration_error
from coda.evaluation.metrics.metric_result import Matrix
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, probabilities_of, well_table
from coda.training.labels import LabelList

LEVELS = ("image", "well", "compound")
METRICS = ("accuracy", "macro_f1")
ECE = "ece"
"""Expected calibration error: the one score of which less is better."""

UNSEEN = ", unseen compounds"
"""Ends the name of a level whose compounds no head has learned from (not-same-compound)."""

RECALL = "recall of "
"""Begins the name of a metric of one mechanism: the share of its rows that are told."""


def unseen_compounds(labels: LabelList, share: float) -> frozenset[str]:
    """Return the compounds that are kept from every head, so that answers about them say what a head has understood.

    Args:
        labels: Compound -> mechanism.
        share: Of each mechanism's compounds, 0 for none. At least one is kept back and at least one stays, so a
            mechanism of a single compound gives none.

    Returns:
        Names, chosen by their SHA-256: the same for every system and seed.
    """
    found: set[str] = set()
    for mechanism in labels.classes if share > 0 else ():
        own = [name for name, moa in labels.compounds.items() if moa == mechanism]
        drawn = sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())
        found.update(drawn[: min(len(own) - 1, max(1, round(share * len(own))))])
    return frozenset(found)


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


def score_predictions(
    fields: pd.DataFrame, labels: LabelList, classes: Sequence[str], unseen: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Return accuracy, macro F1, calibration error and recall by mechanism, over fields, wells and compounds.

    A well's probability is the mean over its fields, a compound's the mean over a batch's wells.

    Args:
        fields: Field-level prediction table (`coda.evaluation.predictions.prediction_levels.field_table`).
        labels: Compound -> mechanism.
        classes: Classes of the head.
        unseen: Compounds that the head has not learned from; they have levels of their own (`UNSEEN`).

    Returns:
        Rows with ``level``, ``metric``, ``value`` (0 to 1, not rounded) and ``n`` (rows that were scored).
    """
    wells = well_table(fields)
    rows: list[dict[str, Any]] = []
    for level, table in zip(LEVELS, (fields, wells, compound_table(wells)), strict=True):
        found, true = probabilities_of(table), truth(table, labels, classes)
        new = table["Metadata_Compound"].isin(unseen).to_numpy()
        rows += _scores(level, found, np.where(new, -1, true), classes)
        if unseen:
            rows += _scores(level + UNSEEN, found, np.where(new, true, -1), classes)
    return rows


def _scores(level: str, found: Matrix, true: NDArray[np.intp], classes: Sequence[str]) -> list[dict[str, Any]]:
    scores = {
        "accuracy": accuracy(found, true),
        "macro_f1": macro_f1(found, true),
        ECE: expected_calibration_error(found, true),
    }
    scores |= {
        RECALL + name: accuracy(found, np.where(true == number, true, -1))
        for number, name in enumerate(classes)
        if (true == number).any()
    }
    return [{"level": level, "metric": name, "value": score.value, "n": score.n} for name, score in scores.items()]


def keep_and_score(
    rows: pd.DataFrame,
    probabilities: Matrix,
    classes: Sequence[str],
    labels: LabelList,
    path: Path,
    unseen: frozenset[str] = frozenset(),
    *,
    features: Matrix | None = None,
) -> list[dict[str, Any]]:
    """Write per-image predictions, so that any metric can be computed later, and return their scores.

    Args:
        rows: Rows of the field index.
        probabilities: Shape (fields, classes).
        classes: Classes of the head.
        labels: Compound -> mechanism; never written.
        path: Parquet file to write.
        unseen: See `score_predictions`.
        features: What the head read, shape (fields, width); scored too where given (`score_features`).
    """
    table = field_table(rows, probabilities, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    table.to_parquet(draft, index=False)
    draft.replace(path)
    of_features = [] if features is None else score_features(rows, features, labels)
    return [*score_predictions(table, labels, classes, unseen), *of_features]


def mechanisms(table: pd.DataFrame, labels: LabelList) -> list[str]:
    """Return the mechanism of every row for colouring a finished picture; 'no label' without one."""
    names = (*labels.classes, UNNAMED)
    return [names[code] for code in labels.codes(table)]
