"""Scores as the tables of the paper: mean and SD over seeds, the best marked, the paper's numbers beside."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from coda.benchmark.benchmark_report import ReportTable
from coda.benchmark.paper import SHORT, Printed, printed
from coda.benchmark.scoring import ECE, RECALL
from coda.benchmark.systems import GROUP

MISSING = (float("nan"), float("nan"))
PAPER_COLUMN = "paper: {}"
WAY_WORDS = {
    "none": "", "coral": " + CORAL", "standardise": " + standardised tokens", "controls": ", by controls",
    "sphered": " + sphering", "controls-sphered": ", by controls + sphering", "combat": ", ComBat",
}  # fmt: skip
"""What is done to tokens or profiles, in the order of tables -> what is added to the system's name."""


def format_mean_sd(mean: float, sd: float) -> str:
    """Return percent as the paper prints it: '33.3 ± 0.3', or the mean alone where there is one seed."""
    if not math.isfinite(mean):
        return "–"
    return f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if math.isfinite(sd) else "")


def score_matrix(
    summary: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    rows: Sequence[tuple[str, str]],
    *,
    name: str,
    title: str,
    level: str = "image",
    metric: str = "accuracy",
    caption: str = "",
    in_domain: bool = True,
) -> ReportTable:
    """Return one table of systems by targets, for models trained on one source.

    Args:
        summary: Means and deviations, from `coda.benchmark.systems.summarise`.
        source: Source that was trained on; with `in_domain` it is the first column.
        targets: The other columns.
        rows: (system, alignment) of each row; a line is drawn before the first row with an alignment.
        name: Name of the CSV file.
        title: Heading.
        level: 'image', 'well' or 'compound'.
        metric: 'accuracy' or 'macro_f1'.
        caption: Sentences below it.
        in_domain: Whether the source's own held-out batch is a column.
    """
    chosen = summary[(summary["source"] == source) & (summary["level"] == level) & (summary["metric"] == metric)]
    keys = zip(chosen["system"], chosen["alignment"], chosen["target"], strict=True)
    keyed = dict(zip(keys, zip(chosen["mean"], chosen["sd"], strict=True), strict=True))
    columns = ([source] if in_domain else []) + [target for target in targets if target != source]
    shown, values, numbers = [], [], []
    for system, alignment in rows:
        entries = {column: keyed.get((system, alignment, column), MISSING) for column in columns}
        shown.append({"system": f"{system}{WAY_WORDS[alignment]}"} | _texts(entries, source))
        if alignment == "none":
            shown[-1] |= _paper(source, columns, system, level, metric)
        # of a calibration error the least is marked
        numbers.append([-mean if metric == ECE else mean for mean, _ in entries.values()])
        values.append({"system": system, "alignment": alignment} | _numbers(entries))
    frame = pd.DataFrame(shown).fillna("–")
    breaks = [place for place, (_, alignment) in enumerate(rows) if alignment != "none"][:1]
    return ReportTable(
        name, title, pd.DataFrame(values), frame, caption,
        best=_best(numbers, breaks), breaks=frozenset(breaks),
        quiet=frozenset(column for column in frame.columns if column.startswith("paper")),
    )  # fmt: skip


def recall_table(summary: pd.DataFrame, source: str, rows: Sequence[tuple[str, str]]) -> ReportTable:
    """Return one table of systems by mechanisms: recall of each mechanism, mean over targets.

    Args:
        summary: Means and deviations of the models that were trained on the source.
        source: That source; its own held-out batch is left out.
        rows: (system, alignment) of each row.
    """
    chosen = summary[
        (summary["level"] == "image") & summary["metric"].str.startswith(RECALL) & (summary["target"] != source)
    ]
    names = list(dict.fromkeys(chosen["metric"]))
    means = chosen.groupby(["system", "alignment", "metric"], sort=False)["mean"].mean()
    values = [
        {"system": system, "alignment": way}
        | {name.removeprefix(RECALL): means.get((system, way, name), math.nan) for name in names}
        for system, way in rows
    ]
    shown = [
        {"system": f"{row['system']}{WAY_WORDS[row['alignment']]}"}
        | {name.removeprefix(RECALL): format_mean_sd(row[name.removeprefix(RECALL)], math.nan) for name in names}
        for row in values
    ]
    caption = "Recall of each mechanism's images, mean over seeds and the targets, in percent."
    title = f"Recall of mechanisms, trained on {source}"
    return ReportTable(f"table2_{source}_recall", title, pd.DataFrame(values), pd.DataFrame(shown), caption)


