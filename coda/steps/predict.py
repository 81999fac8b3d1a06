"""Predict: a batch's field, well and compound tables, with the registered models of one release."""

import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.adaptation.abstain import (
    add_missing_compounds,
    add_missing_wells,
    mark_uncertain,
    mark_without_cells,
    withhold,
)
from coda.adaptation.answers import TOLERANCE, answers_for, differ_by, drawn
from coda.adaptation.serving import Way, serve
from coda.config.params import Params
from coda.config.recorded import HABITS, Facts, Today, set_aside
from coda.config.served_params import Serving
from coda.contracts.gate import GateReport
from coda.contracts.release import ReleaseRecord
from coda.durable import give_name
from coda.errors import ContractError, Problem
from coda.evaluation.predictions.csv_export import compound_sheet, well_sheet
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, well_table
from coda.networks.classical_head import front_of
from coda.networks.extractor import Extractor, load_extractor
from coda.networks.profile import Profile
from coda.networks.runtime import set_threads
from coda.plates.dataset import BatchFolder, channels_unread, open_batches, open_fields
from coda.plates.index import write_parquet
from coda.plates.stored import StoredFields
from coda.registry import fetch
from coda.settings import Settings
from coda.steps.publication import SUMMARY, Draft, Replacement
from coda.steps.publication import publish as publish_tables
from coda.steps.recorded_serving import named, release_facts, require_fitting, serving_of
from coda.steps.source_release import fetch_head
from coda.storage.failures import disk_explained
from coda.storage.plate_stores import DataStore
from coda.training.images import place_fields

TABLES = ("field", "well", "compound")

log = logging.getLogger(__name__)


def predict(
    dataset: Path,
    release: Path,
    out: Path,
    *,
    params: Params | Today,
    settings: Settings,
    gate: Path | None = None,
    candidates: Path | None = None,
    publish: bool = True,
    run_id: str = "",
    by: str = "",
    replacement: Replacement | None = None,
) -> dict[str, Any]:
    """Predict every accepted field with the extractor and head that a release binds, as the release says.

    Both models are fetched from the registry and verified byte by byte. What their numbers depend on beside the weights
    is in their records and is taken from there (decision 0015), so batch and release alone decide every byte, but for
    the machine's rounding. ``predictions.json`` names the digest of every table and goes last: a call that is killed
    leaves tables without it. What is published is never changed; see `coda.steps.publication`.

    Args:
        dataset: Dataset folder, validated.
        release: ReleaseRecord file.
        out: Folder to write to: ``field.parquet``, ``well.parquet``, ``compound.parquet``, ``well.csv`` and
            ``compound.csv`` (for people) and ``predictions.json``.
        params: Of these only ``compute.device``, ``threads`` and ``images`` are used. Any other value that is stated
            must be the recorded one; as plain Params all are, unless the release is another run's than `run_id`.
        settings: Where the registry and the platform bucket are.
        gate: ``gate.json``, when a gate judged. Where it says that what serves is not fit for the batch, every answer
            about the batch is withheld, with the gate's sentence.
        candidates: Candidates folder of the run's adaptation. Where one of them had the release's very models, its
            answers for these very fields are taken over: a sample drawn from each plate is predicted anew with the
            registered models, and if one probability differs by more than rounding explains, everything is.
        publish: Whether the tables also go below ``predictions/<source>/<batch>/<release_id>/`` of the platform
            bucket.
        run_id: Pipeline run that predicts; empty for a person.
        by: Who publishes, where no pipeline does.
        replacement: Who puts these tables in the place of other ones that are published, and why.

    Returns:
        What ``predictions.json`` says (release, and for each level the number of rows and of abstentions), and
        ``prefixes``: where the tables are published, and ``notes``: what was not used or is not recorded.

    Raises:
        ConfigError: A stated parameter, or the preparation of the batch, contradicts what the models were made with;
            or other tables are published already.
        ContractError: The dataset holds no batch.
        IntegrityError: A model's or field's bytes are not the recorded ones.
        TransientError: A service is away.
    """
    today = Today.of(params)
    record = ReleaseRecord.read(release)
    if run_id and record.run_id != run_id:
        today = today.unstated()  # the run keeps what served before: its parameters were stated for what it made itself
    batches = open_batches(dataset, DataStore(settings))
    if not batches:
        remedy = "Run ingest first, or give the folder above <source>/<batch>."
        problem = Problem(str(dataset), "no ingested batch", "at least one", remedy)
        raise ContractError("There is nothing to predict.", [problem])
    tables, made = _tables(batches, record, today, settings, candidates)
    decision = GateReport.read(gate) if gate is not None else None
    if decision is not None and not decision.fit_to_predict:
        tables = {name: _withheld(table, decision) for name, table in tables.items()}
    for note in made.notes if run_id else ():
        log.warning("%s", note)  # a person's call shows them itself
    summary = _write(out, tables, record, made.served_as)
    whose = run_id or by
    prefixes = []
    for batch in batches if publish else ():
        with tempfile.TemporaryDirectory(prefix="coda-predictions-") as work:
            draft = _draft(Path(work), tables, batch, record, made, run_id, whose)
            prefixes.append(publish_tables(draft, settings, replacement=replacement).prefix)
    return summary | {"prefixes": prefixes, "notes": list(made.notes)}


@dataclass(frozen=True)
class _Made:
    """How tables were made: what was recorded, and what nobody recorded or was set aside."""

    served_as: dict[str, Any]
    notes: tuple[str, ...]


