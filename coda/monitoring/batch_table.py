"""Where the table of batches lies: one object a batch version, put together by month, read by one function.

``history/batch/<source>/<batch>/<digest16>.parquet`` is the truth and is written whole by whoever ends the batch, again
with the same bytes when that is repeated. ``history/month/<source>/<month>.parquet`` holds the rows of many and saves
requests; it names the entity tag of each object it was made from, and where a listing shows another tag the object
itself is read. So it may be absent, old, half of what there is, or written by two at once, and the table is the same.
"""

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from coda.errors import IntegrityError
from coda.monitoring.batch_numbers import BatchNumbers, Number, numbers_key
from coda.monitoring.batch_row import SCHEMA, Facts, decode, encode, facts_of, numbers_of, table_of
from coda.monitoring.summaries import BatchSummary, report_prefix
from coda.storage.failures import ObjectNotFoundError
from coda.storage.objects import ObjectInfo, ObjectStore
from coda.storage.records import UnreadableRecordError, find_record

if TYPE_CHECKING:
    import pandas as pd

    from coda.contracts import RunRecord

log = logging.getLogger(__name__)

BATCHES, MONTHS = "history/batch/", "history/month/"
AT_ONCE = 16
"""Objects that are read at the same time."""

MAX_BYTES = 256 * 1024 * 1024
"""Size of the largest object that is read: a month of a thousand batches has about 30 MB."""

OBJECTS_KEY = b"coda.objects"
"""Where a month names what it was made from: JSON, key -> [entity tag, first row, rows]."""


@dataclass(frozen=True)
class Compacted:
    """What one compaction did.

    Attributes:
        months: Objects written.
        batches: Batch versions in them.
    """

    months: int
    batches: int


def key_of(source: str, batch: str, digest: str) -> str:
    """Return where the rows of one batch version lie in the platform bucket."""
    return f"{BATCHES}{source}/{batch}/{digest[:16]}.parquet"


def write_batch(store: ObjectStore, facts: Facts, numbers: Collection[Number] = ()) -> str:
    """Write the rows of one batch version over those of before, and return their key."""
    key = key_of(facts.source, facts.batch, facts.manifest_digest)
    store.put(key, encode(table_of(facts, tuple(numbers))), content_type="application/vnd.apache.parquet")
    return key


def read_reported(
    store: ObjectStore, source: str, batch: str, digest: str
) -> tuple[BatchSummary, BatchNumbers | None] | None:
    """Return what the report of a batch version left; None where there is no report, or it cannot be read."""
    try:
        summary = find_record(store, f"{report_prefix(source, batch, digest)}summary.json", BatchSummary)
        numbers = find_record(store, numbers_key(source, batch, digest), BatchNumbers)
    except UnreadableRecordError as error:
        log.warning("The numbers of %s/%s are not in the table of batches: %s", source, batch, error)
        return None
    return None if summary is None else (summary, numbers)


def write_reported(store: ObjectStore, source: str, batch: str, digest: str, run: "RunRecord | None") -> None:
    """Write the rows of a batch version from its report and the record of its run; none where it has no report."""
    found = read_reported(store, source, batch, digest)
    if found is not None:
        write_batch(store, facts_of(*found, run), numbers_of(*found))


def write_failed(store: ObjectStore, run: "RunRecord") -> list[tuple[str, str, str]]:
    """Write a row for each batch of an adaptation that failed, where none is yet: another run may have gone through.

    Returns:
        Source, batch and digest of each batch version of the run that is known.
    """
    if run.pipeline != "adaptation" or len(run.batches) != len(run.manifest_digests):
        return []
    places = []
    for name, digest in zip(run.batches, run.manifest_digests, strict=True):
        source, _, batch = name.partition("/")
        facts = Facts(
            source=source,
            batch=batch,
            manifest_digest=digest,
            state="failed",
            processed_at=run.finished_at,
            run_id=run.run_id,
            pipeline=run.pipeline,
            reason=run.sentence,
            seconds=round(sum(step.seconds for step in run.steps), 3),
            code_version=run.code_version,
            params_digest=run.params_digest,
            page=f"{report_prefix(source, batch, digest)}failure.html",
        )
        store.put_if_absent(key_of(source, batch, digest), encode(table_of(facts, ())))
        places.append((source, batch, digest))
    return places


