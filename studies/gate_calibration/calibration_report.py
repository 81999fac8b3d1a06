"""The report of a calibration: how metrics rank, what the gate does, and how the thresholds follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from coda.benchmark.benchmark_figures import COLOURS, STYLE, canvas
from coda.benchmark.benchmark_report import ReportPicture, ReportTable, write_report
from coda.benchmark.jobs import Outcome
from coda.benchmark.setting import machine
from coda.config.policy import GatePolicy
from studies.gate_calibration.calibration_estimates import estimate_table
from studies.gate_calibration.calibration_gate import MARGIN, summarise_outcomes
from studies.gate_calibration.calibration_policy import Derived

RANKS = {
    "within": "within a run", "with_broken": "within a run, broken models too", "change": "of the change",
    "adaptation": "of what adaptation changed",
}  # fmt: skip
"""Column of the rank table -> heading."""

NOTES = (
    (
        "Simulated plates and a tiny network: how metrics behave here is a reason to look at them, and no evidence "
        "about real plates. Calibrate on labelled plates of your own before you trust a threshold."
    ),
    (
        "Intervals are over runs, and runs of one seed share compounds, plates of the source and often the source's "
        "model: the intervals are too narrow, and with two reporting seeds nobody can say by how much."
    ),
    "Fields of the target are adapted to and judged on; labels are read for the truth only.",
)

COUNTS = (
    f"Worse: released although less accurate than the unadapted model, by anything, and by more than {MARGIN:g}. "
    f"Missed: not released although a candidate was better by more than {MARGIN:g}. Broken released: the adapted model "
    "that was released is deliberately broken; it may still be better than none, since alignment repairs much. Gain "
    "and regret are means of field accuracy: what serves against the unadapted model, and the best candidate against "
    "what serves; a refusal counts as guessing."
)


@dataclass(frozen=True)
class Part:
    """Results of the seeds that thresholds are chosen on, or of those that are reported.

    Attributes:
        seeds: The seeds.
        runs: Results of the finished targets.
        ranks: `studies.gate_calibration.calibration_ranks.rank_table`.
        gates: Title of a policy -> `studies.gate_calibration.calibration_gate.gate_outcomes`.
    """

    seeds: tuple[int, ...]
    runs: list[dict[str, Any]]
    ranks: pd.DataFrame
    gates: dict[str, pd.DataFrame]

    def summary(self) -> dict[str, pd.DataFrame]:
        """Return the outcomes of each policy as counts."""
        return {title: summarise_outcomes(outcomes) for title, outcomes in self.gates.items()}


def write_calibration(
    out: Path, choose: Part, report: Part, derived: Derived | None, present: GatePolicy, outcomes: Sequence[Outcome]
) -> Path:
    """Write the page, and a CSV beside it for every table.

    Args:
        out: Folder of the report.
        choose: Results of the seeds that thresholds are chosen on.
        report: Results of the seeds that they are reported on.
        derived: The policy that follows, if there is one.
        present: The policy in use.
        outcomes: Every job.
    """
    tables, pictures = [], []
    for name, part in (("report", report), ("choose", choose)):
        if not part.runs:
            continue
        seeds = f"seeds {', '.join(map(str, part.seeds))}, {len(part.runs)} runs"
        tables.append(_ranks(f"ranks_{name}", f"Which metric ranks models as the truth does ({seeds})", part.ranks))
        tables.append(_estimates(f"estimates_{name}", f"How far estimates of accuracy are off ({seeds})", part.runs))
        for title, counts in part.summary().items():
            tables.append(_counts(f"gate_{title}_{name}", f"What {title} does ({seeds})", counts))
        tables.append(
            ReportTable(f"models_{name}", f"Every model ({seeds})", models_table(part.runs), _kinds(part.runs))
        )
        pictures.append(
            ReportPicture(
                f"ranks_{name}", f"Rank correlation with field accuracy ({seeds})", rank_figure(part.ranks),
                "For every metric, the mean Spearman correlation within runs with its 95 % interval.",
            )
        )  # fmt: skip
    if derived is not None:
        tables.append(ReportTable("limits", "Health limits", derived.limits, caption=" ".join(derived.reasons)))
        tables.append(ReportTable("rules", "Rules that were tried on the choosing seeds", derived.tried))
    seconds = sum(outcome.seconds for outcome in outcomes)
    facts = {
        "Policy in use": f"{present.title}, digest {present.digest()[:16]}",
        "Seeds": f"choosing {', '.join(map(str, choose.seeds))}; reporting {', '.join(map(str, report.seeds))}",
        "Machine": machine(),
        "Work of all jobs": f"{seconds / 60:.1f} minutes, summed over {len(outcomes)} jobs",
    }
    lead = f"{len(choose.runs)} runs to choose thresholds on and {len(report.runs)} to report them on."
    return write_report(out, "Calibration of the gate", tables, pictures, NOTES, facts=facts, lead=lead)


def models_table(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row a model and way of serving: the run, what it is, its accuracy, and every metric."""
    facts = ("seed", "source", "target", "shift", "layout")
    kept = ("model", "view", "way", "adapted", "broken", "field_accuracy", "well_accuracy")
    return pd.DataFrame(
        [
            {**{name: run[name] for name in facts}, **{name: entry[name] for name in kept}, **entry["metrics"]}
            for run in runs
            for entry in run["models"]
        ]
    )


