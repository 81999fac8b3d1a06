"""What the paper's table says about the order of systems, asked of the paper's numbers and of ours alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coda.benchmark.benchmark_report import ReportTable
from coda.benchmark.paper import table_2, table_3

Values = Mapping[tuple[str, str], float]
"""(source, target) -> accuracy of one system."""


@dataclass(frozen=True)
class Statement:
    """One system above another.

    Attributes:
        better: System that the paper sees above.
        worse: System that it sees below.
    """

    better: str
    worse: str

    def __str__(self) -> str:
        """Return it as text."""
        return f"{self.better} above {self.worse}"


TABLE_2 = (
    Statement("ODA", "Dual-model-DINO"),
    Statement("CODA", "Dual-model-CB"),
    Statement("CODA", "ODA"),
    Statement("ODA", "Supervised"),
    Statement("CODA", "Supervised"),
    Statement("Supervised", "Dual-model-DINO"),
    Statement("Dual-model-CB", "Dual-model-DINO"),
    Statement("Dual-model-DINO", "TTT"),
    Statement("ODA", "TTT"),
)
TABLE_3 = (
    Statement("ODA-MAE", "Dual-model-MAE"),
    Statement("ODA", "ODA-MAE"),
    Statement("Dual-model-DINO", "Dual-model-MAE"),
)
RATIOS = ("ODA", "CODA")


def ordering_table(scores: pd.DataFrame, statements: Sequence[Statement], name: str = "orderings") -> ReportTable:
    """Return how often each statement holds, in the paper and here.

    Args:
        scores: From `coda.benchmark.systems.score_table`; pairs share seed, source and target.
        statements: What is asked.
        name: Name of the CSV file.
    """
    rows = []
    for statement in statements:
        paper = _paper_differences(statement)
        here = 100 * _differences(scores, statement)
        rows.append(
            {
                "statement": str(statement),
                "paper": f"{(paper > 0).sum()} of {len(paper)}",
                "paper: mean": f"{paper.mean():+.1f}",
                "here": f"{int((here > 0).sum())} of {len(here)}" if len(here) else "–",
                "here: mean": f"{here.mean():+.1f}" if len(here) else "–",
                "here: range": f"{here.min():+.1f} to {here.max():+.1f}" if len(here) else "–",
                "verdict": _verdict(here),
            }
        )
    frame = pd.DataFrame(rows)
    caption = (
        "Cells in which the statement holds, and differences of image accuracy in percentage points. A cell of the "
        "paper is one source and target (means over its runs); a cell here is one seed, source and target, so that "
        "both systems saw the same plates and started from the same weights. 'holds' means in every cell, 'mostly' "
        "in at least two thirds, 'no' in at most a third."
    )
    quiet = frozenset({"paper", "paper: mean"})
    return ReportTable(name, "Where the paper's ordering holds", frame, frame, caption, quiet=quiet)


def ratio_table(scores: pd.DataFrame, name: str = "ratios") -> ReportTable:
    """Return adapted accuracy over the supervised system's, as the paper states it, over all targets."""
    supervised = _mean_values(scores, "Supervised")
    rows = []
    for system in RATIOS:
        ours = _mean_values(scores, system)
        here = np.array(
            [100 * ours[key] / supervised[key] for key in sorted(set(ours) & set(supervised)) if supervised[key]]
        )
        paper = np.array(
            [
                100 * value.mean / table_2()[(s, t, "Supervised")].mean
                for (s, t, n), value in table_2().items()
                if n == system
            ]
        )
        rows.append(
            {
                "system": f"{system} / Supervised",
                "paper (%)": f"{paper.mean():.1f} ± {paper.std(ddof=1):.1f}",
                "here (%)": "–"
                if not len(here)
                else f"{here.mean():.1f}" + (f" ± {here.std(ddof=1):.1f}" if len(here) > 1 else ""),
            }
        )
    frame = pd.DataFrame(rows)
    caption = (
        "Mean and deviation over pairs of source and target. The paper calls these ratios increases; the increases are "
        "74.8 and 132.6 %."
    )
    return ReportTable(
        name, "Accuracy on targets, relative to Supervised", frame, frame, caption, quiet=frozenset({"paper (%)"})
    )


def _differences(scores: pd.DataFrame, statement: Statement) -> "pd.Series[float]":
    from coda.benchmark.systems import paired

    return paired(scores, (statement.better, "none"), (statement.worse, "none"))


def _paper_differences(statement: Statement) -> np.ndarray:
    numbers = {**table_2(), **table_3()}
    found = [
        value.mean - numbers[(source, target, statement.worse)].mean
        for (source, target, system), value in numbers.items()
        if system == statement.better and source != target and (source, target, statement.worse) in numbers
    ]
    return np.array(found)


def _mean_values(scores: pd.DataFrame, system: str) -> dict[tuple[str, str], float]:
    chosen = scores[
        (scores["system"] == system) & (scores["alignment"] == "none") & (scores["level"] == "image")
        & (scores["metric"] == "accuracy") & (scores["source"] != scores["target"])
    ]  # fmt: skip
    means = chosen.groupby(["source", "target"], as_index=False)["value"].mean()
    return {
        (str(source), str(target)): float(value)
        for source, target, value in zip(means["source"], means["target"], means["value"], strict=True)
    }


def _verdict(here: "pd.Series[float]") -> str:
    if not len(here):
        return "not measured"
    share = float((here > 0).mean())
    return "holds" if share == 1 else "mostly" if share >= 2 / 3 else "no" if share <= 1 / 3 else "undecided"
