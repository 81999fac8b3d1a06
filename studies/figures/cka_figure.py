"""Figure 6 of the paper: which layers adaptation changes, and whether they come to look like a target's own model."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.adapting import Adapting, work
from coda.benchmark.benchmark_figures import heat_maps
from coda.benchmark.benchmark_report import ReportPicture, ReportTable, write_report
from coda.benchmark.jobs import EventCallback, Job, Outcome, attempt_jobs
from coda.benchmark.setting import Setting
from coda.benchmark.source_models import Training
from coda.benchmark.specs import loaded
from coda.benchmark.table2 import notes
from coda.networks.extractor import load_extractor
from studies.figures.layer_cka import LayerCka
from studies.figures.layer_tokens import layer_names, layer_tokens

BATCH = 64
"""Fields of a minibatch; the estimator is consistent for any number."""

MAX_FIELDS = 4096
"""Fields that are compared at most: more change the second decimal at most."""

COMPARISONS = (
    ("before", "after", "before and after"),
    ("before", "target", "before and the target's own"),
    ("after", "target", "after and the target's own"),
)
"""First and second network of each heat map, and what it compares."""

TOKENS = ("all tokens", "class token")


@dataclass(frozen=True)
class Comparing:
    """Compares the layers of Dual-model-CB before and after CODA with those of one trained on the target.

    Attributes:
        adapting: CODA on the target.
        native: Dual-model-CB trained on the target itself.
    """

    adapting: Adapting
    native: Training

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.native.root

    def job(self) -> Job:
        """Return the job."""
        trained = self.adapting.trained
        key = {"kind": "cka", "batch": BATCH, "fields": MAX_FIELDS}
        name = f"seed {trained.seed}: layers, {trained.source} to {self.adapting.target}"
        return Job(name, key, self, after=(trained.job(), self.adapting.job(), self.native.job()))

    def do(self, folder: Path) -> dict[str, Any]:
        """Compare the layers on all fields of the target; nothing but numbers is kept."""
        trained = self.adapting.trained
        fields = loaded(trained.data).of(self.adapting.target)
        networks = {
            name: load_extractor(job.folder(self.root) / "extractor")
            for name, job in (
                ("before", trained.job()), ("after", self.adapting.job()), ("target", self.native.job()),
            )
        }  # fmt: skip
        names = layer_names(networks["before"])
        sums = {(a, b, t): LayerCka(len(names), len(names)) for a, b, _ in COMPARISONS for t in TOKENS}
        batch = min(BATCH, len(fields))
        streams = [
            layer_tokens(network, fields, trained.params, seed=trained.seed, batch=batch)
            for network in networks.values()
        ]
        for found in islice(zip(*streams, strict=True), max(1, MAX_FIELDS // batch)):
            tokens = dict(zip(networks, found, strict=True))
            for (first, second, kind), added in sums.items():
                added.add(_of(tokens[first], kind), _of(tokens[second], kind))
        matrices = {f"{a}/{b}/{t}": added.values().tolist() for (a, b, t), added in sums.items()}
        return {"layers": names, "fields": next(iter(sums.values())).fields, "cka": matrices}


def _of(layers: list[NDArray[np.float32]], kind: str) -> list[NDArray[np.float32]]:
    return layers if kind == TOKENS[0] else [tokens[:, 0] for tokens in layers]


class CkaResult(NamedTuple):
    """What the figure leaves."""

    values: pd.DataFrame
    page: Path
    outcomes: list[Outcome]


def cka(setting: Setting, out: Path, *, processes: int = 1, report: EventCallback | None = None) -> CkaResult:
    """Compare layers for every source and target and write the figure.

    Args:
        setting: Data, seeds, sources, targets and parameters; the targets need batches to train on.
        out: Folder of the report.
        processes: Jobs at the same time.
        report: Called with every event of a job.
    """
    compared = [
        Comparing(
            Adapting(
                Training(spec, source, "cb", setting.params, seed, setting.root), target, "adapted", setting.params
            ),
            Training(spec, target, "cb", setting.params, seed, setting.root),
        )
        for seed, spec in setting.data.items()
        for source in setting.sources
        for target in setting.targets
        if source != target
    ]
    jobs = {job.digest: job for task in compared for job in (*task.job().after, task.job())}
    outcomes = attempt_jobs(list(jobs.values()), work, setting.root, processes=processes, report=report)
    values = value_table(outcomes)
    tables, pictures = [], []
    for (source, target), own in values.groupby(["source", "target"], sort=False):
        pictures.append(_picture(own, str(source), str(target)))
    if len(values):
        tables.append(_diagonals(values))
        tables.append(ReportTable("cka_values", "All values", values, values.head(3), "The first of the CSV's rows."))
    caption = (
        "Linear CKA by the unbiased minibatch estimator: 1 where two layers hold the same geometry up to rotation and "
        "scale, 0 where they are unrelated; slightly negative values are possible. The class token of the patch "
        "embedding is a constant and has no value. 'Before' and 'after' are the source's Dual-model-CB before and "
        "after CODA, 'the target's own' is Dual-model-CB trained on the target. Both networks see the same fields of "
        "the target in the same order."
    )
    page = write_report(
        out, "Figure 6: layers before and after adaptation", tables, pictures, [caption, *notes(setting, outcomes)],
        facts=setting.facts(outcomes), lead=setting.lead("Dual-model-CB and CODA by layer"),
    )  # fmt: skip
    return CkaResult(values, page, outcomes)


def value_table(outcomes: list[Outcome]) -> pd.DataFrame:
    """Return one row for each CKA: seed, source, target, tokens, first, second, their layers, value."""
    rows = [
        {
            "seed": outcome.job.task.native.seed, "source": outcome.job.task.adapting.trained.source,
            "target": outcome.job.task.adapting.target, "tokens": kind, "first": first, "second": second,
            "first_layer": layers[row], "second_layer": layers[column], "cka": value,
        }
        for outcome in outcomes
        if outcome.result is not None and isinstance(outcome.job.task, Comparing)
        for layers in [outcome.result["layers"]]
        for name, matrix in outcome.result["cka"].items()
        for first, second, kind in [name.split("/")]
        for row, line in enumerate(matrix)
        for column, value in enumerate(line)
    ]  # fmt: skip
    columns = ["seed", "source", "target", "tokens", "first", "second", "first_layer", "second_layer", "cka"]
    return pd.DataFrame(rows, columns=columns)


def _picture(values: pd.DataFrame, source: str, target: str) -> ReportPicture:
    layers = list(dict.fromkeys(values["first_layer"]))
    maps = []
    for kind in TOKENS:
        for first, second, words in COMPARISONS:
            chosen = values[(values["tokens"] == kind) & (values["first"] == first) & (values["second"] == second)]
            mean = chosen.pivot_table(index="first_layer", columns="second_layer", values="cka", dropna=False)
            maps.append((f"{kind}:\n{words}", mean.loc[layers, layers].to_numpy(float)))
    figure = heat_maps(maps, layers, columns=len(COMPARISONS), labels=("layer of the first", "layer of the second"))
    alt = f"Six heat maps of CKA between layers, {source} to {target}."
    return ReportPicture(
        f"cka_{source}_{target}",
        f"{source} to {target}",
        figure,
        alt,
        "Means over seeds; the first network is named first.",
    )


def _diagonals(values: pd.DataFrame) -> ReportTable:
    same = values[values["first_layer"] == values["second_layer"]]
    words = {(first, second): told for first, second, told in COMPARISONS}
    same = same.assign(compared=[words[pair] for pair in zip(same["first"], same["second"], strict=True)])
    order = list(dict.fromkeys(same["first_layer"]))
    keys = ["tokens", "compared", "source", "target"]
    mean = same.pivot_table(index=keys, columns="first_layer", values="cka", sort=False, dropna=False)[
        [layer for layer in order if layer in set(same["first_layer"])]
    ].reset_index()
    shown = mean.copy()
    for layer in order:
        shown[layer] = [f"{value:.2f}" if np.isfinite(value) else "–" for value in mean[layer]]
    caption = "CKA of the same layer in both networks (the diagonals of the heat maps), mean over seeds."
    return ReportTable("cka_same_layer", "The same layer in both networks", mean, shown, caption)


def as_json(result: CkaResult, setting: Setting) -> dict[str, Any]:
    """Return everything for programs."""
    return {"setting": setting.described(), "values": result.values}
