"""What runs left where people see it (tables, reports) and where nobody does (multipart uploads, temporary folders)."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from coda.doctor.evidence import Records
from coda.doctor.findings import Finding, Repair
from coda.errors import ContractError, IntegrityError, Problem
from coda.monitoring.summaries import report_prefix
from coda.runners.workdir import is_running
from coda.steps.publication import current
from coda.storage.clone import WORKING
from coda.storage.objects import ObjectStore, OpenUpload, store_for

UNREADABLE = "events/unreadable/"
"""Where the trigger keeps messages that nobody can read."""

SERVED = ("released", "incumbent_kept", "held")
"""Ends of a batch that was predicted."""


def results(records: Records) -> Iterator[Finding]:
    """Yield predictions without a release, and served batches without predictions or report."""
    keys = {item.key for item in records.store.list("predictions/")}
    drafts = {run.draft.release_id for run in records.runs.values() if run.draft is not None}
    known = {*records.released(), *drafts}
    for folder in sorted({"/".join(key.split("/")[:4]) for key in keys if key.count("/") > 3}):
        release_id = folder.rsplit("/", 1)[1]
        # what cannot be read may be the release that made them
        if release_id not in known and not records.unreadable:
            remedy = "Do not use these tables: nothing says what made them. Delete them, and predict the batch again."
            yield Finding("predictions", Problem(folder, f"tables of release {release_id}", "a known release", remedy))
    reports = {item.key for item in records.store.list("reports/")}
    for entry in records.entries.values():
        last, run = entry.last, records.runs.get(entry.last.run_id)
        record = run.record if run is not None else None
        if last.state not in SERVED or record is None:
            continue
        name, served = f"{last.source}/{last.batch}", record.release_id
        if served is not None and not _whole(records, name, served, last.manifest_digest, keys):
            found = f"no whole tables of {name}"
            remedy = f"Predict it: coda predict {name} --release {served} (docs/predict.md)."
            yield Finding("predictions", Problem(f"predictions/{name}/{served}", found, "its tables", remedy))
        if f"{report_prefix(last.source, last.batch, last.manifest_digest)}report.html" not in reports:
            remedy = "The report can be written again from the run's outputs: coda monitoring report DATASET OUT.html"
            yield Finding("report", Problem(f"reports/{name}", "no report of this version", "its report", remedy))


def messages(records: Records) -> Iterator[Finding]:
    """Yield messages of the queue that the trigger could not read."""
    for item in records.store.list(UNREADABLE):
        remedy = "Correct what sends it; have its batch found by `coda trigger once`; then delete this object."
        found = f"a message of {item.modified:%Y-%m-%d %H:%M} that is no notification"
        yield Finding("message", Problem(records.store.url(item.key), found, "none", remedy))


def _whole(records: Records, name: str, served: str, manifest_digest: str, keys: set[str]) -> bool:
    """Return whether tables of this version of a batch are published, and all of them are there."""
    try:
        found = current(records.store, name, served, manifest_digest)
    except (ContractError, IntegrityError):
        return False  # a list that cannot be read announces nothing
    return found is not None and all(f"{found.prefix}/{file}" in keys for file in found.files)


def uploads(records: Records) -> Iterator[Finding]:
    """Yield uploads in parts that were begun long ago: their parts cost space, and no listing shows them."""
    settings = records.settings
    stores = {uri: store_for(uri, settings) for uri in (settings.platform, settings.data_remote)}
    if settings.checkpoints.startswith("s3://"):
        stores[settings.checkpoints] = store_for(settings.checkpoints, settings)
    seen: set[str] = set()
    for store in stores.values():
        for upload in store.open_uploads():
            if upload.upload_id in seen or records.now - upload.begun < records.abandoned:
                continue
            seen.add(upload.upload_id)
            problem = Problem(
                store.url(upload.key),
                f"an upload in parts, begun {upload.begun:%Y-%m-%d %H:%M} and never finished",
                "none",
                "`coda doctor --repair` gives it up while no run is open; a lifecycle rule of the bucket does it too.",
            )
            act = (
                None
                if records.any_live
                else Repair(f"The upload of {upload.key} is given up.", partial(_abort, store, upload))
            )
            yield Finding("multipart_upload", problem, act)


def folders(records: Records, work: Path | None) -> Iterator[Finding]:
    """Yield temporary folders of processes that were killed on this machine.

    Below a run's folder its lock says whether a process uses them. In the machine's own folder for temporary files only
    their age speaks, so what lies there is named, and a person removes it.

    Args:
        records: What is known of the runs.
        work: Folder of the runs of this machine, ``<work>/<run_id>/``; looked through at any depth.
    """
    found = () if work is None else work.glob(f"*/**/{WORKING}*")
    for path in sorted(path for path in found if path.is_dir()):
        if work is not None and not is_running(work, path.relative_to(work).parts[0]):
            remedy = "`coda doctor --repair` removes it: it holds a copy or links, never the only one."
            yield Finding(
                "temporary_folder", _left(path, remedy), Repair(f"{path} is removed.", partial(_remove, path))
            )
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{WORKING}*")):
        if path.is_dir() and _old(records, path):
            yield Finding("temporary_folder", _left(path, "Remove it, if no process uses it any more."))


def _left(path: Path, remedy: str) -> Problem:
    return Problem(str(path), "a temporary folder of a process that is gone", "none", remedy)


def _old(records: Records, path: Path) -> bool:
    return records.now - datetime.fromtimestamp(path.stat().st_mtime, UTC) >= records.abandoned


def _abort(store: ObjectStore, upload: OpenUpload) -> bool:
    store.abort_upload(upload)
    return True


def _remove(path: Path) -> bool:
    there = path.exists()
    shutil.rmtree(path, ignore_errors=True)
    return there
