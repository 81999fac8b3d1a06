"""Release drafts: what a run would release, kept until it is promoted, by the gate or by a person."""

import hashlib
import re
from pathlib import Path

from coda.contracts import ReleaseRecord
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.storage.objects import store_for

WAITING = "nobody"
"""Approver of a draft that waits for a person: the release step does not promote it."""

DRAFT = "release.json"


def release_name(run_id: str) -> str:
    """Return the release id of a run: its own id, with a short hash where that is no safe name."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", run_id).lstrip("._-")
    if safe == run_id and len(run_id) <= 100:
        return run_id
    return f"{safe[:80]}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}".lstrip("-")


def keep_draft(record: ReleaseRecord, out: Path, *, settings: Settings) -> ReleaseRecord:
    """Write a draft to a file and, for people, to ``runs/<run_id>/release.json``; return what was kept.

    A run that is repeated gets the draft of its first time, so that its release keeps its time of creation.
    """
    store = store_for(settings.platform, settings)
    key = f"runs/{record.run_id}/{DRAFT}"
    before = store.find(key)
    if before is not None:
        earlier = ReleaseRecord.parse(before, store.url(key))
        if earlier.model_copy(update={"created_at": record.created_at}) == record:
            record = earlier
    store.put(key, record.to_json().encode(), content_type="application/json")
    record.write(out)
    return record


def find_release(release_id: str, *, settings: Settings) -> ReleaseRecord | None:
    """Return a release by its id: from the release log, else among the drafts of runs; none when unknown."""
    log = ReleaseLog(settings)
    for scope in log.scopes():
        for entry in log.history(scope):
            if entry.release.release_id == release_id:
                return entry.release
    for item in log.store.list("runs/"):
        # the times of the step of the same name lie below: runs/<run_id>/steps/release.json
        if item.key.split("/")[2:] == [DRAFT]:
            record = ReleaseRecord.parse(log.store.get(item.key), log.store.url(item.key))
            if record.release_id == release_id:
                return record
    return None
