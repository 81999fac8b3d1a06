"""Data of a benchmark: labelled fields of several sources, simulated or from ingested plates."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from coda.benchmark.rendering import Progress, render
from coda.benchmark.simulation_plan import SimulationPlan
from coda.benchmark.sources import sources_digest
from coda.config.params import Params
from coda.contracts.base import digest_of_json
from coda.errors import ConfigError, Problem
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.fieldset import FieldSet
from coda.plates.index import write_parquet
from coda.plates.preparation import prepared, record_of, require_prepared
from coda.simulation.design import plan_experiment, write_labels
from coda.training.label_rule import report_beside
from coda.training.labels import LabelList, read_labels

IMAGES, FIELDS, LABELS = "images.npy", "fields.parquet", "labels.csv"


@dataclass(frozen=True)
class Labelled:
    """Fields of several sources and the labels of their compounds.

    Attributes:
        fields: All sources together; `Metadata_Source` tells them apart.
        labels: Compound -> mechanism.
        name: What it is, for people.
        digest: Names the content: equal digests mean equal fields and labels.
    """

    fields: FieldSet
    labels: LabelList
    name: str
    digest: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of the fields."""
        return tuple(dict.fromkeys(self.fields.table["Metadata_Source"].tolist()))

    def of(self, source: str) -> FieldSet:
        """Return the fields of one source.

        Raises:
            ConfigError: There are none.
        """
        rows = (self.fields.table["Metadata_Source"] == source).to_numpy(bool)
        if not rows.any():
            problem = Problem("source", source, f"one of {', '.join(self.sources)}", "Name a source of the data.")
            raise ConfigError("The data have no such source.", [problem])
        return self.fields.take(rows)


def simulated_digest(seed: int, plan: SimulationPlan) -> str:
    """Return the digest that `simulated` gives the data of a seed and plan, without making them."""
    code = sources_digest("coda.benchmark.rendering")
    return digest_of_json([code, seed, plan.model_dump(mode="json", exclude={"ingest": {"workers"}})])


def simulated(
    seed: int,
    plan: SimulationPlan,
    cache: Path,
    *,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """Return simulated plates as ingest would store them, rendered once and kept.

    Args:
        seed: Seed of compounds, layout, batches and everything else.
        plan: Sources, design and processing.
        cache: Folder that data sets are kept in, each under its digest.
        processes: Plates rendered at the same time; one for each core when not given.
        progress: Called after each plate that is rendered.

    Raises:
        ConfigError: The design does not fit on a plate, or wells are to hold what the experiment does not have.
    """
    digest = simulated_digest(seed, plan)
    folder = cache / digest
    if not folder.is_dir():
        experiment = plan_experiment(seed, plan.design)
        images, table = render(experiment, plan, processes=processes or os.cpu_count() or 1, progress=progress)
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".rendering-", dir=cache))
        np.save(draft / IMAGES, images, allow_pickle=False)
        write_parquet(table, draft / FIELDS)
        write_labels(experiment, draft / LABELS)
        try:
            draft.replace(folder)
        except OSError:
            # another process was faster; its data are the same
            shutil.rmtree(draft, ignore_errors=True)
            if not folder.is_dir():
                raise
    pixels = np.load(folder / IMAGES, allow_pickle=False)
    fields = FieldSet(pixels, pd.read_parquet(folder / FIELDS), plan.channels)
    labels = read_labels((folder / LABELS).read_bytes(), f"labels of seed {seed}")
    return Labelled(fields, labels, f"simulated plates, seed {seed}", digest)


def from_datasets(
    folders: Sequence[Path], labels_csv: Path, params: Params, *, sources: Sequence[str] | None = None
) -> Labelled:
    """Return ingested plates and the user's labels.

    Args:
        folders: Dataset folders, as the ingest and validation steps leave them.
        labels_csv: Label table: Metadata_Compound and moa.
        params: `extractor.channels` and `crops.centre`.
        sources: Only these sources; all when not given.

    Raises:
        ConfigError: There is no batch, a source has none, or a batch lacks a stain.
        ContractError: The label table cannot be used.
        IntegrityError: Stored fields are not the ones that were ingested.
    """
    batches = [batch for folder in folders for batch in open_batches(folder)]
    chosen = [batch for batch in batches if sources is None or batch.manifest.source in sources]
    _require_batches(folders, batches, sources)
    labels = read_label_file(labels_csv)
    _require_prepared_alike(chosen)
    fields = load_fields(chosen, params.extractor.channels, params.crops.centre)
    pixels = [batch.accepted[["image_id", "sha256"]].to_numpy(str).tolist() for batch in chosen]
    digest = digest_of_json([pixels, labels.digest, list(params.extractor.channels), params.crops.centre])
    return Labelled(fields, labels, ", ".join(str(folder) for folder in folders), digest)


def read_label_file(path: Path) -> LabelList:
    """Read a label table of this machine; one that `coda labels build` made has its report beside it.

    Raises:
        ConfigError: It is not there.
        ContractError: It cannot be used.
    """
    try:
        return read_labels(path.read_bytes(), str(path), built=Path(report_beside(str(path))).is_file())
    except FileNotFoundError as error:
        problem = Problem(str(path), "no such file", "a CSV with Metadata_Compound and moa", "Check the path.")
        raise ConfigError("The label table is not there.", [problem]) from error


def _require_prepared_alike(batches: Sequence[BatchFolder]) -> None:
    """Refuse plates that were prepared in different ways: a model of one source would be measured on other pixels."""
    plates = prepared(batches)
    first = [plate for plate in plates if Path(plate.where).parent == batches[0].path]
    require_prepared(plates, record_of(first), f"the plates of {batches[0].batch_id}")


def _require_batches(folders: Sequence[Path], batches: Sequence[BatchFolder], sources: Sequence[str] | None) -> None:
    found = sorted({batch.manifest.source for batch in batches})
    remedy = "Ingest plates with `coda step ingest`, or name sources that are there."
    missing = sorted(set(sources or ()) - set(found))
    if not batches or missing:
        where = ", ".join(str(folder) for folder in folders) or "--dataset"
        expected = f"batches of {', '.join(missing)}" if missing else "at least one ingested batch"
        problem = Problem(where, f"batches of {', '.join(found) or 'no source'}", expected, remedy)
        raise ConfigError("The plates of the benchmark are not there.", [problem])
