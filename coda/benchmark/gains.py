"""What each system gains over aligned tokens in the same cell, with an interval over compounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from coda.benchmark.adapting import Adapting
from coda.benchmark.benchmark_report import ReportTable
from coda.benchmark.jobs import Outcome
from coda.benchmark.score_tables import WAY_WORDS
from coda.benchmark.scoring import truth, unseen_compounds
from coda.benchmark.systems import paired
from coda.evaluation.predictions.prediction_levels import classes_of
from coda.training.labels import LabelList

REFERENCE = ("Dual-model-CB", "standardise")
"""System and alignment that all are compared with: standardised tokens of the cross-batch model, nothing trained."""

MIN_COMPOUNDS = 6
"""An interval over fewer compounds says more about the bootstrap than about the gain."""

RESAMPLES = 10_000

Key = tuple[str, str, str]
"""System, alignment, target."""


@dataclass(frozen=True)
class Gain:
    """A difference of accuracy over fields.

    Attributes:
        mean: Over all fields and seeds, -1 to 1.
        low: Lower end of the 95 % interval; NaN with too few compounds.
        high: Its upper end.
        compounds: Number of compounds.
    """

    mean: float
    low: float
    high: float
    compounds: int

    def __str__(self) -> str:
        """Return percentage points: '+3.2 (-1.0 to +7.4)'."""
        text = f"{100 * self.mean:+.1f}"
        return text if np.isnan(self.low) else f"{text} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def gains_over_aligned(
    outcomes: Iterable[Outcome], root: Path, labels: LabelList, unseen: float = 0.0
) -> dict[Key, Gain]:
    """Return what each system gains over `REFERENCE` on each target, on the same fields and from the same seed.

    Args:
        outcomes: Jobs of a table; failed ones and those of trainings are left out.
        root: Folder of the benchmark, with the predictions of every job.
        labels: Compound -> mechanism, of the data that the jobs read.
        unseen: Share of compounds that no head learned from; they are not counted here.
    """
    counts = _correct_by_compound(outcomes, root, labels, unseen)
    found = {}
    for (system, way, target), own in counts.items():
        reference = counts.get((*REFERENCE, target))
        if reference is None or (system, way) == REFERENCE:
            continue
        both = own.join(reference["correct"].rename("reference"), how="inner")
        if len(both):
            by_compound = both.groupby(level="compound").sum()
            difference = by_compound["correct"] - by_compound["reference"]
            found[(system, way, target)] = gain(difference.to_numpy(float), by_compound["fields"].to_numpy(float))
    return found


def gain(difference: NDArray[np.float64], fields: NDArray[np.float64]) -> Gain:
    """Return the gain of one system, with a BCa bootstrap interval over compounds (Efron 1987).

    Args:
        difference: Correct fields of the system less those of the reference, for each compound; shape (compounds,).
        fields: Fields of each compound; shape (compounds,).
    """
    mean, shares = float(difference.sum() / fields.sum()), difference / fields
    if len(fields) < MIN_COMPOUNDS:
        return Gain(mean, np.nan, np.nan, len(fields))
    if np.ptp(shares) == 0:
        return Gain(mean, mean, mean, len(fields))

    def ratio(of: NDArray[np.float64], n: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        share: NDArray[np.float64] = of.sum(axis=axis) / n.sum(axis=axis)
        return share

    made = stats.bootstrap(
        (difference, fields), ratio, paired=True, vectorized=True, method="BCa", n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Gain(mean, float(made.low), float(made.high), len(fields))


def gain_table(found: dict[Key, Gain], rows: Sequence[tuple[str, str]], targets: Sequence[str]) -> ReportTable:
    """Return one table of systems by targets.

    Args:
        found: From `gains_over_aligned`.
        rows: (system, alignment) of each row.
        targets: Columns.
    """
    kept = [row for row in rows if any((*row, target) in found for target in targets)]
    values = pd.DataFrame(
        [
            {"system": system, "alignment": way, "target": target, **vars(found[(system, way, target)])}
            for system, way in kept
            for target in targets
            if (system, way, target) in found
        ],
        columns=["system", "alignment", "target", "mean", "low", "high", "compounds"],
    )
    shown = [
        {"system": f"{system}{WAY_WORDS[way]}"}
        | {target: str(found.get((system, way, target), "–")) for target in targets}
        for system, way in kept
    ]
    caption = (
        "Accuracy over fields minus that of standardised tokens of the cross-batch model without training, in "
        "percentage points, mean over seeds, with a 95 % BCa bootstrap interval over compounds: what other compounds "
        "of these mechanisms would give on these plates. Other plates and batches are not covered. Without an interval "
        f"there are fewer than {MIN_COMPOUNDS} compounds. Descriptive: nothing is corrected for the number of "
        "comparisons."
    )  # fmt: skip
    return ReportTable("gains", "Gain over standardised tokens", values, pd.DataFrame(shown), caption)


def gains_by_seed(
    scores: pd.DataFrame, source: str, rows: Sequence[tuple[str, str]], targets: Sequence[str]
) -> list[ReportTable]:
    """Return the table of what each system gains over `REFERENCE` in the same cell (seed and target); none without it.

    Args:
        scores: From `coda.benchmark.systems.score_table`.
        source: Source that was trained on.
        rows: (system, alignment) of each row.
        targets: Columns.
    """
    values, shown = [], []
    for system, way in rows:
        difference = paired(scores, (system, way), REFERENCE)
        own = difference[difference.index.get_level_values("source") == source].groupby(level="target")
        if (system, way) == REFERENCE or not len(own):
            continue
        mean, deviation = own.mean(), own.std()
        values += [
            {"system": system, "alignment": way, "target": target, "mean": mean[target], "sd": deviation[target]}
            for target in targets
            if target in mean.index
        ]
        texts = {target: format_gain(mean.get(target), deviation.get(target)) for target in targets if target != source}
        shown.append({"system": f"{system}{WAY_WORDS[way]}"} | texts)
    caption = (
        "Accuracy over images minus that of standardised tokens of the cross-batch model without training, on the same "
        "plates and from the same seed, in percentage points: mean ± sample standard deviation over seeds."
    )
    name, title = f"table2_{source}_gains", f"Gain over standardised tokens, trained on {source}"
    return [ReportTable(name, title, pd.DataFrame(values), pd.DataFrame(shown), caption)] if values else []


def format_gain(mean: float | None, deviation: float | None) -> str:
    """Return percentage points: '+3.2 ± 1.1', the mean alone of one seed, a dash of none."""
    if mean is None or np.isnan(mean):
        return "–"
    return f"{100 * mean:+.1f}" + ("" if deviation is None or np.isnan(deviation) else f" ± {100 * deviation:.1f}")


def _correct_by_compound(
    outcomes: Iterable[Outcome], root: Path, labels: LabelList, unseen: float
) -> dict[Key, pd.DataFrame]:
    """Return fields and correct answers of each seed and compound."""
    away = unseen_compounds(labels, unseen)
    known = LabelList({name: moa for name, moa in labels.compounds.items() if name not in away})
    parts: dict[Key, list[pd.DataFrame]] = {}
    for outcome in outcomes:
        task = outcome.job.task
        if outcome.result is None or not isinstance(task, Adapting):
            continue
        for way in dict.fromkeys(row["alignment"] for row in outcome.result["scores"]):
            table = pd.read_parquet(outcome.job.folder(root) / f"{way}.parquet")
            classes = classes_of(table)
            true = truth(table, known, classes)
            counted = pd.DataFrame(
                {
                    "seed": task.trained.seed,
                    "compound": table["Metadata_Compound"],
                    "fields": 1,
                    "correct": table["predicted"].to_numpy(str) == np.asarray([*classes, ""])[true],
                }
            )[true >= 0]
            sums = counted.groupby(["seed", "compound"]).sum()
            parts.setdefault((task.system, way, task.target), []).append(sums)
    return {key: pd.concat(found) for key, found in parts.items()}
