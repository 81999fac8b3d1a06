"""One batch folder: read it, judge it, keep the verdict, and leave only accepted plates in its index."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coda.config.params import Quality
from coda.contracts.fields import METADATA_COLUMNS
from coda.contracts.fingerprints import StainFingerprints
from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.contracts.quality import QualityReport
from coda.errors import ContractError, Problem
from coda.plates.index import INGESTED_NAME, WELL_COLUMNS, index_table, write_parquet
from coda.plates.stored_tables import read_stored
from coda.quality.earlier_plates import count_plates, history_table, plates_of_instrument
from coda.quality.expectations import run_suite
from coda.quality.expected_tables import BatchData, batch_table, plate_table, problem_table, stain_table
from coda.quality.fingerprints import fingerprints_of
from coda.quality.plate_figures import kept_figures
from coda.quality.red_flags import RedFlags
from coda.quality.suite import load_suite
from coda.quality.verdict import findings_of, report_of

INDEX = "index.parquet"
INGESTED = INGESTED_NAME

WELLS = "wells.parquet"
REPORT = "quality.json"
DOCS = "data_docs"


def batch_folders(dataset: Path) -> list[Path]:
    """Return the batch folders ``<dataset>/<source>/<batch>`` in the order of their names."""
    return sorted(path.parent for path in dataset.glob(f"*/*/{MANIFEST_NAME}"))


def accepted_indexes(dataset: Path | None, source: str, besides: Sequence[str] = ()) -> list[pd.DataFrame]:
    """Return the field indexes of a source's batches that no validation refused, without those named in `besides`.

    Args:
        dataset: Dataset folder; none or an empty one has no batches.
        source: Laboratory.
        besides: Names of batches to leave out.
    """
    if dataset is None:
        return []
    indexes = []
    for folder in sorted(path.parent for path in dataset.glob(f"{source}/*/{INDEX}")):
        report = read_report(folder)
        if folder.name not in besides and not (report is not None and report.refused):
            index = read_stored(folder / INDEX)
            indexes += [index] if len(index) else []
    return indexes


def read_report(folder: Path) -> QualityReport | None:
    """Return the verdict on a batch folder, or None when it was not validated yet."""
    path = folder / REPORT
    return QualityReport.read(path) if path.is_file() else None


def validate_batch(
    folder: Path,
    quality: Quality,
    *,
    history: Sequence[pd.DataFrame],
    others: Sequence[pd.DataFrame],
    docs: Path,
    red_flags: RedFlags | None = None,
    stains: StainFingerprints | None = None,
) -> QualityReport:
    """Judge one batch and act on it: ``quality.json``, Data Docs, and an index of accepted plates only.

    The original index stays as `INGESTED`, and the verdict is always on that one, so that a repetition finds the same.

    Args:
        folder: Batch folder, as ingest wrote it.
        quality: Quorums and limits.
        history: Field indexes of earlier accepted batches of the same source, for the comparison of statistics.
        others: Field indexes of other batches of the same source, for pairs of treatments.
        docs: Folder of the Data Docs.
        red_flags: The operator's list of plates with known faults, as `quality.red_flags` names it.
        stains: What the stains of the plates look like that the model was trained on.

    Raises:
        ContractError: The folder holds no complete ingest.
        ConfigError: The suite cannot be used.
    """
    data = replace(read_batch(folder, others), red_flags=red_flags)
    suite = load_suite(quality.suite)
    past = plates_of_instrument(history, data.manifest.instrument.name)
    data = replace(data, **_known_stains(past, stains, data, quality))
    plates = plate_table(data)
    tables = {
        "fields": data.index,
        "wells": data.wells,
        "plates": plates,
        "stains": stain_table(data),
        "batch": batch_table(data, count_plates(past)),
        "problems": problem_table(data.ingest),
        "history": history_table(data.usable, past, data.channels, suite.history, quality.min_history_plates),
    }
    parameters: dict[str, float] = quality.model_dump(exclude={"suite", "red_flags"})
    outcomes = run_suite(
        suite, tables, parameters,
        docs=docs, run_name=data.manifest.batch_id.replace("/", "-"), run_time=data.manifest.created_at,
    )  # fmt: skip
    findings = findings_of(outcomes, parameters)
    figures = [kept_figures(row) for row in plates[plates["in_manifest"]].to_dict("records")]
    report = report_of(data, suite, findings, figures, quality.batch_quorum, earlier=read_report(folder))
    report.write(folder / REPORT)
    _keep_accepted(folder, data.index, report)
    return report


def _known_stains(
    past: pd.DataFrame, trained: StainFingerprints | None, data: BatchData, quality: Quality
) -> dict[str, Any]:
    """Return what the batch's stains are compared with: plates of the same microscope, else those of the model."""
    count = count_plates(past)
    own = fingerprints_of([past]) if count >= quality.min_history_plates else None
    if own is not None:
        where = f"{count} earlier plates of {data.manifest.source} on the microscope {data.manifest.instrument.name}"
        return {"stains": own, "stains_of": where}
    if trained is not None:
        return {"stains": trained, "stains_of": f"the {trained.plates} plate(s) that the model was trained on"}
    return {"stains": None, "stains_of": "nothing to compare with"}


def read_batch(folder: Path, others: Sequence[pd.DataFrame] = ()) -> BatchData:
    """Read a batch folder as ingest left it, whatever an earlier validation took out of the index.

    Raises:
        ContractError: Files are missing; all of them together.
    """
    absent = [name for name in (MANIFEST_NAME, "ingest.json") if not (folder / name).is_file()]
    if absent:
        problems = [
            Problem(str(folder / name), "no such file", "what ingest writes into a batch folder", "Run ingest first.")
            for name in absent
        ]
        raise ContractError(f"{folder} holds no finished ingest.", problems)
    wells = read_stored(folder / WELLS) if (folder / WELLS).is_file() else None
    ingest = IngestReport.read(folder / "ingest.json")
    return BatchData(
        manifest=BatchManifest.read(folder / MANIFEST_NAME),
        ingest=ingest,
        index=_ingested_index(folder, ingest),
        wells=_no_wells() if wells is None else wells,
        others=others,
    )


def _no_wells() -> pd.DataFrame:
    return pd.DataFrame({METADATA_COLUMNS[name]: pd.Series(dtype="str") for name in WELL_COLUMNS})


def _ingested_index(folder: Path, ingest: IngestReport) -> pd.DataFrame:
    """Return the index that ingest wrote: the kept original, unless another ingest has run since it was kept."""
    kept = folder / INGESTED
    report = read_report(folder)
    if kept.is_file() and report is not None and report.ingest_digest == ingest.digest():
        return read_stored(kept)
    kept.unlink(missing_ok=True)
    path = folder / INDEX
    return read_stored(path) if path.is_file() else index_table([])


def _keep_accepted(folder: Path, ingested: pd.DataFrame, report: QualityReport) -> None:
    if "Metadata_Plate" in ingested:
        accepted = ingested["Metadata_Plate"].isin(report.plates_accepted).to_numpy(dtype=bool)
    else:
        accepted = np.zeros(len(ingested), dtype=bool)
    if not accepted.all() or (folder / INGESTED).is_file():
        write_parquet(ingested, folder / INGESTED)
        write_parquet(ingested[accepted], folder / INDEX)
