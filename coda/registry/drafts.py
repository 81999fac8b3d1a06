"""Release drafts: what a run would release, kept until it is promoted, by the gate or by a person."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from coda.config.moved import as_of_today
from coda.config.recorded import flat, same
from coda.contracts import ReleaseRecord
from coda.errors import ConfigError, Problem, raise_if_any
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.storage.failures import ObjectNotFoundError
from coda.storage.objects import ObjectInfo, store_for
from coda.storage.records import MAX_RECORD_BYTES, read_object

WAITING = "nobody"
"""Approver of a draft that waits for a person: the release step does not promote it."""

DRAFT, PARAMS, GATE = "release.json", "params.json", "gate.json"
"""Files of a run in the platform bucket: its draft, its parameters, and the gate's report (kept by the gate step)."""


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
    before = store.find(key, at_most=MAX_RECORD_BYTES)
    if before is not None:
        earlier = ReleaseRecord.parse(before, store.url(key))
        if earlier.model_copy(update={"created_at": record.created_at}) == record:
            record = earlier
    store.put(key, record.to_json().encode(), content_type="application/json")
    record.write(out)
    return record


def keep_params(run_id: str, params: Mapping[str, Any], *, settings: Settings) -> None:
    """Write the parameters of a run to ``runs/<run_id>/params.json``: what releases of it were made with.

    Those of its first time stay: a run that is repeated on another machine may differ in its `compute` section alone.

    Raises:
        ConfigError: The run was made with other parameters, which its release names.
    """
    store = store_for(settings.platform, settings)
    key = f"runs/{run_id}/{PARAMS}"
    body = json.dumps(dict(params), indent=2, sort_keys=True) + "\n"
    if store.put_if_absent(key, body.encode()):
        return
    kept, mine = flat(as_of_today(read_kept(run_id, PARAMS, settings=settings))), flat(as_of_today(params))
    remedy = "Give this run an id of its own, or repeat it with the parameters that are kept."
    problems = [
        Problem(f"{path}, run {run_id}", repr(mine.get(path)), f"{kept.get(path)!r}, kept in {store.url(key)}", remedy)
        for path in sorted(mine.keys() | kept.keys())
        if not path.startswith("compute.") and not same(mine.get(path), kept.get(path))
    ]
    raise_if_any(ConfigError, "A run is not made twice with different parameters.", problems)


def read_kept(run_id: str, name: str, *, settings: Settings) -> dict[str, Any]:
    """Return a JSON document that a run kept in the platform bucket; empty where it kept none.

    Raises:
        UnreadableRecordError: The document is no JSON object, or larger than any such document.
    """
    store = store_for(settings.platform, settings)
    try:
        return read_object(store, f"runs/{run_id}/{name}")
    except ObjectNotFoundError:
        return {}


def list_drafts(
    *, settings: Settings, released: Iterable[ReleaseRecord] = ()
) -> Iterator[tuple[ObjectInfo, ReleaseRecord]]:
    """Yield every draft that a run left in the platform bucket, promoted or not."""
    store = store_for(settings.platform, settings)
    known = released_drafts(released)
    for item in store.list("runs/"):
        # the times of the step of the same name lie below: runs/<run_id>/steps/release.json
        if item.key.split("/")[2:] == [DRAFT]:
            record = known.get((item.key, item.etag))
            if record is None:
                record = ReleaseRecord.parse(store.get(item.key, at_most=MAX_RECORD_BYTES), store.url(item.key))
            yield item, record


def released_drafts(released: Iterable[ReleaseRecord]) -> dict[tuple[str, str], ReleaseRecord]:
    """Return key and entity tag of the drafts that these releases were promoted from, as `keep_draft` wrote them.

    The tag of an object that was written in one request is the MD5 of its bytes, so a draft that is listed with this
    tag has been compared byte by byte with what the log says, and reading it could tell nothing more. Another tag (a
    draft that was changed, that an earlier program wrote in another form, or a store that encrypts with keys of its
    own) says nothing: that draft is read.
    """
    found = {}
    for record in released:
        for approver in (record.approver, WAITING):
            draft = record.model_copy(update={"approver": approver})
            tag = hashlib.md5(draft.to_json().encode(), usedforsecurity=False).hexdigest()
            found[f"runs/{record.run_id}/{DRAFT}", tag] = draft
    return found


def find_release(release_id: str, *, settings: Settings) -> ReleaseRecord | None:
    """Return a release by its id: from the release log, else the draft of the run it is named after; none if unknown.

    A draft is looked up, not searched for: it lies in the folder of its run, and `release_name` says which that is.
    """
    served = ReleaseLog(settings).released(release_id)
    if served is not None:
        return served
    store = store_for(settings.platform, settings)
    shortened = (run for run in store.folders("runs/") if run != release_id and release_name(run) == release_id)
    for run_id in chain([release_id], shortened):
        key = f"runs/{run_id}/{DRAFT}"
        body = store.find(key, at_most=MAX_RECORD_BYTES)
        draft = ReleaseRecord.parse(body, store.url(key)) if body is not None else None
        if draft is not None and draft.release_id == release_id:
            return draft
    return None


def named_release(name: str, *, settings: Settings) -> ReleaseRecord:
    """Return the release that a person named: by its id, or by the source (or 'default') that it serves now.

    Raises:
        ConfigError: There is no such release.
    """
    record = ReleaseLog(settings).current(name) or find_release(name, settings=settings)
    if record is None:
        problem = Problem("release", name, "a release id, a source or 'default'", "See `coda registry list`.")
        raise ConfigError("There is no such release.", [problem])
    return record
