"""Predict: a batch's field, well and compound tables, with the registered models of one release."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from coda.adaptation.abstain import add_missing_compounds, add_missing_wells, mark_uncertain, withhold
from coda.adaptation.serving import Way, serve
from coda.config.params import Params
from coda.contracts.gate import GateReport
from coda.contracts.release import ReleaseRecord
from coda.errors import ContractError, Problem
from coda.evaluation.levels import TREATED, compound_table, field_table, well_table
from coda.networks.extractor import load_extractor
from coda.networks.runtime import set_threads
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.index import write_parquet
from coda.registry import fetch
from coda.settings import Settings
from coda.steps.source_release import fetch_head
from coda.storage.objects import ObjectStore

TABLES = ("field", "well", "compound")
CSV = "well.csv"
SUMMARY = "predictions.json"

NOT_FIT = "Withheld: the gate found what serves this source not fit for this batch."
"""Reason of every row where the gate refused, or holds a release while nothing fit serves."""


def predict(
    dataset: Path, release: Path, out: Path, *, params: Params, settings: Settings, gate: Path | None = None
) -> dict[str, Any]:
    """Predict every accepted field with the extractor and head that a release binds.

    Both models are fetched from the registry and verified byte by byte. The same batch, release and parameters give
    the same bytes, so a repeated call overwrites equals with equals. Tables go to `out` and below
    ``predictions/<source>/<batch>/<release_id>/`` of the platform bucket; ``predictions.json``, the list of what
    there is, goes last.

    Args:
        dataset: Dataset folder, validated.
        release: ReleaseRecord file.
        out: Folder to write: ``field.parquet``, ``well.parquet``, ``compound.parquet``, ``well.csv`` (for people) and
            ``predictions.json``.
        params: Crops, compute, `adaptation.align_*`, and `predict`.
        settings: Where the registry and the platform bucket are.
        gate: ``gate.json``, when a gate judged. Where it says that what serves is not fit for the batch, no
            prediction is given: every row has that as its reason.

    Returns:
        Release, and for each level the number of rows and of abstentions.

    Raises:
        ContractError: The dataset holds no batch.
        IntegrityError: A model's or field's bytes are not the recorded ones.
        TransientError: A service is away.
    """
    set_threads(params.compute)
    record = ReleaseRecord.read(release)
    batches = open_batches(dataset)
    if not batches:
        problem = Problem(str(dataset), "no ingested batch", "at least one", "Run ingest first.")
        raise ContractError("There is nothing to predict.", [problem])
    tables = _tables(batches, record, params, settings)
    if gate is not None and not GateReport.read(gate).fit_to_predict:
        tables = {name: withhold(table, NOT_FIT) for name, table in tables.items()}
    summary = _write(out, tables, record)
    for batch in batches:
        _upload(out, tables, batch, record, settings)
    return summary


def _tables(
    batches: list[BatchFolder], record: ReleaseRecord, params: Params, settings: Settings
) -> dict[str, pd.DataFrame]:
    with tempfile.TemporaryDirectory(prefix="coda-release-") as work:
        folder = fetch(record.extractor, Path(work) / "extractor", settings=settings)
        extractor = load_extractor(folder, record.extractor.digest)
        frozen = fetch_head(record.head, Path(work) / "head", settings)
    fields = load_fields(batches, extractor.channels, params.crops.centre)
    way = Way(record.method, record.alignment, frozen.head, frozen.source)
    served = serve(extractor, [way], fields, params).ways[way.name]
    least = params.predict.min_top_over_chance
    field = mark_uncertain(
        field_table(fields.table, served.probabilities, frozen.head.classes), min_top_over_chance=least
    )
    well = mark_uncertain(well_table(field), min_top_over_chance=least)
    compound = mark_uncertain(compound_table(well), min_top_over_chance=least)
    plan = pd.concat([batch.wells for batch in batches], ignore_index=True)
    reports = [batch.quality for batch in batches if batch.quality is not None]
    well = add_missing_wells(well, plan, reports)
    made_by = {"release_id": record.release_id}
    return {
        "field": field.assign(**made_by),
        "well": well.assign(**made_by),
        "compound": add_missing_compounds(compound, well).assign(**made_by),
    }


def _write(out: Path, tables: dict[str, pd.DataFrame], record: ReleaseRecord) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        write_parquet(tables[name], out / f"{name}.parquet")
    (out / CSV).write_text(readable(tables["well"]), encoding="utf-8")
    summary = summary_of(tables, record)
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def readable(wells: pd.DataFrame) -> str:
    """Return the treated wells as a small CSV for people: place, compound, answer, probability, reason to abstain."""
    columns = {
        "Metadata_Plate": "plate",
        "Metadata_Well": "well",
        "Metadata_Compound": "compound",
        "predicted": "predicted_mechanism",
        "top_probability": "probability",
        "abstain_reason": "do_not_rely_because",
        "release_id": "release",
    }
    rows = wells[wells["Metadata_pert_type"].isin(TREATED)][list(columns)].rename(columns=columns)
    return rows.to_csv(index=False, float_format="%.3f", lineterminator="\n")


def summary_of(tables: dict[str, pd.DataFrame], record: ReleaseRecord) -> dict[str, Any]:
    """Return what there is: release, models, rows and abstentions of each level."""
    return {
        "release_id": record.release_id,
        "method": record.method,
        "alignment": record.alignment,
        "extractor": record.extractor.model_dump(mode="json"),
        "head": record.head.model_dump(mode="json"),
        "levels": {
            name: {"rows": len(table), "abstained": int((table["abstain_reason"] != "").sum())}
            for name, table in tables.items()
        },
    }


def _upload(
    out: Path, tables: dict[str, pd.DataFrame], batch: BatchFolder, record: ReleaseRecord, settings: Settings
) -> None:
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    prefix = f"predictions/{batch.batch_id}/{record.release_id}"
    with tempfile.TemporaryDirectory(prefix="coda-predictions-") as work:
        own = {
            name: table[
                (table["Metadata_Source"] == batch.manifest.source) & (table["Metadata_Batch"] == batch.manifest.batch)
            ].reset_index(drop=True)
            for name, table in tables.items()
        }
        _write(Path(work), own, record)
        store.upload_folder(Path(work), prefix, last=(SUMMARY,))
