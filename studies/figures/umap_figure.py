"""Figure 5 of the paper: class tokens on a plane, before and after adaptation, coloured by mechanism and by batch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from coda.benchmark.adapting import Adapting, work
from coda.benchmark.benchmark_figures import clouds
from coda.benchmark.benchmark_report import ReportPicture, ReportTable, write_report
from coda.benchmark.jobs import EventCallback, Job, Outcome, attempt_jobs
from coda.benchmark.scoring import mechanisms
from coda.benchmark.setting import Setting
from coda.benchmark.source_models import MODEL_NAMES, SourceModel, Training, frozen_heads
from coda.benchmark.specs import loaded
from coda.benchmark.table2 import notes
from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.extractor import Extractor, load_extractor
from coda.networks.head import Head
from coda.plates.fieldset import FieldSet
from coda.training.randomness import generator
from coda.training.tokens import token_batches

Whose = Literal["extractor", "head"]
"""Whose class token: the extractor's, or the frozen head's after its blocks and norm."""

SOURCE_MODELS: tuple[SourceModel, ...] = ("dino", "cb")
COLUMNS = ("source", "before", "after")
MAX_FIELDS = 4000
"""Fields of a panel at most; a random sample of more."""

Projection = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Projecting:
    """Projects class tokens of a source model: its own source, and a target before and after adaptation.

    Attributes:
        adapting: The adaptation.
        whose: Whose class token.
    """

    adapting: Adapting
    whose: Whose

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.adapting.root

    def job(self) -> Job:
        """Return the job."""
        trained = self.adapting.trained
        key = {"kind": "umap", "whose": self.whose, "fields": MAX_FIELDS}
        name = f"seed {trained.seed}: projection, {self.adapting.system}, {trained.source} to {self.adapting.target}"
        return Job(name, key, self, after=(trained.job(), self.adapting.job()))

    def do(self, folder: Path) -> dict[str, Any]:
        """Write the coordinates of the three panels below `folder`."""
        project = umap_projection()
        trained = self.adapting.trained
        data = loaded(trained.data)
        source = trained.job().folder(self.root)
        frozen = frozen_heads(source)["none"].head if self.whose == "head" else None
        head = frozen if isinstance(frozen, Head) else None
        panels = (
            ("source", trained.source, source),
            ("before", self.adapting.target, source),
            ("after", self.adapting.target, self.adapting.job().folder(self.root)),
        )
        tables = []
        for name, shown, place in panels:
            fields = sampled(data.of(shown))
            features = class_tokens(load_extractor(place / "extractor"), fields, trained.params, head)
            coordinates = project(features)
            table = fields.table[["image_id", "Metadata_Source", "Metadata_Batch", "Metadata_Plate"]].copy()
            tables.append(
                table.assign(
                    panel=name,
                    x=coordinates[:, 0],
                    y=coordinates[:, 1],
                    mechanism=mechanisms(fields.table, data.labels),
                )
            )
        folder.mkdir(parents=True, exist_ok=True)
        pd.concat(tables, ignore_index=True).to_parquet(folder / "coordinates.parquet", index=False)
        return {"points": sum(len(table) for table in tables)}


def umap_projection() -> Projection:
    """Return UMAP with its defaults (15 neighbours, least distance 0.1, euclidean), 2 dimensions and seed 0.

    Raises:
        ConfigError: umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():
            # umap looks for tensorflow, which only its parametric variant needs, and numba compiles old idioms
            warnings.filterwarnings("ignore", category=ImportWarning)
            warnings.filterwarnings("ignore", module=r"(umap|numba|pynndescent)\b")
            import umap as learn
    except ImportError as error:
        remedy = "Install it: pip install -c constraints.txt 'coda-pipeline[benchmark]' (or umap-learn)."
        problem = Problem("umap-learn", f"not installed ({error})", "the package umap-learn", remedy)
        raise ConfigError("This figure needs UMAP.", [problem]) from error

    def project(features: NDArray[np.float32]) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            # a seed costs the parallel search, which umap says on every call
            warnings.filterwarnings("ignore", message="n_jobs value .* overridden", category=UserWarning)
            warnings.filterwarnings(
                "ignore", message="n_neighbors is larger than the dataset size", category=UserWarning
            )
            warnings.filterwarnings("ignore", module=r"(umap|numba|pynndescent)\b")
            found = learn.UMAP(n_components=2, random_state=0).fit_transform(features)
        return np.asarray(found, dtype=np.float64)

    return project


def sampled(fields: FieldSet) -> FieldSet:
    """Return the fields that hold a treatment, a random sample of them when there are many, in their order."""
    rows = np.flatnonzero(fields.table["Metadata_pert_type"].isin(["trt", "poscon"]))
    if len(rows) > MAX_FIELDS:
        chosen = torch.randperm(len(rows), generator=generator(0, "umap fields", 0))[:MAX_FIELDS]
        rows = np.sort(rows[chosen.numpy()])
    return fields.take(rows)


