"""Predict: a batch's field, well and compound tables, with the registered models of one release."""

import hashlib
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
from coda.durable import give_name
from coda.errors import ContractError, Problem
from coda.evaluation.levels import compound_table, field_table, well_table
from coda.evaluation.sheets import compound_sheet, well_sheet
from coda.networks.extractor import load_extractor
from coda.networks.runtime import set_threads
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.index import write_parquet
from coda.registry import fetch
from coda.settings import Settings
from coda.steps.source_release import fetch_head
from coda.storage.failures import disk_explained
from coda.storage.objects import ObjectStore

TABLES = ("field", "well", "compound")
SUMMARY = "predictions.json"


def predict(
    dataset: Path,
    release: Path,
    out: Path,
    *,
    params: Params,
    settings: Settings,
    gate: Path | None = None,
    publish: bool = True,
) -> dict[str, Any]:
    """Predict every accepted field with the extractor and head that a release binds.

    Both models are fetched from the registry and verified byte by byte. The same batch, release and parameters give
    the same bytes, so a repeated call changes nothing. ``predictions.json`` names the digest of every table and goes
    last: a call that is killed leaves tables without it (or, in the bucket, with one that does not name them).

    Args:
        dataset: Dataset folder, validated.
        release: ReleaseRecord file.
        out: Folder to write to: ``field.parquet``, ``well.parquet``, ``compound.parquet``, ``well.csv`` and
            ``compound.csv`` (for people) and ``predictions.json``.
        params: Crops, compute, `alignment`, and `predict`.
        settings: Where the registry and the platform bucket are.
        gate: ``gate.json``, when a gate judged. Where it says that what serves is not fit for the batch, every answer
            about the batch is withheld, with the gate's sentence.
        publish: Whether the tables also go below ``predictions/<source>/<batch>/<release_id>/`` of the platform
            bucket.

    Returns:
        What ``predictions.json`` says (release, and for each level the number of rows and of abstentions), and
        ``prefixes``: where the tables were published.

    Raises:
        ContractError: The dataset holds no batch.
        IntegrityError: A model's or field's bytes are not the recorded ones.
        TransientError: A service is away.
    """
    set_threads(params.compute)
    record = ReleaseRecord.read(release)
    batches = open_batches(dataset)
    if not batches:
        remedy = "Run ingest first, or give the folder above <source>/<batch>."
        problem = Problem(str(dataset), "no ingested batch", "at least one", remedy)
        raise ContractError("There is nothing to predict.", [problem])
    tables = _tables(batches, record, params, settings)
    decision = GateReport.read(gate) if gate is not None else None
    if decision is not None and not decision.fit_to_predict:
        tables = {name: _withheld(table, decision) for name, table in tables.items()}
    summary = _write(out, tables, record)
    prefixes = [_upload(tables, batch, record, settings) for batch in batches] if publish else []
    return summary | {"prefixes": prefixes}


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


def _withheld(table: pd.DataFrame, decision: GateReport) -> pd.DataFrame:
    """Withhold the answers about the batch that nothing fit serves; batches beside it keep theirs."""
    of_batch = (table["Metadata_Source"] == decision.source) & (table["Metadata_Batch"] == decision.batch)
    told = "The gate refused" if decision.outcome == "refuse" else "Nothing fit serves until a person decides"
    return withhold(table, of_batch, f"{told}: {decision.sentence}")


def _write(out: Path, tables: dict[str, pd.DataFrame], record: ReleaseRecord) -> dict[str, Any]:
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".predictions-", dir=out) as work:
            summary = _fill(Path(work), tables, record)
            _move(Path(work), out)
    return summary


def _move(draft: Path, out: Path) -> None:
    """Bring finished files into a folder that may hold others; equal ones stay untouched, the list goes last."""
    changed = [path for path in sorted(draft.iterdir()) if not _equal(path, out / path.name)]
    if not changed:
        return
    # a list that names other tables than those beside it is never seen, wherever this is broken off
    (out / SUMMARY).unlink(missing_ok=True)
    for path in changed:
        if path.name != SUMMARY:
            give_name(path, out / path.name)
    give_name(draft / SUMMARY, out / SUMMARY)


def _equal(draft: Path, present: Path) -> bool:
    return present.is_file() and present.read_bytes() == draft.read_bytes()


def _fill(folder: Path, tables: dict[str, pd.DataFrame], record: ReleaseRecord) -> dict[str, Any]:
    for name in TABLES:
        write_parquet(tables[name], folder / f"{name}.parquet")
    (folder / "well.csv").write_text(well_sheet(tables["well"]), encoding="utf-8")
    (folder / "compound.csv").write_text(compound_sheet(tables["compound"]), encoding="utf-8")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    summary = summary_of(tables, record) | {"files": files}
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


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


def _upload(tables: dict[str, pd.DataFrame], batch: BatchFolder, record: ReleaseRecord, settings: Settings) -> str:
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    prefix = f"predictions/{batch.batch_id}/{record.release_id}"
    own = {
        name: table[
            (table["Metadata_Source"] == batch.manifest.source) & (table["Metadata_Batch"] == batch.manifest.batch)
        ].reset_index(drop=True)
        for name, table in tables.items()
    }
    with tempfile.TemporaryDirectory(prefix="coda-predictions-") as work:
        _fill(Path(work), own, record)
        sizes = {path.name: path.stat().st_size for path in Path(work).iterdir()}
        stored = {item.key.rpartition("/")[2]: item.size for item in store.list(f"{prefix}/")}
        # the list names the digest of every table and goes last: when it is there and the same, so is all the rest
        if stored != sizes or store.find(f"{prefix}/{SUMMARY}") != (Path(work) / SUMMARY).read_bytes():
            store.upload_folder(Path(work), prefix, last=(SUMMARY,))
    return prefix