def _tables(
    batches: list[BatchFolder], record: ReleaseRecord, today: Today, settings: Settings, candidates: Path | None
) -> tuple[dict[str, pd.DataFrame], _Made]:
    with tempfile.TemporaryDirectory(prefix="coda-release-") as work:
        folder = fetch(record.extractor, Path(work) / "extractor", settings=settings)
        extractor = load_extractor(folder, record.extractor.digest)
        frozen = fetch_head(record.head, Path(work) / "head", settings)
    facts = release_facts(record, extractor, frozen.head, settings)
    serving = serving_of(facts, extractor, today)
    set_threads(serving.compute)
    untold = require_fitting(batches, extractor, named(record.extractor))
    stored = open_fields(batches, extractor.channels, serving.crops.centre)
    way = Way(record.method, record.alignment, frozen.head, frozen.source)
    front = front_of(extractor, frozen.head)
    probabilities = _taken_over(candidates, record, front, way, stored, serving)
    if probabilities is None:
        served = serve(front, [way], place_fields(stored, serving.compute.images), serving)
        probabilities = served.ways[way.name].probabilities
    least = serving.min_top_over_chance or 0.0

    def marked(table: pd.DataFrame) -> pd.DataFrame:
        return mark_without_cells(mark_uncertain(table, min_top_over_chance=least), stored.table)

    field = marked(field_table(stored.table, probabilities, frozen.head.classes))
    well = marked(well_table(field))
    compound = marked(compound_table(well))
    plan = pd.concat([batch.wells for batch in batches], ignore_index=True)
    reports = [batch.quality for batch in batches if batch.quality is not None]
    well = add_missing_wells(well, plan, reports)
    made_by = {"release_id": record.release_id}
    tables = {
        "field": field.assign(**made_by),
        "well": well.assign(**made_by),
        "compound": add_missing_compounds(compound, well).assign(**made_by),
    }
    notes = (*set_aside(facts, today), *serving.notes, *untold, *channels_unread(batches, extractor.channels))
    return tables, _Made(_served_as(facts, serving), notes)


def _taken_over(
    candidates: Path | None,
    record: ReleaseRecord,
    extractor: Extractor | Profile,
    way: Way,
    stored: StoredFields,
    serving: Serving,
) -> NDArray[np.float32] | None:
    """Return what adaptation answered already, if a sample proves it; else none."""
    if candidates is None or not len(stored):
        return None
    answers = answers_for(candidates, record, way.head.classes, stored, serving)
    if answers is None:
        return None
    rows = drawn(stored.table, record.release_id)
    sample = place_fields(stored.take(rows), serving.compute.images)
    differs = differ_by(answers, extractor, way, sample, rows, serving)
    if differs > TOLERANCE[serving.compute.precision]:
        log.warning(
            "What adaptation answered as %r differs by %.3g from what the registered models answer: all fields are "
            "predicted anew.", answers.candidate, differs,
        )  # fmt: skip
        return None
    told = "The answers of %r are taken over: %d of %d fields proved them."
    log.info(told, answers.candidate, len(rows), len(stored))
    return answers.probabilities


def _served_as(facts: Facts, serving: Serving) -> dict[str, Any]:
    """Return the parameters that the tables were made with: what is recorded, and what was taken where nothing is."""
    recorded = {path: fact.value for path, fact in sorted(facts.items()) if path not in HABITS}
    return recorded | serving.values


def _withheld(table: pd.DataFrame, decision: GateReport) -> pd.DataFrame:
    """Withhold the answers about the batch that nothing fit serves; batches beside it keep theirs."""
    of_batch = (table["Metadata_Source"] == decision.source) & (table["Metadata_Batch"] == decision.batch)
    told = "The gate refused" if decision.outcome == "refuse" else "Nothing fit serves until a person decides"
    return withhold(table, of_batch, f"{told}: {decision.sentence}")


def _write(
    out: Path, tables: dict[str, pd.DataFrame], record: ReleaseRecord, served_as: dict[str, Any]
) -> dict[str, Any]:
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".predictions-", dir=out) as work:
            summary = _fill(Path(work), tables, record, served_as)
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


def _fill(
    folder: Path, tables: dict[str, pd.DataFrame], record: ReleaseRecord, served_as: dict[str, Any]
) -> dict[str, Any]:
    for name in TABLES:
        write_parquet(tables[name], folder / f"{name}.parquet")
    (folder / "well.csv").write_text(well_sheet(tables["well"]), encoding="utf-8")
    (folder / "compound.csv").write_text(compound_sheet(tables["compound"]), encoding="utf-8")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    summary = summary_of(tables, record) | {"served_as": served_as, "files": files}
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


def _draft(
    folder: Path,
    tables: dict[str, pd.DataFrame],
    batch: BatchFolder,
    record: ReleaseRecord,
    made: _Made,
    run_id: str,
    by: str,
) -> Draft:
    """Write the tables of one batch, and say what they are."""
    manifest = batch.manifest
    own = {
        name: table[
            (table["Metadata_Source"] == manifest.source) & (table["Metadata_Batch"] == manifest.batch)
        ].reset_index(drop=True)
        for name, table in tables.items()
    }
    _fill(folder, own, record, made.served_as)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    return Draft(folder, files, batch.batch_id, manifest.digest(), record, made.served_as, run_id, by)
