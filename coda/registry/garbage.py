"""What nothing refers to any more: versions, artifacts without a version, drafts, candidates, checkpoints, data.

Kept for ever is what any entry of the release log names, past ones too, with all that it descends from: parents, the
extractor a head was trained on, the data. Kept as well is what a draft that waits for a person names, and whatever is
younger than the grace age: it may belong to a run that is under way (decision 0009).
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from coda.contracts import DataRevision, ReleaseRecord
from coda.contracts.base import problems_of
from coda.errors import IntegrityError, Problem
from coda.registry.artifacts import remove, size_of, stored_models
from coda.registry.comparison import provenance_of
from coda.registry.drafts import WAITING, list_drafts
from coda.registry.releases import ReleaseLog
from coda.registry.versions import EXTRACTOR, HEAD, Version, list_versions
from coda.settings import Settings
from coda.storage.data_garbage import lost_objects, stray_objects
from coda.storage.objects import ObjectStore, store_for

Kind = Literal["draft", "candidates", "version", "artifacts", "checkpoint", "data"]


@dataclass(frozen=True)
class Garbage:
    """One thing that nothing refers to.

    Attributes:
        kind: What it is.
        name: Version, logged model, run folder or object.
        size: Bytes.
        modified: When it was last written.
        reason: Why nothing needs it, in words.
    """

    kind: Kind
    name: str
    size: int
    modified: datetime
    reason: str


@dataclass(frozen=True)
class _Roots:
    """What must stay: model versions, digests of models, data, and runs whose candidates a release was chosen from."""

    versions: frozenset[tuple[str, int]]
    digests: frozenset[str]
    data: frozenset[DataRevision]
    runs: frozenset[str]


def find_garbage(*, settings: Settings, before: datetime, held: bool = False) -> list[Garbage]:
    """Return what may be deleted; nothing is.

    Args:
        settings: Where the services are.
        before: What was written at this time (with time zone) or later stays, whatever refers to it.
        held: Also drafts that wait for a person, with their versions.

    Raises:
        IntegrityError: The release log, a kept version of the data, or the record of a kept model is not whole:
            nothing can be said to be garbage.
        TransientError: A service does not answer.
    """
    drafts, kept = _drafts(settings, before, held=held)
    roots = _roots(kept, list_versions(settings), settings, before)
    return [
        *drafts,
        *_candidates(settings, roots, before),
        *_models(settings, roots, before),
        *_checkpoints(settings, before),
        *(
            Garbage("data", item.key, item.size, item.modified, "no version of any batch that must stay names it")
            for item in stray_objects(roots.data, settings=settings, before=before)
        ),
    ]


def collect(found: Iterable[Garbage], *, settings: Settings, before: datetime, held: bool = False) -> list[Problem]:
    """Delete what was found, and is still garbage when it is checked again.

    Drafts go first, so that nobody can promote one whose models are about to go; then everything is looked at anew.

    Args:
        found: What `find_garbage` returned.
        settings: Where the services are.
        before: As for `find_garbage`.
        held: As for `find_garbage`.

    Returns:
        One problem for each data object that somebody versioned again in the seconds while it was deleted.

    Raises:
        TransientError: A service does not answer; repeating the call is safe.
    """
    wanted = {(item.kind, item.name) for item in found}
    platform = store_for(settings.platform, settings)
    for item in found:
        if item.kind == "draft":
            platform.delete(item.name)
    # a deleted draft takes away the last reference, never adds one: what was garbage and still is may go
    again = find_garbage(settings=settings, before=before, held=held)
    doomed = [item for item in again if (item.kind, item.name) in wanted]
    stored = {_name(model.version, model.model_id): model for model in stored_models(settings=settings)}
    data = store_for(settings.data_remote, settings)
    for item in doomed:
        if item.kind == "candidates":
            _empty(platform, item.name)
        elif item.kind in ("version", "artifacts") and item.name in stored:
            remove(stored[item.name], settings=settings)
        elif item.kind == "checkpoint":
            _forget(settings, item.name)
        elif item.kind == "data":
            data.delete(item.name)
    deleted = [item.name for item in doomed if item.kind == "data"]
    if not deleted:
        return []
    kept = _roots(_drafts(settings, before, held=held)[1], list_versions(settings), settings, before).data
    remedy = "Run its version step again, or deliver the batch again: it pushes what is missing."
    return [
        Problem(data.url(key), "deleted", "an object that a batch names since a moment ago", remedy)
        for key in lost_objects(deleted, kept, settings=settings)
    ]


def _drafts(settings: Settings, before: datetime, *, held: bool) -> tuple[list[Garbage], list[ReleaseRecord]]:
    """Return the drafts that may go, and every release and draft that stays."""
    log = ReleaseLog(settings)
    kept = {entry.release.digest(): entry.release for entry in log.entries()}
    released = {record.release_id for record in kept.values()}
    garbage = []
    for item, record in list_drafts(settings=settings, released=list(kept.values())):
        waits = record.approver == WAITING
        if record.release_id in released or item.modified >= before or (waits and not held):
            kept[record.digest()] = record
            continue
        reason = "waited for a person, and nobody promoted it" if waits else "its run never released it"
        garbage.append(Garbage("draft", item.key, item.size, item.modified, reason))
    return garbage, list(kept.values())


def _roots(kept: Iterable[ReleaseRecord], versions: Iterable[Version], settings: Settings, before: datetime) -> _Roots:
    known = {(item.name, item.ref.version): item for item in versions}
    refs = [ref for record in kept for ref in (record.extractor, record.head, *record.heads)]
    waiting = [(ref.name, ref.version) for ref in refs]
    waiting += [place for place, item in known.items() if item.created >= before]
    reached: set[tuple[str, int]] = set()
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        reached.add(place)
        tags = known[place].tags if place in known else {}
        for tag, name in (("parent_version", EXTRACTOR), ("extractor_version", EXTRACTOR), ("head_version", HEAD)):
            if tags.get(tag, "").isdigit():
                waiting.append((name, int(tags[tag])))
    # a release names the data of its own run; what its ancestors were trained on is in their own records
    data = {revision for record in kept for revision in record.data}
    data |= {item for place in sorted(reached & known.keys()) for item in _trained_on(known[place], settings)}
    digests = frozenset(ref.digest for ref in refs)
    return _Roots(frozenset(reached), digests, frozenset(data), frozenset(record.run_id for record in kept))


def _trained_on(version: Version, settings: Settings) -> list[DataRevision]:
    """Return the data of a registered version; raises IntegrityError where its record of it cannot be read."""
    if not version.tags.get("data"):
        return []
    recorded = provenance_of(version, settings=settings).get("data", ())
    try:
        return [DataRevision.model_validate(item) for item in recorded]
    except ValidationError as error:
        where = f"{version.name} version {version.ref.version}: data"
        raise IntegrityError("The origin of a registered version cannot be read.", problems_of(error, where)) from error


def _models(settings: Settings, roots: _Roots, before: datetime) -> Iterator[Garbage]:
    for item in stored_models(settings=settings):
        if item.created >= before or item.version in roots.versions:
            continue
        if item.version is None and item.digest in roots.digests:
            continue  # somebody deleted the version of a release in MLflow; its files are what it comes back from
        kind: Kind = "artifacts" if item.version is None else "version"
        reason = "no release, draft or descendant names it"
        if item.version is None:
            reason = "its registration never ended, or its version was deleted"
        size = size_of(item, settings=settings)
        yield Garbage(kind, _name(item.version, item.model_id), size, item.created, reason)


def _candidates(settings: Settings, roots: _Roots, before: datetime) -> Iterator[Garbage]:
    folders: dict[str, list[tuple[int, datetime]]] = {}
    for item in store_for(settings.platform, settings).list("runs/"):
        run, _, rest = item.key.removeprefix("runs/").partition("/")
        if rest.startswith("candidates/") and run not in roots.runs:
            folders.setdefault(f"runs/{run}/candidates/", []).append((item.size, item.modified))
    yield from _old_folders("candidates", folders, before, "answers of candidates of a run without a release")


def _checkpoints(settings: Settings, before: datetime) -> Iterator[Garbage]:
    folders: dict[str, list[tuple[int, datetime]]] = {}
    if settings.checkpoints.startswith("s3://"):
        for item in store_for(settings.checkpoints, settings).list():
            folders.setdefault(item.key.partition("/")[0], []).append((item.size, item.modified))
    else:
        root = Path(settings.checkpoints)
        for path in root.rglob("*") if root.is_dir() else ():
            if path.is_file():
                facts = path.stat()
                when = datetime.fromtimestamp(facts.st_mtime, UTC)
                folders.setdefault(path.relative_to(root).parts[0], []).append((facts.st_size, when))
    yield from _old_folders("checkpoint", folders, before, "left by a run that nobody resumed")


def _old_folders(
    kind: Kind, folders: dict[str, list[tuple[int, datetime]]], before: datetime, reason: str
) -> Iterator[Garbage]:
    for name, files in sorted(folders.items()):
        newest = max(modified for _, modified in files)
        if newest < before:
            yield Garbage(kind, name, sum(size for size, _ in files), newest, reason)


def _forget(settings: Settings, run: str) -> None:
    if settings.checkpoints.startswith("s3://"):
        _empty(store_for(settings.checkpoints, settings), f"{run}/")
    else:
        shutil.rmtree(Path(settings.checkpoints) / run, ignore_errors=True)


def _empty(store: ObjectStore, prefix: str) -> None:
    for item in list(store.list(prefix)):
        store.delete(item.key)


def _name(version: tuple[str, int] | None, model_id: str) -> str:
    return model_id if version is None else f"{version[0]}/{version[1]}"