@torch.inference_mode()
def class_tokens(
    extractor: Extractor, fields: FieldSet, params: Params, head: Head | None = None
) -> NDArray[np.float32]:
    """Return the class token of every field's centre crop, shape (fields, width).

    Args:
        extractor: Any.
        fields: Images with the extractor's stains.
        params: Crops and compute.
        head: Frozen head on raw tokens; its class token, after its blocks and norm, is taken instead.
    """
    one_crop = params.model_copy(update={"crops": params.crops.model_copy(update={"eval_grid": 1})})
    parts = []
    for tokens in token_batches(extractor, fields, one_crop):
        flat = tokens[:, 0]
        if head is not None:
            flat = head.norm(head.blocks(head.projector(flat)))
        parts.append(flat[:, 0].float().cpu().numpy())
    return np.concatenate(parts)


class UmapResult(NamedTuple):
    """What the figure leaves."""

    coordinates: pd.DataFrame
    page: Path
    outcomes: list[Outcome]


def umap(
    setting: Setting, out: Path, *, whose: Whose = "extractor", processes: int = 1, report: EventCallback | None = None
) -> UmapResult:
    """Project class tokens for every seed, source and target and write the figures.

    Args:
        setting: Data, seeds, sources, targets and parameters.
        out: Folder of the report.
        whose: Whose class token.
        processes: Jobs at the same time.
        report: Called with every event of a job.

    Raises:
        ConfigError: umap-learn is not installed.
    """
    umap_projection()
    tasks = [
        Projecting(
            Adapting(
                Training(spec, source, model, setting.params, seed, setting.root),
                target,
                "adapted",
                setting.params,
            ),
            whose,
        )
        for seed, spec in setting.data.items()
        for source in setting.sources
        for target in setting.targets
        if source != target
        for model in SOURCE_MODELS
    ]
    jobs = {job.digest: job for task in tasks for job in (*task.job().after, task.job())}
    outcomes = attempt_jobs(list(jobs.values()), work, setting.root, processes=processes, report=report)
    tables = [
        _coordinates(outcome) for outcome in outcomes if outcome.result and isinstance(outcome.job.task, Projecting)
    ]
    values = (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["seed", "source", "target", "model"])
    )
    pictures = [
        _picture(
            own, coloured, f"seed {seed}, {source} to {target}", f"umap_{seed}_{source}_{target}_{coloured.lower()}"
        )
        for (seed, source, target), own in values.groupby(["seed", "source", "target"], sort=False)
        for coloured in ("mechanism", "Metadata_Batch")
    ]
    counted = values.groupby(["seed", "source", "target", "model"], sort=False).size().rename("points").reset_index()
    caption = (
        f"UMAP of the {whose}'s class token of one centre crop a field, each panel by itself with seed 0: distances "
        "within a panel carry meaning, places and turns do not, and nothing may be read from one panel's place to "
        "another's. Mechanisms colour the points and took no part in placing them."
    )
    page = write_report(
        out, "Figure 5: class tokens before and after adaptation",
        [ReportTable("umap_coordinates", "Points", values, counted, "All coordinates are in the CSV.")], pictures,
        [caption, *notes(setting, outcomes)], facts=setting.facts(outcomes), lead=setting.lead("DINO and CB models"),
    )  # fmt: skip
    return UmapResult(values, page, outcomes)


def _coordinates(outcome: Outcome) -> pd.DataFrame:
    task: Projecting = outcome.job.task
    table = pd.read_parquet(outcome.job.folder(task.root) / "coordinates.parquet")
    trained = task.adapting.trained
    return table.assign(seed=trained.seed, source=trained.source, target=task.adapting.target, model=str(trained.model))


def _picture(values: pd.DataFrame, coloured: str, where: str, name: str) -> ReportPicture:
    titles = {"source": "source", "before": "target, before", "after": "target, after"}
    panels = []
    for model in SOURCE_MODELS:
        own = values[values["model"] == model]
        row = []
        for column in COLUMNS:
            chosen = own[own["panel"] == column]
            told = chosen[coloured].astype(str).tolist()
            row.append((f"{MODEL_NAMES[model]}: {titles[column]}", chosen[["x", "y"]].to_numpy(float), told))
        panels.append(row)
    words = "mechanism" if coloured == "mechanism" else "batch"
    figure = clouds(panels, legend=words)
    return ReportPicture(name, f"{where}, coloured by {words}", figure, f"Six scatter plots of class tokens, {where}.")


def as_json(result: UmapResult, setting: Setting) -> dict[str, Any]:
    """Return everything for programs."""
    return {"setting": setting.described(), "coordinates": result.coordinates}
