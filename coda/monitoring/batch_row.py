"""The table of batches: what its rows are, and how one batch becomes the bytes of one object.

One row is one number of one batch version, of the batch itself or of one of its plates; the facts of the batch (times,
outcome, release, revisions) stand in every row of it, which parquet's dictionaries make free (decision 0031). A batch
without numbers has one row with an empty measure, so every batch version that ended is in the table.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coda.contracts import RunRecord
from coda.errors import IntegrityError, Problem
from coda.monitoring.batch_numbers import BatchNumbers, Number
from coda.monitoring.summaries import BatchSummary, report_prefix

VERSION = 1
"""Version of the schema. Later versions append columns: what an older file lacks is null, what it has more is left."""

VERSION_KEY = b"coda.history"

_WORD, _TIME = pa.dictionary(pa.int32(), pa.string()), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Facts:
    """What is known of one batch version as a whole.

    Attributes:
        source: Laboratory.
        batch: Batch.
        manifest_digest: Its version.
        state: How it ended: released, incumbent_kept, held, refused or failed.
        processed_at: When it ended, with time zone.
        acquired_at: When the producer finished it; None where no manifest tells.
        instrument: Microscope.
        run_id: Run that ended it; empty where none did.
        pipeline: 'adaptation' or 'training'.
        verdict: Of the validation; empty where it did not run.
        reason: Decision, verdict or error in words.
        seconds: Seconds of all steps of its run.
        release_id: What serves after the run.
        extractor: Registered version, `name/version`.
        head: Registered version, `name/version`.
        data_revision: Commit of the data registry that holds it.
        code_version: Code of the run.
        params_digest: Parameters of the run.
        page: Key of the page about it in the platform bucket; empty where there is none.
    """

    source: str
    batch: str
    manifest_digest: str
    state: str
    processed_at: datetime
    acquired_at: datetime | None = None
    instrument: str = ""
    run_id: str = ""
    pipeline: str = ""
    verdict: str = ""
    reason: str = ""
    seconds: float | None = None
    release_id: str = ""
    extractor: str = ""
    head: str = ""
    data_revision: str = ""
    code_version: str = ""
    params_digest: str = ""
    page: str = ""


FACTS = tuple(item.name for item in fields(Facts))
NUMBERS = tuple(Number.model_fields)

_TYPES: dict[str, pa.DataType] = {
    "processed_at": _TIME, "acquired_at": _TIME, "n": pa.int64(),
    **dict.fromkeys(("seconds", "value", "low", "high", "limit_low", "limit_high"), pa.float64()),
}  # fmt: skip
SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, _WORD)) for name in (*FACTS, *NUMBERS)])


def facts_of(summary: BatchSummary, numbers: BatchNumbers | None, run: RunRecord | None) -> Facts:
    """Return the facts of a batch whose run reported: from its summary, its numbers and the record of the run.

    Args:
        summary: Beside the report.
        numbers: Beside the report; None for reports from before there was such a record.
        run: None where the run left none.
    """
    models = [f"{ref.name}/{ref.version}" for ref in run.models] if run else []
    here = (summary.source, summary.batch)
    mine = [item.revision for item in run.data if (item.source, item.batch) == here] if run else []
    outcomes = {"release": "released", "keep_incumbent": "incumbent_kept", "hold": "held", "refuse": "refused"}
    known = "refused" if summary.verdict == "refused" else outcomes.get(summary.outcome, "held")
    return Facts(
        source=summary.source,
        batch=summary.batch,
        manifest_digest=summary.manifest_digest,
        # of a training run each batch has its own verdict; a refused one was left out, whatever became of the run
        state="refused" if summary.verdict == "refused" else run.outcome if run else known,
        processed_at=run.finished_at if run else summary.at,
        acquired_at=summary.created_at,
        instrument=summary.instrument,
        run_id=run.run_id if run else numbers.run_id if numbers else "",
        pipeline=run.pipeline if run else numbers.pipeline if numbers else "",
        verdict=summary.verdict,
        reason=run.sentence if run else numbers.sentence if numbers else "",
        seconds=round(sum(step.seconds for step in run.steps), 3) if run else None,
        release_id=(run.release_id or "") if run else "",
        extractor=models[0] if models else "",
        head=models[1] if len(models) > 1 else "",
        data_revision=mine[0] if mine else "",
        code_version=run.code_version if run else "",
        params_digest=run.params_digest if run else "",
        page=f"{report_prefix(summary.source, summary.batch, summary.manifest_digest)}report.html",
    )


def numbers_of(summary: BatchSummary, numbers: BatchNumbers | None) -> tuple[Number, ...]:
    """Return the numbers of a batch; of a report from before they were recorded, what its summary holds."""
    if numbers is not None:
        return numbers.numbers
    older = [
        Number(measure=name, subject=stain, value=value)
        for key, value in summary.acquisition.items()
        for stain, _, name in [key.partition("/")]
    ]
    older += [Number(measure=f"drift_before/{name}", value=value) for name, value in summary.drift_before.items()]
    return (
        *older,
        *(Number(measure=f"drift_after/{name}", value=value) for name, value in summary.drift_after.items()),
    )


def table_of(facts: Facts, numbers: Sequence[Number]) -> pa.Table:
    """Return the rows of one batch version, in one order whatever order its numbers come in."""
    rows = sorted(numbers, key=lambda item: (item.plate, item.measure, item.subject)) or [Number(measure="")]
    constant: dict[str, list[Any]] = {name: [getattr(facts, name)] * len(rows) for name in FACTS}
    varying: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in NUMBERS}
    for name in ("processed_at", "acquired_at"):
        constant[name] = [at.astimezone(UTC) if at else None for at in constant[name]]
    arrays = [pa.array(values, _TYPES.get(name, pa.string())) for name, values in (constant | varying).items()]
    return pa.table(arrays, names=[*FACTS, *NUMBERS]).cast(SCHEMA)


def encode(table: pa.Table) -> bytes:
    """Return the table as parquet: the same rows give the same bytes."""
    out = io.BytesIO()
    metadata = {**(table.schema.metadata or {}), VERSION_KEY: str(VERSION).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), out, compression="zstd")
    return out.getvalue()


def decode(data: bytes, where: str) -> pa.Table:
    """Return the rows of an object in the form of this version: what it lacks is null, what it has more is left out.

    Raises:
        IntegrityError: It is no parquet, or a column holds something else than it should.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        columns = [
            table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in SCHEMA
        ]
    except (pa.ArrowException, OSError, ValueError) as error:
        remedy = "Make it again from the reports and records: `coda monitoring history --rebuild`."
        problem = Problem(where, str(error)[:200], "parquet of the table of batches", remedy)
        raise IntegrityError(f"{where} cannot be read as rows of the table of batches.", [problem]) from error
    return pa.table(columns, schema=SCHEMA.with_metadata(table.schema.metadata))
