"""What a report is made from: the folders that the steps passed on, read once and without computing anything.

A refused batch has less than an accepted one, and a training run has neither candidates nor a gate, so everything but
the manifest may be absent. What is absent is left out of the page.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from coda.contracts import MANIFEST_NAME, BatchManifest, Check, GateReport, QualityReport, ReleaseRecord
from coda.contracts.changed import WhatChanged
from coda.contracts.documents import document_at
from coda.contracts.ingest import IngestReport
from coda.errors import ContractError, Problem, raise_if_any
from coda.evaluation.predictions.prediction_levels import PREFIX, WELL
from coda.evaluation.predictions.stored_matrix import Rows, stored_matrix
from coda.plates.dataset import BatchFolder

_ANY: TypeAdapter[Any] = TypeAdapter(Any)

FIELD_COLUMNS = frozenset({*WELL, "Metadata_pert_type", "Metadata_Compound"})
"""What the report asks of a field whose features it has: its well, and what was on it."""

EXTRACTORS = {"base": "before", "adapted": "after", "adapted_oda": "oda"}
"""Extractor -> what its features are called: those of a second adapted one are what candidate 'oda' reads."""

DRIFTS = {"frechet_to_source": "to_source_mean", "mmd_controls": "controls_between_groups"}
"""Distance -> its name in the candidates' drift.json (`coda.adaptation.drift`)."""


@dataclass(frozen=True)
class BatchInputs:
    """One batch folder.

    Attributes:
        folder: The folder itself.
        manifest: What the producer delivered.
        quality: Verdict of the validation, when it ran.
        ingest: Account of the ingest, when it ran.
        index: Field index with `Metadata_*` and `QC_*` columns; empty when nothing could be read.
        wells: Plate maps, one row a well; empty when they could not be read.
        seen: Field index as ingest wrote it, with the fields of refused plates; for pictures, never for numbers.
    """

    folder: Path
    manifest: BatchManifest
    quality: QualityReport | None
    ingest: IngestReport | None
    index: pd.DataFrame
    wells: pd.DataFrame
    seen: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def digest(self) -> str:
        """Digest of the manifest: the name of this version of the batch."""
        return self.quality.manifest_digest if self.quality else self.manifest.digest()

    @property
    def refused(self) -> bool:
        """Whether validation refused the batch."""
        return self.quality is not None and self.quality.refused

    @property
    def quality_checks(self) -> tuple[Check, ...]:
        """All checks of the validation, or none when it did not run."""
        return self.quality.checks if self.quality else ()


@dataclass(frozen=True)
class CandidateInputs:
    """What the adaptation left behind.

    Attributes:
        fields: One row a field, in the order of the feature rows; the columns that say where it is and what was on it.
        features: 'before' and 'after' adaptation, and those of candidates that read others -> features, shape (fields,
            width); they stay in their files, which hold a thousand numbers and more for each field of the batch and of
            its archive.
        predictions: Field-level answers of the candidate that others are compared with, 'unadapted'.
        training: Numbers of the adaptation, by name.
        drift: 'before' and 'after' -> distances by name, see `DRIFTS`.
        changed: What tells the batch from earlier ones; None of a folder from before that was asked.
        pictures: Its pairs of typical fields, uint16, shape (pairs, 2, stains, height, width); None without any.
    """

    fields: pd.DataFrame
    features: Mapping[str, Rows]
    predictions: Mapping[str, pd.DataFrame]
    training: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    changed: WhatChanged | None = None
    pictures: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class ReportInputs:
    """Everything one report is about; see the steps that wrote each part."""

    batches: tuple[BatchInputs, ...]
    gate: GateReport | None = None
    release: ReleaseRecord | None = None
    candidates: CandidateInputs | None = None
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        """'adaptation' when a gate judged or the one batch was refused or predicted, else 'training'."""
        adapted = self.gate is not None or self.candidates is not None or bool(self.predictions)
        alone = len(self.batches) == 1 and self.release is None and not self.evaluation
        return "adaptation" if adapted or alone else "training"


class Outputs(TypedDict, total=False):
    """Where the outputs of a run's steps lie; whoever makes a report takes them by these names.

    Attributes:
        candidates: Candidates folder, if the run adapted.
        features: Folder of its features; `candidates` when not given.
        gate: Gate report, if the run judged.
        release: Release record, if there is one.
        predictions: Folder with field, well and compound tables, if the run predicted.
        evaluation: Metrics of a training run as JSON, or their folder.
    """

    candidates: Path | None
    features: Path | None
    gate: Path | None
    release: Path | None
    predictions: Path | None
    evaluation: Path | None


