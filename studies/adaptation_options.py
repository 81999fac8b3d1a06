"""What each option of adaptation is worth: every switch beside no adaptation and the paper's method, one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coda.benchmark.adapting import Adapting, Method, work
from coda.benchmark.benchmark_report import ReportTable, write_report
from coda.benchmark.jobs import EventCallback, Job, attempt_jobs
from coda.benchmark.score_tables import format_mean_sd, long_table
from coda.benchmark.setting import Setting
from coda.benchmark.source_models import SourceModel, Training
from coda.benchmark.systems import paired, score_table, summarise
from coda.benchmark.table2 import Result, notes
from coda.config.load import changed
from coda.contracts.recipe import Alignment

BASELINE = "no adaptation"
WAYS = {"none": "raw tokens", "coral": "CORAL", "standardise": "standardised tokens"}


@dataclass(frozen=True)
class Option:
    """One way of adapting.

    Attributes:
        group: Heading that it belongs to.
        label: Its name in the table.
        changes: Dotted path -> value, on top of the parameters.
        model: Source model that it starts from.
        method: 'adapted', or 'unadapted' for options of the alignment alone.
        raw: What is done to the tokens before the head on raw tokens.
    """

    group: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: SourceModel = "cb"
    method: Method = "adapted"
    raw: Alignment = "none"


def options(iterations: int, learning_rate: float, blocks: int) -> list[Option]:
    """Return every option that is measured.

    Args:
        iterations: Of the adaptation as the parameters have it; short and long runs are shares and multiples of it.
        learning_rate: Of the adaptation as the parameters have it.
        blocks: Blocks that `first_blocks` and `last_blocks` train.
    """
    faster = {"adaptation.budget.learning_rate": 4 * learning_rate}
    longer = {"adaptation.budget.iterations": 4 * iterations}
    every = max(1, iterations // 4)
    look = {**longer, "adaptation.stopping.every": every, "adaptation.stopping.patience": 4}
    some = {"adaptation.trainable_blocks": blocks}
    return [
        Option("Starting points", BASELINE, method="unadapted"),
        Option("Starting points", "CODA"),
        Option("Starting points", "ODA", model="dino"),
        Option("Starting points", "ODA's model, no adaptation", model="dino", method="unadapted"),
        Option("Statistics of the alignment", "no adaptation, DMSO wells", {"alignment.wells": "negcon"},
               method="unadapted"),
        Option("Statistics of the alignment", "no adaptation, by plate", {"alignment.by": "plate"},
               method="unadapted"),
        Option("Statistics of the alignment", "CODA, DMSO wells", {"alignment.wells": "negcon"}),
        Option("Statistics of the alignment", "CODA, by plate", {"alignment.by": "plate"}),
        Option("Statistics of the alignment", "no adaptation, rescaled to the source", method="unadapted",
               raw="rescale"),
        Option("Statistics of the alignment", "CODA, rescaled to the source", raw="rescale"),
        Option("DINO head", "learns (paper)", {"adaptation.dino_head": "trained"}),
        Option("DINO head", "prototypes frozen", {"adaptation.dino_head": "prototypes_frozen"}),
        Option("DINO head", "frozen", {"adaptation.dino_head": "frozen"}),
        Option("DINO head", "centre forgotten", {"adaptation.carry_centre": False}),
        Option("What learns", "first blocks", {"adaptation.trainable": "first_blocks", **some}),
        Option("What learns", "last blocks", {"adaptation.trainable": "last_blocks", **some}),
        Option("What learns", "norms, 4 x rate", {"adaptation.trainable": "norms", **faster}),
        Option("What learns", "low rank, 4 x rate", {"adaptation.trainable": "low_rank", **faster}),
        Option("Source anchor", "weights 0.1", {"adaptation.anchor.weights": 0.1}),
        Option("Source anchor", "weights 1", {"adaptation.anchor.weights": 1.0}),
        Option("Source anchor", "features 1", {"adaptation.anchor.features": 1.0}),
        Option("Source anchor", "features 10", {"adaptation.anchor.features": 10.0}),
        Option("Diversity (uniform prior)", "raw head, 1",
               {"adaptation.diversity.strength": 1.0, "adaptation.diversity.head": "none"}),
        Option("Diversity (uniform prior)", "standardised head, 1",
               {"adaptation.diversity.strength": 1.0, "adaptation.diversity.head": "standardise"}),
        Option("Small batches", "mini-batches of 16, 3 x iterations",
               {"adaptation.budget.batch_size": 16, "adaptation.budget.iterations": 3 * iterations}),
        Option("Small batches", "teacher temperature 0.02",
               {"adaptation.budget.teacher_temperature": 0.02, "adaptation.budget.teacher_temperature_start": 0.02}),
        Option("Small batches", "teacher momentum 0.99", {"adaptation.budget.ema_start": 0.99}),
        Option("Length and rate", "a quarter of the iterations", {"adaptation.budget.iterations": max(1, every)}),
        Option("Length and rate", "4 x iterations", longer),
        Option("Length and rate", "4 x rate", faster),
        Option("Length and rate", "a quarter of the rate", {"adaptation.budget.learning_rate": learning_rate / 4}),
        Option("Stopping (4 x iterations)", "by evenness, raw tokens",
               {**look, "adaptation.stopping.criterion": "marginal_entropy"}),
        Option("Stopping (4 x iterations)", "by agreement, raw tokens",
               {**look, "adaptation.stopping.criterion": "agreement"}),
        Option("Stopping (4 x iterations)", "by agreement, standardised tokens",
               {**look, "adaptation.stopping.criterion": "agreement", "adaptation.stopping.alignment": "standardise"}),
    ]  # fmt: skip


def run_options(setting: Setting, out: Path, *, processes: int = 1, report: EventCallback | None = None) -> Result:
    """Measure every option on every seed, source and target, and write the table.

    Args:
        setting: Data, seeds, sources, targets and parameters.
        out: Folder of the report.
        processes: Jobs at the same time.
        report: Called with every event of a job.
    """
    chosen = options_of(setting)
    outcomes = attempt_jobs(lay_out(setting, chosen), work, setting.root, processes=processes, report=report)
    out.mkdir(parents=True, exist_ok=True)
    scores = score_table(outcomes)
    tables = [effects(scores, chosen, way, setting) for way in WAYS]
    tables.append(long_table(scores, "options_scores", "All scores"))
    page = write_report(
        out, "Options of adaptation, one at a time", tables, [], [GAINS, *notes(setting, outcomes)],
        facts=setting.facts(outcomes), lead=setting.lead(f"{len(chosen)} ways of adapting"),
    )  # fmt: skip
    return Result(scores, page, outcomes)


GAINS = (
    "Each option changes one thing of the parameters' adaptation, which is the row 'CODA'. Gains are paired: the same "
    "seed, plates and source model with and without adaptation. All three heads and alignments are served by the same "
    "adapted extractor. 'Worse' counts cells that lost more than a percentage point."
)


def options_of(setting: Setting) -> list[Option]:
    """Return the options for the setting's parameters, without those that the parameters have on already."""
    params = setting.params
    budget = params.adaptation.budget
    # a budget in epochs has no number of iterations before the data is known
    iterations = budget.iterations or 100
    depth = params.extractor.overrides.get("depth", 12)
    every = options(iterations, budget.learning_rate, max(1, depth // 3))
    return [option for option in every if not option.changes or changed(params, option.changes) != params]


def lay_out(setting: Setting, chosen: Sequence[Option]) -> list[Job]:
    """Return the jobs: each source model once, then each option on each target."""
    trainings: dict[str, Job] = {}
    applied: list[Job] = []
    for seed, spec in setting.data.items():
        for source in setting.sources:
            for option in chosen:
                training = Training(spec, source, option.model, setting.params, seed, setting.root)
                trainings.setdefault(training.job().digest, training.job())
                params = changed(setting.params, option.changes)
                applied += [
                    Adapting(
                        training, target, option.method, params, f"{option.group}: {option.label}", option.raw
                    ).job()
                    for target in setting.targets
                    if target != source
                ]
    return [*trainings.values(), *applied]


def effects(scores: pd.DataFrame, chosen: Sequence[Option], way: str, setting: Setting) -> ReportTable:
    """Return one table: image accuracy of every option with one treatment of the tokens, and its gain.

    Args:
        scores: From `coda.benchmark.systems.score_table`.
        chosen: The options, in order.
        way: 'none', 'coral' or 'standardise'.
        setting: For the caption.
    """
    summary = summarise(scores)
    usual = summary[(summary["level"] == "image") & (summary["metric"] == "accuracy") & (summary["alignment"] == way)]
    shown: list[dict[str, Any]] = []
    values: list[dict[str, Any]] = []
    breaks, last = list[int](), ""
    for option in chosen:
        name = f"{option.group}: {option.label}"
        own = usual[usual["system"] == name]
        base = BASELINE if option.model == "cb" else "ODA's model, no adaptation"
        gain = 100 * paired(scores, (name, way), (f"Starting points: {base}", way))
        row: dict[str, Any] = {"option": name}
        row |= {target: format_mean_sd(*_of(own, target)) for target in setting.targets}
        compared = option.label != base and len(gain)
        row |= {
            "gain": f"{gain.mean():+.1f}" if compared else "–",
            "smallest to largest": f"{gain.min():+.1f} to {gain.max():+.1f}" if compared else "–",
            "better": f"{int((gain > 0).sum())} of {len(gain)}" if compared else "–",
            "worse": f"{int((gain < -1).sum())} of {len(gain)}" if compared else "–",
        }
        if option.group != last and shown:
            breaks.append(len(shown))
        last = option.group
        shown.append(row)
        values.append(
            {"option": name, "tokens": way, "accuracy": own["mean"].mean(), "gain": gain.mean() / 100,
             "lowest_gain": gain.min() / 100, "cells": len(gain), "better": int((gain > 0).sum())}
        )  # fmt: skip
    caption = f"Accuracy over images (%) and gain in points over the same model without adaptation. {setting.caption}"
    return ReportTable(
        f"options_{way}", f"Served on {WAYS[way]}", pd.DataFrame(values), pd.DataFrame(shown), caption,
        best=_best(usual, chosen, setting.targets), breaks=frozenset(breaks),
    )  # fmt: skip


def _best(rows: pd.DataFrame, chosen: Sequence[Option], targets: Sequence[str]) -> frozenset[tuple[int, int]]:
    """Return the places of the highest mean of each target's column."""
    marked = set()
    for column, target in enumerate(targets, start=1):
        means = [_of(rows[rows["system"] == f"{option.group}: {option.label}"], target)[0] for option in chosen]
        marked |= {(row, column) for row, mean in enumerate(means) if mean == max(means)}
    return frozenset(marked)


def _of(rows: pd.DataFrame, target: str) -> tuple[float, float]:
    found = rows[rows["target"] == target]
    return (float(found["mean"].iloc[0]), float(found["sd"].iloc[0])) if len(found) else (float("nan"), float("nan"))