def read(
    store: ObjectStore,
    *,
    source: str | None = None,
    instrument: str | None = None,
    since: datetime | None = None,
) -> "pd.DataFrame":
    """Return the table of batches; see `coda.monitoring.history`."""
    tables = [rows for name in ([source] if source else sources(store)) for rows in _tables(store, name)]
    table = pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()
    if instrument is not None:
        table = table.filter(pc.equal(table["instrument"].cast(pa.string()), instrument))
    if since is not None:
        table = table.filter(
            pc.greater_equal(table["processed_at"], pa.scalar(since, SCHEMA.field("processed_at").type))
        )
    frame: pd.DataFrame = table.to_pandas()
    order = ["processed_at", "source", "batch", "manifest_digest", "plate", "measure", "subject"]
    for name in order[1:]:
        frame[name] = frame[name].astype(str)
    return frame.sort_values(order, kind="stable", ignore_index=True)


def sources(store: ObjectStore) -> list[str]:
    """Return the sources that have batches in the table, in alphabetical order."""
    return sorted(store.folders(BATCHES))


def fingerprint(store: ObjectStore, source: str) -> dict[str, str]:
    """Return key -> entity tag of every batch version of a source: what its rows depend on."""
    return {item.key: item.etag for item in _listed(store, source)}


def compact(store: ObjectStore, source: str | None = None) -> Compacted:
    """Put the rows of each month together in one object, where that is not so yet.

    It deletes nothing, and may be stopped anywhere or done by several at once: an object of a month is used for those
    batches alone whose entity tag it names.
    """
    months = batches = 0
    for name in [source] if source else sources(store):
        for month, items in _by_month(_listed(store, name)).items():
            key = f"{MONTHS}{name}/{month}.parquet"
            known = _objects(_month(store, key))
            if len(items) < 2 or {item.key: item.etag for item in items} == {k: v[0] for k, v in known.items()}:
                continue
            parts = list(_singles(store, items))
            places, rows = {}, 0
            for item, part in parts:
                places[item.key] = [item.etag, rows, len(part)]
                rows += len(part)
            table = (
                pa.concat_tables([part for _, part in parts]).unify_dictionaries() if parts else SCHEMA.empty_table()
            )
            table = table.combine_chunks().replace_schema_metadata({OBJECTS_KEY: json.dumps(places).encode()})
            store.put(key, encode(table), content_type="application/vnd.apache.parquet")
            months, batches = months + 1, batches + len(parts)
    return Compacted(months, batches)


def _tables(store: ObjectStore, source: str) -> Iterator[pa.Table]:
    """Yield the rows of a source, each batch version once: from its month where that is of today, else from itself."""
    single: list[ObjectInfo] = []
    for month, items in _by_month(_listed(store, source)).items():
        whole = _month(store, f"{MONTHS}{source}/{month}.parquet") if len(items) > 1 else None
        known = _objects(whole)
        for item in items:
            etag, first, rows = known.get(item.key, ("", 0, 0))
            if whole is not None and etag == item.etag:
                yield whole.slice(first, rows).replace_schema_metadata(None)
            else:
                single.append(item)
    yield from (rows for _, rows in _singles(store, single))


def _listed(store: ObjectStore, source: str) -> list[ObjectInfo]:
    return [item for item in store.list(f"{BATCHES}{source}/") if item.key.endswith(".parquet")]


def _by_month(items: Iterable[ObjectInfo]) -> dict[str, list[ObjectInfo]]:
    found: dict[str, list[ObjectInfo]] = {}
    for item in items:
        found.setdefault(f"{item.modified:%Y-%m}", []).append(item)
    return found


def _month(store: ObjectStore, key: str) -> pa.Table | None:
    body = store.find(key, at_most=MAX_BYTES)
    if body is None:
        return None
    try:
        return decode(body, store.url(key))
    except IntegrityError as error:
        log.warning("%s Its batches are read one by one.", error.message)
        return None


def _objects(month: pa.Table | None) -> dict[str, tuple[str, int, int]]:
    if month is None:
        return {}
    raw = json.loads((month.schema.metadata or {}).get(OBJECTS_KEY, b"{}"))
    return {key: (str(etag), int(first), int(rows)) for key, (etag, first, rows) in raw.items()}


def _singles(store: ObjectStore, items: list[ObjectInfo]) -> Iterator[tuple[ObjectInfo, pa.Table]]:
    """Yield the rows of objects as they were listed; what was replaced meanwhile is left to the next call.

    An object that cannot be read is left out with a warning: it must not hide all others.
    """

    def one(item: ObjectInfo) -> tuple[ObjectInfo, pa.Table | None]:
        try:
            body, etag = store.get_tagged(item.key, at_most=MAX_BYTES)
            item = ObjectInfo(item.key, len(body), etag, item.modified, item.has_sha256)
            return item, decode(body, store.url(item.key)).replace_schema_metadata(None)
        except ObjectNotFoundError:
            return item, None
        except IntegrityError as error:
            log.warning("%s It is left out.", error)
            return item, None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for item, rows in pool.map(one, items):
            if rows is not None:
                yield item, rows
