"""The eight systems of the paper and the classical profile, laid out as jobs, and their scores as one table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coda.benchmark.adapting import Adapting, Method
from coda.benchmark.jobs import Job, Outcome
from coda.benchmark.source_models import SourceModel, Training
from coda.benchmark.specs import DataSpec
from coda.config.params import Params

SYSTEMS: dict[str, tuple[SourceModel, Method]] = {
    "Supervised": ("supervised", "unadapted"),
    "Dual-model-DINO": ("dino", "unadapted"),
    "Dual-model-CB": ("cb", "unadapted"),
    "TTT": ("mae", "ttt"),
    "ODA": ("dino", "adapted"),
    "CODA": ("cb", "adapted"),
    "Dual-model-MAE": ("mae", "unadapted"),
    "ODA-MAE": ("mae", "adapted"),
    "Classical profile": ("classical", "unadapted"),
}
"""System of the paper, and the classical profile -> what is trained on the source, and what is done on the target; in
the order of Table 2."""

GROUP = ["source", "target", "system", "alignment", "level", "metric"]


def lay_out(
    systems: Sequence[str],
    data: Mapping[int, DataSpec],
    sources: Sequence[str],
    targets: Sequence[str],
    params: Params,
    root: Path,
    unseen: float = 0.0,
) -> list[Job]:
    """Return the jobs of these systems: each source model once, then each system on each target.

    Args:
        systems: Names among `SYSTEMS`.
        data: Seed -> data; simulated data differ from seed to seed, real ones do not.
        sources: Sources that models are trained on.
        targets: Sources that they are applied to; a source is never its own target.
        params: Parameters of training and adaptation.
        root: Folder of the benchmark.
        unseen: Share of each mechanism's compounds that no head learns from.
    """
    trainings: dict[str, Job] = {}
    applied: list[Job] = []
    for seed, spec in data.items():
        for source in sources:
            for name in systems:
                model, method = SYSTEMS[name]
                training = Training(spec, source, model, params, seed, root, unseen)
                job = training.job()
                trainings.setdefault(job.digest, job)
                applied += [Adapting(training, target, method, params).job() for target in targets if target != source]
    # long ones first: two processes then end at about the same time
    return [*trainings.values(), *sorted(applied, key=lambda job: job.task.method != "ttt")]


def score_table(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return one row for each score: seed, source, target, system, alignment, level, metric, value, n.

    ``target`` is the source itself for in-domain scores (held-out batch). Jobs without a result are left out.
    """
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.result is None:
            continue
        task = outcome.job.task
        training = task if isinstance(task, Training) else task.trained
        shared = {"seed": training.seed, "source": training.source, "system": task.system}
        rows += [{**shared, **row} for row in outcome.result["scores"]]
    return pd.DataFrame(rows, columns=["seed", *GROUP, "value", "n"])


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean and sample standard deviation (n - 1) over seeds, from values that were never rounded.

    Returns:
        One row for each source, target, system, alignment, level and metric: ``mean``, ``sd`` (NaN with one seed),
        ``seeds`` (their number).
    """
    found = scores.groupby(GROUP, sort=False)["value"].agg(mean="mean", sd="std", seeds="size")
    return found.reset_index()


def paired(scores: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> pd.Series:
    """Return first minus second of two (system, alignment), image-level accuracy, for each seed, source and target.

    Pairs with the same seed and target share data and start, so their difference is far tighter than either score.
    """
    chosen = scores[(scores["level"] == "image") & (scores["metric"] == "accuracy")]
    chosen = chosen[chosen["source"] != chosen["target"]]
    keyed = [
        chosen[(chosen["system"] == system) & (chosen["alignment"] == alignment)].set_index(
            ["seed", "source", "target"]
        )["value"]
        for system, alignment in (first, second)
    ]
    difference: pd.Series = (keyed[0] - keyed[1]).dropna()
    return difference
