"""Table 2 of the paper: every system trained on one source and applied to the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coda.benchmark.adapting import work
from coda.benchmark.benchmark_figures import bars
from coda.benchmark.benchmark_report import ReportPicture, ReportTable, write_report
from coda.benchmark.feature_scores import FEATURES
from coda.benchmark.gains import gains_by_seed
from coda.benchmark.jobs import EventCallback, Job, Outcome, attempt_jobs
from coda.benchmark.orderings import TABLE_2, ordering_table, ratio_table
from coda.benchmark.paper import SHORT, table_2
from coda.benchmark.score_tables import (
    WAY_WORDS,
    long_table,
    present,
    recall_table,
    reference_table,
    score_matrix,
    summary_table,
)
from coda.benchmark.scoring import ECE, UNSEEN
from coda.benchmark.setting import Setting
from coda.benchmark.systems import SYSTEMS, lay_out, score_table, summarise
from coda.errors import ConfigError, Problem, raise_if_any

LEVELS = (
    ("image", "accuracy", "Accuracy over images (%)", "The paper's number: one prediction a field of view."),
    ("image", "macro_f1", "Macro F1 over images (%)", "Mean F1 over classes."),
    ("well", "accuracy", "Accuracy over wells (%)", "A well's probability is the mean over its fields."),
    ("compound", "accuracy", "Accuracy over compounds (%)", "The mean over a compound's wells in one batch."),
)  # fmt: skip

BEYOND_ACCURACY = (
    ("well", ECE, "Calibration error over wells (%)",
     "Expected calibration error, 15 bins: how far probabilities are from the share that is right. Less is better."),
    (FEATURES, "nsc", "Nearest neighbour of another compound has the same mechanism (%)",
     "NSC, of a treatment's mean profile in a batch, by what the head reads; chance is about one in the mechanisms."),
    (FEATURES, "nscb", "Nearest neighbour of another compound and batch has the same mechanism (%)",
     "NSCB: the same, with neighbours of the same batch left out."),
    (FEATURES, "replicate_map", "Retrieval of replicates across batches (%)",
     "Mean average precision of a treatment's wells, 0 is chance (copairs)."),
    (FEATURES, "retrieved", "Treatments that are retrieved (%)",
     "Share whose mean average precision is above chance, at a false discovery rate of 5 % (1,000 permutations)."),
)  # fmt: skip

NEW = (
    ("image", "accuracy", "Accuracy over images of compounds that no head has seen (%)",
     "Not-same-compound: their mechanism is known to the head, they themselves are not."),
    ("well", "accuracy", "Accuracy over wells of compounds that no head has seen (%)", "The same, over wells."),
    ("compound", "accuracy", "Accuracy over compounds that no head has seen (%)", "The same, over compounds."),
)  # fmt: skip

BEYOND = (
    "Rows with CORAL or standardised tokens are not the paper's: tokens are aligned by nothing but their statistics in "
    "each batch of the target, without labels and without training ('standardised' has a head of its own, trained on "
    "such tokens). Nor is the classical profile: features measured without a network, standardised by batch (by all "
    "wells or by negative controls; with sphering, whitened by what the negative controls vary in; or harmonised by "
    "ComBat) and a logistic regression. What adaptation adds has to be measured against them."
)

ALL = tuple(SYSTEMS)


@dataclass(frozen=True)
class Result:
    """What a table leaves.

    Attributes:
        scores: Every score.
        page: The report.
        outcomes: Every job, failed ones among them.
    """

    scores: pd.DataFrame
    page: Path
    outcomes: list[Outcome]


def run_table(
    setting: Setting,
    systems: Sequence[str],
    out: Path,
    *,
    processes: int,
    report: EventCallback | None = None,
    unseen: float = 0.0,
) -> tuple[list[Outcome], pd.DataFrame]:
    """Do the jobs of some systems; return their outcomes and scores."""
    jobs: list[Job] = lay_out(
        systems, setting.data, setting.sources, setting.targets, setting.params, setting.root, unseen
    )
    outcomes = attempt_jobs(jobs, work, setting.root, processes=processes, report=report)
    out.mkdir(parents=True, exist_ok=True)
    return outcomes, score_table(outcomes)


def table2(
    setting: Setting,
    out: Path,
    *,
    processes: int = 1,
    report: EventCallback | None = None,
    unseen: float = 0.0,
    systems: Sequence[str] = ALL,
) -> Result:
    """Train and evaluate the eight systems and the classical profile, and write the table.

    Args:
        setting: Data, seeds, sources, targets and parameters.
        out: Folder of the report.
        processes: Jobs at the same time.
        report: Told about every job.
        unseen: Share of each mechanism's compounds that are kept from every head; they have tables of their own.
        systems: Those of the table, if not all.

    Raises:
        ConfigError: There is no system of that name.
    """
    _require_known(systems)
    outcomes, scores = run_table(setting, systems, out, processes=processes, report=report, unseen=unseen)
    summary = summarise(scores)
    tables, pictures = by_source(
        scores, setting, systems, "table2", ways=tuple(WAY_WORDS),
        alt="Accuracy of the systems trained on {}, in-domain and on each target.",
        caption="Bars are means, dots are seeds, the dashed line is chance.",
    )  # fmt: skip
    for source in setting.sources:
        own = summary[summary["source"] == source]
        rows = present(own, systems, tuple(WAY_WORDS))
        tables += [*gains_by_seed(scores, source, rows, setting.targets), recall_table(own, source, rows)]
    tables += [ordering_table(scores, TABLE_2), ratio_table(scores)]
    tables += references(setting.sources)
    tables += [summary_table(summary, "table2_summary", "All means"), long_table(scores, "table2_scores", "All scores")]
    page = write_report(
        out, "Table 2: systems across sources", tables, pictures, notes(setting, outcomes),
        facts=setting.facts(outcomes), lead=setting.lead("Systems of the paper and the classical profile"),
    )  # fmt: skip
    return Result(scores, page, outcomes)


def _require_known(systems: Sequence[str]) -> None:
    remedy = f"Write for example --system '{next(reversed(SYSTEMS))}'."
    raise_if_any(
        ConfigError,
        "The table cannot be made.",
        [
            Problem("--system", repr(name), f"one of {', '.join(SYSTEMS)}", remedy)
            for name in systems
            if name not in SYSTEMS
        ],
    )


def by_source(
    scores: pd.DataFrame,
    setting: Setting,
    systems: Sequence[str],
    name: str,
    *,
    alt: str,
    caption: str,
    ways: Sequence[str] = ("none",),
) -> tuple[list[ReportTable], list[ReportPicture]]:
    """Return the tables and the picture of every source that was trained on and has scores.

    Args:
        scores: From `coda.benchmark.systems.score_table`.
        setting: Sources, targets and chance.
        systems: Rows and bars, in order.
        name: Begins the names of the files.
        alt: What a picture shows; ``{}`` stands for the source.
        caption: Below each picture.
        ways: Alignments that have rows; bars are drawn without any.
    """
    summary = summarise(scores)
    tables: list[ReportTable] = []
    pictures: list[ReportPicture] = []
    for source in setting.sources:
        own = summary[summary["source"] == source]
        if own.empty:
            continue
        tables += matrices(own, source, setting, present(own, systems, ways), name)
        figure = bars(scores, source, setting.targets, systems, chance=setting.chance)
        pictures.append(ReportPicture(f"{name}_{source}", f"Trained on {source}", figure, alt.format(source), caption))
    return tables, pictures


def matrices(
    summary: pd.DataFrame,
    source: str,
    setting: Setting,
    rows: Sequence[tuple[str, str]],
    name: str,
    *,
    in_domain: bool = True,
) -> list[ReportTable]:
    """Return the tables of one source: accuracy and F1 over images, accuracy over wells and compounds.

    Where compounds were kept from the heads, accuracy on them follows.
    """
    new = [(level + UNSEEN, metric, title, what) for level, metric, title, what in NEW]
    new = new if (summary["level"] == new[0][0]).any() else []
    scored = set(zip(summary["level"], summary["metric"], strict=True))
    beyond = [row for row in BEYOND_ACCURACY if row[:2] in scored]
    return [
        score_matrix(
            summary, source, setting.targets, rows,
            name=f"{name}_{source}_{level.replace(UNSEEN, '_unseen')}_{metric}",
            title=f"{title}, trained on {source}", level=level,
            metric=metric, caption=f"{what} {setting.caption}" + (f" {BEYOND}" if level == "image" else ""),
            in_domain=in_domain,
        )
        for level, metric, title, what in (*LEVELS, *new, *beyond)
    ]  # fmt: skip


def references(sources: Iterable[str]) -> list[ReportTable]:
    """Return the paper's table for S3, the source with the most plates, where none of ours is beside the paper's."""
    if any(source in SHORT or source in SHORT.values() for source in sources):
        return []
    title = "For reference: the paper's table 2, trained on S3 (JUMP plates)"
    return [reference_table(table_2(), "paper_table2_S3", title, "source_3")]


def notes(setting: Setting, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the paragraphs that say what the numbers can and cannot carry."""
    said = list(setting.notes)
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed:
        names = "; ".join(f"{outcome.job.name} ({outcome.cause})" for outcome in failed)
        said.insert(0, f"Not complete: {len(failed)} jobs failed and their numbers are missing: {names}.")
    alarmed = [
        f"{o.job.name}: {', '.join(o.result['alarms'])}" for o in outcomes if o.result and o.result.get("alarms")
    ]
    if alarmed:
        said.append("Alarms while training: " + "; ".join(alarmed) + ".")
    return said


def as_json(result: Result, setting: Setting) -> dict[str, Any]:
    """Return everything for programs."""
    return {
        "setting": setting.described(), "scores": result.scores, "summary": summarise(result.scores),
        "failed": [{"job": o.job.name, "cause": o.cause} for o in result.outcomes if o.result is None],
        "seconds": sum(outcome.seconds for outcome in result.outcomes),
    }  # fmt: skip
