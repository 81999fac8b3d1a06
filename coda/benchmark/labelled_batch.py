"""How right the predictions of a batch are, once labels of its compounds are known."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.gains import Gain, gain
from coda.benchmark.scoring import truth
from coda.errors import ConfigError, IntegrityError, Problem
from coda.evaluation.metrics.accuracy import macro_f1
from coda.evaluation.metrics.calibration_error import expected_calibration_error
from coda.evaluation.predictions.prediction_levels import classes_of, probabilities_of
from coda.training.labels import LabelList

SUMMARY = "predictions.json"
LEVELS = ("field", "well", "compound")


@dataclass(frozen=True)
class LevelScore:
    """Scores of some rows of one table.

    Attributes:
        level: 'field', 'well' or 'compound'.
        rows: Which rows: 'all', 'no reason to abstain', 'learned compounds' or 'unseen compounds'.
        number: Rows with a label and an answer.
        accuracy: Share that is right, with a 95 % interval over compounds (NaN with fewer than six).
        macro_f1: Mean F1 over the classes among labels and predictions, 0 to 1.
        calibration_error: Expected calibration error, 0 to 1.
    """

    level: str
    rows: str
    number: int
    accuracy: Gain
    macro_f1: float
    calibration_error: float


@dataclass(frozen=True)
class LabelledBatch:
    """What labels say of a folder of predictions.

    Attributes:
        release_id: Release that predicted.
        scores: By level and rows; without rows there is none.
        recall: Mechanism -> (wells, share that is predicted so).
        without_label: Treated compounds without a label.
        unknown: Labelled compounds whose mechanism the head does not know; no answer can be right, none is scored.
        unanswered: Labelled wells without an answer (not delivered, or refused by the gate).
    """

    release_id: str
    scores: list[LevelScore]
    recall: dict[str, tuple[int, float]]
    without_label: tuple[str, ...]
    unknown: tuple[str, ...]
    unanswered: int


def score_batch(folder: Path, labels: LabelList, learned: LabelList | None = None) -> LabelledBatch:
    """Compare a folder of predictions with labels.

    Args:
        folder: What `coda predict` wrote.
        labels: Compound -> mechanism.
        learned: Labels that the head was trained with; compounds that are not among them are scored apart.

    Raises:
        ConfigError: There are no predictions, or no row with an answer has a label that the head knows.
        IntegrityError: A table is not the one that `predictions.json` lists.
    """
    release_id, tables = _read(folder)
    wells = tables["well"]
    classes = classes_of(wells)
    treated = set(wells.loc[wells["Metadata_pert_type"] == "trt", "Metadata_Compound"])
    unknown = sorted(name for name in treated if labels.compounds.get(name, classes[0]) not in classes)
    scores = [score for level in LEVELS for score in _level(level, tables[level], labels, learned)]
    if not scores:
        found = f"{len(treated)} compounds, none of them with an answer and a label among {', '.join(classes)}"
        problem = Problem(str(folder), found, "labels of its compounds", "Give the label table that names them.")
        raise ConfigError("Nothing can be scored.", [problem])
    true, answered = truth(wells, labels, classes), _answered(wells)
    named = np.asarray(wells["predicted"].astype(str))
    recall = {
        name: (int(own.sum()), float((named[own] == name).mean()))
        for number, name in enumerate(classes)
        if (own := (true == number) & answered).any()
    }
    without = tuple(sorted(treated - set(labels.compounds)))
    return LabelledBatch(release_id, scores, recall, without, tuple(unknown), int(((true >= 0) & ~answered).sum()))


def _read(folder: Path) -> tuple[str, dict[str, pd.DataFrame]]:
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
        content = {level: (folder / f"{level}.parquet").read_bytes() for level in LEVELS}
    except (OSError, ValueError) as error:
        problem = Problem(
            str(folder), str(error), f"{SUMMARY} and its tables", "Name the folder of coda predict --out."
        )
        raise ConfigError("There are no predictions to score.", [problem]) from error
    wrong = [
        Problem(
            str(folder / f"{level}.parquet"), "other bytes than are listed", "the table that was written",
            "Run coda predict again: the folder is of an interrupted call, or was changed.",
        )
        for level, data in content.items()
        if hashlib.sha256(data).hexdigest() != summary["files"].get(f"{level}.parquet")
    ]  # fmt: skip
    if wrong:
        raise IntegrityError("The predictions are not the ones that were written.", wrong)
    return str(summary["release_id"]), {level: pd.read_parquet(folder / f"{level}.parquet") for level in LEVELS}


def _answered(table: pd.DataFrame) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(probabilities_of(table)).all(axis=1), dtype=bool)


def _level(level: str, table: pd.DataFrame, labels: LabelList, learned: LabelList | None) -> Iterator[LevelScore]:
    true = truth(table, labels, classes_of(table))
    scored = (true >= 0) & _answered(table)
    parts = {"all": scored, "no reason to abstain": scored & (table["abstain_reason"] == "").to_numpy(bool)}
    if learned is not None:
        known = table["Metadata_Compound"].isin(list(learned.compounds)).to_numpy(bool)
        parts |= {"learned compounds": scored & known, "unseen compounds": scored & ~known}
    for rows, chosen in parts.items():
        if not chosen.any():
            continue
        found, right = probabilities_of(table)[chosen], true[chosen]
        counted = pd.DataFrame({"right": found.argmax(axis=1) == right, "rows": 1})
        by_compound = counted.groupby(table["Metadata_Compound"].to_numpy(str)[chosen]).sum()
        yield LevelScore(
            level, rows, int(chosen.sum()),
            gain(by_compound["right"].to_numpy(float), by_compound["rows"].to_numpy(float)),
            macro_f1(found, right).value, expected_calibration_error(found, right).value,
        )  # fmt: skip