def gather(dataset: Path, **outputs: Unpack[Outputs]) -> ReportInputs:
    """Read the outputs of the steps.

    Args:
        dataset: Dataset folder with at least one batch.
        **outputs: See `Outputs`.

    Raises:
        ContractError: The dataset has no batch, an output that is named does not exist, or a document breaks its
            contract.
    """
    manifests = sorted(dataset.glob(f"*/*/{MANIFEST_NAME}"))
    if not manifests:
        problem = Problem(
            str(dataset), "no batch", f"<source>/<batch>/{MANIFEST_NAME}", "Give the dataset folder that ingest wrote."
        )
        raise ContractError("There is no batch to report on.", [problem])
    given: dict[str, Path] = {name: path for name, path in outputs.items() if isinstance(path, Path)}
    absent = [
        Problem(name, f"nothing at {path}", "the output of that step", "Run the step again, or leave it out.")
        for name, path in given.items()
        if not path.exists()
    ]
    raise_if_any(ContractError, "Outputs that the report is to be made from are missing.", absent)
    candidates, gate, release = (given.get(name) for name in ("candidates", "gate", "release"))
    predictions, evaluation = given.get("predictions"), given.get("evaluation")
    return ReportInputs(
        batches=tuple(_batch(path.parent) for path in manifests),
        gate=GateReport.read(gate) if gate else None,
        release=ReleaseRecord.read(release) if release else None,
        candidates=_candidates(candidates, given.get("features", candidates)) if candidates else None,
        predictions=_tables(predictions) if predictions else {},
        evaluation=_document(evaluation) if evaluation else {},
    )


def _batch(folder: Path) -> BatchInputs:
    quality, ingest = folder / "quality.json", folder / "ingest.json"
    return BatchInputs(
        folder=folder,
        manifest=BatchManifest.read(folder / MANIFEST_NAME),
        quality=QualityReport.read(quality) if quality.is_file() else None,
        ingest=IngestReport.read(ingest) if ingest.is_file() else None,
        index=_table(folder / "index.parquet"),
        wells=_table(folder / "wells.parquet"),
        seen=BatchFolder(folder).ingested
        if ingest.is_file() and (folder / "index.parquet").is_file()
        else _table(folder / "index.parquet"),
    )


def _candidates(folder: Path, kept: Path) -> CandidateInputs | None:
    fields = _table(folder / "fields.parquet", FIELD_COLUMNS.__contains__)
    extractors = [(label, kept / f"features_{name}.npy") for name, label in EXTRACTORS.items()]
    aligned = [(path.parent.name, path) for path in sorted(kept.glob("*/features.npy"))]
    features = {label: stored_matrix(path) for label, path in [*extractors, *aligned] if path.is_file()}
    for label, matrix in features.items():
        if len(matrix) != len(fields):
            problem = Problem(f"features {label}", f"{len(matrix)} rows", f"{len(fields)} rows", "Run adapt again.")
            raise ContractError(f"The candidates in {folder} do not fit together.", [problem])
    answers = folder / "unadapted" / "predictions.parquet"
    tables = {"unadapted": _table(answers, _tells_an_answer)} if answers.is_file() else {}
    changed, pictures = folder / WhatChanged.NAME, kept / WhatChanged.PICTURES
    return CandidateInputs(
        fields, features, tables, _training(folder), _drift(folder),
        WhatChanged.read(changed) if changed.is_file() else None,
        np.load(pictures, allow_pickle=False)["images"] if pictures.is_file() else None,
    )  # fmt: skip


def _training(folder: Path) -> dict[str, float]:
    raw = _document(folder / "training.json")
    return {name: float(value) for name, value in raw.items() if isinstance(value, int | float)}


def _drift(folder: Path) -> dict[str, dict[str, float]]:
    raw = _document(folder / "drift.json")
    found = {}
    for when, extractor in (("before", "base"), ("after", "adapted")):
        numbers = raw.get(extractor)
        numbers = numbers if isinstance(numbers, dict) else {}
        named = {name: numbers.get(key) for name, key in DRIFTS.items()}
        found[when] = {name: float(value) for name, value in named.items() if isinstance(value, int | float)}
    return found


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    names = ("field", "well", "compound")
    return {name: _table(folder / f"{name}.parquet") for name in names if (folder / f"{name}.parquet").is_file()}


def _table(path: Path, needed: Callable[[str], bool] | None = None) -> pd.DataFrame:
    """Return a table, or the columns of it that are needed; an empty one where there is no file."""
    if not path.is_file():
        return pd.DataFrame()
    columns = None if needed is None else [name for name in pq.read_schema(path).names if needed(name)]
    return pd.read_parquet(path, columns=columns)


def _tells_an_answer(column: str) -> bool:
    return column == "image_id" or column.startswith(PREFIX)


def _document(path: Path) -> dict[str, Any]:
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        return {}
    raw = document_at(path, _ANY, expected="JSON of a step of this run", remedy="Run the step that writes it again.")
    return raw if isinstance(raw, dict) else {"metrics": raw}
