"""Rows of the table of batches that no run writes (failed, or refused before a report), and all rows made again."""

import logging
from collections.abc import Iterator

from coda.contracts import RunRecord
from coda.contracts.manifest import MAX_MANIFEST_BYTES, BatchManifest
from coda.errors import CodaError, ContractError
from coda.monitoring.batch_numbers import BatchNumbers
from coda.monitoring.batch_row import Facts, numbers_of
from coda.monitoring.batch_table import key_of, read_reported, write_batch, write_failed, write_reported
from coda.monitoring.summaries import BatchSummary
from coda.storage.failures import ObjectTooLargeError
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record
from coda.trigger.failure_page import NAME
from coda.trigger.ledger import Ledger
from coda.trigger.states import LedgerState

log = logging.getLogger(__name__)


def note_end(platform: ObjectStore, landing: ObjectStore, state: LedgerState, record: RunRecord | None) -> None:
    """Have an ended batch version in the table of batches; what goes wrong is a warning, and stops nothing.

    Args:
        platform: The platform bucket.
        landing: Store at the landing prefix, for the manifest's times.
        state: Its last state.
        record: What its run recorded; such a run has written the rows itself, unless it was killed before.
    """
    try:
        if record is None:
            _write_ended(platform, landing, state)
        elif not platform.exists(key_of(state.source, state.batch, state.manifest_digest)):
            write_reported(platform, state.source, state.batch, state.manifest_digest, record)
    except CodaError as error:
        message = "%s/%s is not in the table of batches (%s); `coda monitoring history --rebuild` adds it."
        log.warning(message, state.source, state.batch, error.message)


def rebuild(ledger: Ledger, landing: ObjectStore) -> int:
    """Write the rows of every batch version again, from reports, records of runs and the ledger.

    Returns:
        Batch versions written.
    """
    store = ledger.store
    written = set()
    ends = {(state.source, state.batch, state.manifest_digest): state for state in ledger.newest() if state.final}
    for summary, numbers in _reported(store):
        place = (summary.source, summary.batch, summary.manifest_digest)
        run = _run(store, ends[place].run_id if place in ends else numbers.run_id if numbers else "")
        if place in ends and run is None:
            continue  # its run ended without a record: the ledger tells how
        write_reported(store, *place, run)
        written.add(place)
    for place, state in ends.items():
        if place not in written:
            _write_ended(store, landing, state)
            written.add(place)
    for item in store.list("runs/"):
        # runs that no trigger started; `write_failed` writes over nothing that another run left
        if item.key.endswith("/failed.json") and (failed := _record(store, item.key)) is not None:
            written.update(write_failed(store, failed))
    return len(written)


def _reported(store: ObjectStore) -> Iterator[tuple[BatchSummary, BatchNumbers | None]]:
    for item in store.list("reports/"):
        if item.key.endswith("/summary.json"):
            _, source, batch, digest, _ = item.key.split("/", 4)
            found = read_reported(store, source, batch, digest)
            if found is not None:
                yield found


def _run(store: ObjectStore, run_id: str) -> RunRecord | None:
    return _record(store, f"runs/{run_id}/run.json") if run_id else None


def _record(store: ObjectStore, key: str) -> RunRecord | None:
    try:
        return find_record(store, key, RunRecord)
    except UnreadableRecordError as error:
        log.warning("%s", error)
        return None


def _write_ended(store: ObjectStore, landing: ObjectStore, state: LedgerState) -> None:
    """Write the rows of a version whose run left no record: how the ledger says it ended, and what was reported."""
    found = read_reported(store, state.source, state.batch, state.manifest_digest)
    manifest = _manifest(landing, state) if found is None else None
    summary, numbers = found or (None, None)
    page = f"{state.version.folder}/{NAME}" if state.state == "failed" else ""
    facts = Facts(
        source=state.source,
        batch=state.batch,
        manifest_digest=state.manifest_digest,
        state=state.state,
        processed_at=state.at,
        acquired_at=summary.created_at if summary else manifest.created_at if manifest else None,
        instrument=summary.instrument if summary else manifest.instrument.name if manifest else "",
        run_id=state.run_id,
        pipeline="adaptation",
        verdict=summary.verdict if summary else "",
        reason=" ".join(state.reasons),
        page=page,
    )
    write_batch(store, facts, numbers_of(summary, numbers) if summary else ())


def _manifest(landing: ObjectStore, state: LedgerState) -> BatchManifest | None:
    """Return the manifest of a version while it lies in the landing prefix and can be read."""
    try:
        body = landing.find(state.manifest_key, at_most=MAX_MANIFEST_BYTES)
        manifest = BatchManifest.parse(body, state.manifest_key) if body is not None else None
    except (ContractError, ObjectTooLargeError):
        return None
    return manifest if manifest is not None and manifest.digest() == state.manifest_digest else None