def present(summary: pd.DataFrame, systems: Sequence[str], alignments: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (system, alignment) that have a score, in the order of alignments and systems."""
    have = set(zip(summary["system"], summary["alignment"], strict=True))
    return [(system, way) for way in alignments for system in systems if (system, way) in have]


def long_table(scores: pd.DataFrame, name: str, title: str) -> ReportTable:
    """Return all scores, one a row, for the CSV; the page shows how many there are."""
    counted = scores.groupby(["source", "level", "metric"], sort=False)["value"].size().rename("scores").reset_index()
    caption = "Every score of every seed is in the CSV, not rounded; predictions of every image lie beside the jobs."
    return ReportTable(name, title, scores, counted, caption)


def summary_table(summary: pd.DataFrame, name: str, title: str) -> ReportTable:
    """Return means and standard deviations for the CSV; the page shows how many there are."""
    counted = summary.groupby([*GROUP[:1], *GROUP[4:]], sort=False)["mean"].size().rename("means").reset_index()
    return ReportTable(name, title, summary, counted, "Sample standard deviation (n - 1) over seeds.")


def _texts(entries: dict[str, tuple[float, float]], source: str) -> dict[str, str]:
    return {
        f"{column} (in-domain)" if column == source else column: format_mean_sd(mean, sd)
        for column, (mean, sd) in entries.items()
    }


def _numbers(entries: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {
        f"{column} {part}": value
        for column, entry in entries.items()
        for part, value in zip(("mean", "sd"), entry, strict=True)
    }


def _paper(source: str, columns: Sequence[str], system: str, level: str, metric: str) -> dict[str, str]:
    """Return the paper's numbers beside ours, where sources match; it prints accuracy over images alone."""
    if level != "image" or metric != "accuracy":
        return {}
    found = {column: printed(source, column, system) for column in columns}
    return {
        PAPER_COLUMN.format(SHORT.get(column, column)): "–" if value is None else str(value)
        for column, value in found.items()
        if any(found.values())
    }


def _best(numbers: Sequence[Sequence[float]], breaks: Sequence[int]) -> frozenset[tuple[int, int]]:
    """Return the highest of every column, above and below the line each for itself."""
    marked = set()
    bounds = [0, *breaks, len(numbers)]
    for start, stop in pairwise(bounds):
        for column in range(len(numbers[0]) if numbers else 0):
            values = {place: numbers[place][column] for place in range(start, stop)}
            finite = [value for value in values.values() if math.isfinite(value)]
            marked |= {(place, column + 1) for place, value in values.items() if finite and value == max(finite)}
    return frozenset(marked)


def reference_table(rows: dict[tuple[str, str, str], Printed], name: str, title: str, source: str) -> ReportTable:
    """Return the paper's own table for one source, as it is printed."""
    own = {(target, system): value for (trained, target, system), value in rows.items() if trained == source}
    columns = list(dict.fromkeys(target for target, _ in own))
    systems = list(dict.fromkeys(system for _, system in own))
    shown = pd.DataFrame(
        [
            {"system": system} | {SHORT[c]: str(own[(c, system)]) if (c, system) in own else "–" for c in columns}
            for system in systems
        ]
    )
    values = pd.DataFrame(
        [
            {"system": system, "target": target, "mean": value.mean, "sd": value.sd}
            for (target, system), value in own.items()
        ]
    )
    quiet = frozenset(map(str, shown.columns[1:]))
    return ReportTable(name, title, values, shown, "Accuracy over fields of view in percent, as printed.", quiet=quiet)