def rank_figure(ranks: pd.DataFrame) -> Figure:
    """Draw the correlation within runs of every metric, with and without broken models, best at the top."""
    figure = canvas(7.0, 0.24 * len(ranks) + 1.0)
    places = np.arange(len(ranks))[::-1]
    with rc_context(STYLE):
        axis = figure.subplots()
        for offset, column, colour in ((0.15, "within", COLOURS[5]), (-0.15, "with_broken", COLOURS[7])):
            middle, low, high = (ranks[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            axis.hlines(places + offset, low, high, color=colour, linewidth=1.2)
            axis.plot(middle, places + offset, "o", color=colour, markersize=4, label=RANKS[column])
        axis.axvline(0, color="#667085", linewidth=0.8, linestyle="--")
        axis.set_yticks(places, ranks["metric"])
        axis.set_xlim(-1.02, 1.02)
        axis.set_xlabel("Spearman correlation with field accuracy (1: ranks as the truth does)")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _ranks(name: str, title: str, ranks: pd.DataFrame) -> ReportTable:
    shown = pd.DataFrame({"metric": ranks["metric"], "better": ranks["better"], "runs": ranks["runs"]})
    for column, heading in RANKS.items():
        shown[heading] = [
            f"{value:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(value) else "–"
            for value, low, high in zip(*(ranks[f"{column}{end}"] for end in ("", "_low", "_high")), strict=True)
        ]
    caption = (
        "Spearman's correlation with true field accuracy, its sign turned where less should be better, and its 95 % "
        "interval of a bootstrap over runs. The change is against the unadapted model of the run; what adaptation "
        "changed is against the unadapted model with the same alignment."
    )
    return ReportTable(name, title, ranks, shown, caption)


def _estimates(name: str, title: str, runs: Sequence[Mapping[str, Any]]) -> ReportTable:
    table = estimate_table(runs)
    shown = table.rename(
        columns={"bias": "mean of estimate less truth", "error": "mean error", "error_90": "nine of ten nearer than",
                 "constant": "error of saying the mean"}
    ).round(3)  # fmt: skip
    caption = (
        "Estimates of field accuracy without labels, against the truth. An estimate no nearer than always saying "
        "the models' mean accuracy knows nothing of a single model."
    )
    return ReportTable(name, title, table, shown, caption)


def _counts(name: str, title: str, counts: pd.DataFrame) -> ReportTable:
    words = {
        "worse": "worse", "worse_margin": f"worse by {MARGIN:g}", "broken_released": "broken released",
        "candidates": "adapted model",
    }  # fmt: skip
    shown = counts.rename(columns=words).round({"gain": 3, "regret": 3})
    return ReportTable(name, title, counts, shown, COUNTS, breaks=frozenset({len(counts) - 3}))


def _kinds(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        {"model": entry["model"], "plates": entry["view"], "way": entry["way"], "accuracy": entry["field_accuracy"]}
        for run in runs
        for entry in run["models"]
    ]
    means = pd.DataFrame(rows).pivot_table(index=["plates", "model"], columns="way", values="accuracy", sort=False)
    return means.round(3).reset_index()
