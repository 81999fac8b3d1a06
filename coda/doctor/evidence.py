"""Everything the doctor compares, read once: ledger, run folders, release log, drafts, model versions."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from coda.contracts import ModelRef, PointerEntry, QualityReport, ReleaseRecord, RunRecord
from coda.errors import Problem
from coda.registry import ReleaseLog, Version, list_versions
from coda.registry.drafts import DRAFT, released_drafts
from coda.settings import Settings
from coda.storage.objects import ObjectInfo, ObjectStore, store_for
from coda.storage.records import Record, UnreadableRecordError, find_record
from coda.trigger.ledger import Entry, Ledger, Unreadable

ABANDONED = timedelta(days=1)
"""Without a sign of life for so long, a run that no trigger looks after counts as left, and so do its leftovers."""

_CLAIM = re.compile(r"^ledger/[^/]+/[^/]+/[0-9a-f]{16}/")


@dataclass(frozen=True)
class RunFolder:
    """What one run left below ``runs/<run_id>/``.

    Attributes:
        run_id: The run.
        names: Its objects, relative to the folder.
        touched: When the newest of them was written.
        record: How it ended; none when it has not.
        draft: The release it drafted.
        quality: The verdict on its batch; none in a training run.
    """

    run_id: str
    names: frozenset[str]
    touched: datetime
    record: RunRecord | None
    draft: ReleaseRecord | None
    quality: QualityReport | None

    @property
    def accepted(self) -> bool:
        """Whether quality control accepted its batch."""
        return self.quality is not None and not self.quality.refused


@dataclass(frozen=True)
class Records:
    """One snapshot of everything.

    Attributes:
        settings: Where it all is.
        store: The platform bucket.
        ledger: The ledger, to append what a repair finds out.
        entries: Run id -> batch version in the ledger.
        unstarted: Folders of the ledger that hold a claim and no state.
        runs: Run id -> what the run left in the platform bucket.
        log: Scope -> entries of its release log, the oldest first.
        versions: Every version in MLflow.
        lease: Silence after which a claimed version is nobody's.
        abandoned: Silence after which a run outside the ledger, an upload or a folder is nobody's.
        now: Time of the look.
        unreadable: What stands in place of a record that can be read; nothing is compared with it.
    """

    settings: Settings
    store: ObjectStore
    ledger: Ledger
    entries: dict[str, Entry]
    unstarted: tuple[str, ...]
    runs: dict[str, RunFolder]
    log: dict[str, list[PointerEntry]]
    versions: list[Version]
    lease: timedelta
    abandoned: timedelta
    now: datetime
    unreadable: tuple[Problem, ...] = ()

    def released(self) -> dict[str, list[PointerEntry]]:
        """Return release id -> the entries that let it serve."""
        found: dict[str, list[PointerEntry]] = defaultdict(list)
        for entry in (entry for entries in self.log.values() for entry in entries):
            found[entry.release.release_id].append(entry)
        return found

    def named_models(self) -> set[ModelRef]:
        """Return every model that a release or a draft names."""
        records = [entry.release for entries in self.log.values() for entry in entries]
        records += [run.draft for run in self.runs.values() if run.draft is not None]
        return {ref for record in records for ref in models_of(record)}

    def live(self, run_id: str) -> bool:
        """Return whether a run may still write: the ledger has it open, or it wrote lately and has not ended."""
        entry = self.entries.get(run_id)
        if entry is not None:
            return not entry.last.final
        run = self.runs.get(run_id)
        return run is not None and run.record is None and self.now - run.touched < self.abandoned

    @property
    def any_live(self) -> bool:
        """Whether any run may still write."""
        return any(self.live(run_id) for run_id in {*self.entries, *self.runs})


def models_of(record: ReleaseRecord) -> tuple[ModelRef, ...]:
    """Return all models that a release names, each once."""
    return tuple(dict.fromkeys((record.extractor, record.head, *record.heads)))


def read_records(settings: Settings, *, lease: timedelta, abandoned: timedelta = ABANDONED) -> Records:
    """Read everything.

    What names other things is read before what it names, so that nothing written during the look is missed for want of
    it: ledger, runs, release log, models. Drafts are read after the log, which says what most of them are.

    Args:
        settings: Where the services are.
        lease: Silence after which a claimed version is nobody's.
        abandoned: Silence after which anything else is nobody's.

    Raises:
        IntegrityError: The release log is not whole, or MLflow holds a version without a digest.
        TransientError: A service is away.
    """
    store = store_for(settings.platform, settings)
    ledger = Ledger(store)
    found = ledger.entries()
    entries = {entry.last.run_id: entry for entry in found}
    newest = ledger.survey().unreadable
    known = {item.key: item for entry in found for item in entry.unreadable} | {item.key: item for item in newest}
    unreadable = [item.problem for _, item in sorted(known.items())]
    releases = ReleaseLog(settings)
    folders = _listed(store)
    runs = {run_id: _run(store, run_id, items, unreadable) for run_id, items in folders.items()}
    log = {}
    for scope in releases.scopes():
        try:
            log[scope] = releases.history(scope)
        except UnreadableRecordError as error:
            unreadable += error.problems
            if readable := releases.entries_readable(scope):
                log[scope] = readable
    released = [entry.release for history in log.values() for entry in history]
    runs |= {run.run_id: run for run in _drafted(store, runs, folders, released, unreadable)}
    return Records(
        settings=settings,
        store=store,
        ledger=ledger,
        entries=entries,
        unstarted=_unstarted(store, {f"{entry.last.version.folder}/" for entry in found} | _folders(newest)),
        runs=runs,
        log=log,
        versions=list_versions(settings),
        lease=lease,
        abandoned=abandoned,
        now=datetime.now(UTC),
        unreadable=tuple(unreadable),
    )


def _folders(broken: Iterable[Unreadable]) -> set[str]:
    return {f"{item.folder}/" for item in broken}


def _unstarted(store: ObjectStore, known: set[str]) -> tuple[str, ...]:
    found = {match[0] for item in store.list("ledger/") if (match := _CLAIM.match(item.key))}
    return tuple(sorted(found - known))


def _listed(store: ObjectStore) -> dict[str, list[ObjectInfo]]:
    folders: dict[str, list[ObjectInfo]] = defaultdict(list)
    for item in store.list("runs/"):
        folders[item.key.split("/")[1]].append(item)
    return folders


def _run(store: ObjectStore, run_id: str, items: list[ObjectInfo], unreadable: list[Problem]) -> RunFolder:
    """Return what a run left, without its draft; see `_drafted`."""
    prefix = f"runs/{run_id}/"
    names = frozenset(item.key.removeprefix(prefix) for item in items)
    return RunFolder(
        run_id=run_id,
        names=names,
        touched=max(item.modified for item in items),
        record=_found(store, f"{prefix}run.json", names, RunRecord, unreadable),
        draft=None,
        quality=_found(store, f"{prefix}quality.json", names, QualityReport, unreadable),
    )


def _drafted(
    store: ObjectStore,
    runs: dict[str, RunFolder],
    folders: dict[str, list[ObjectInfo]],
    released: list[ReleaseRecord],
    unreadable: list[Problem],
) -> Iterator[RunFolder]:
    """Yield the runs that left a draft, with it; one that is to the byte what the log says is not read again."""
    known = released_drafts(released)
    for run_id, run in runs.items():
        key = f"runs/{run_id}/{DRAFT}"
        for item in folders[run_id]:
            if item.key == key:
                draft = known.get((key, item.etag)) or _found(store, key, run.names, ReleaseRecord, unreadable)
                yield replace(run, draft=draft)


def _found(
    store: ObjectStore, key: str, names: frozenset[str], kind: type[Record], unreadable: list[Problem]
) -> Record | None:
    """Return a record, or None where there is none; one that cannot be read is reported, and stops nothing."""
    try:
        return find_record(store, key, kind) if key.rpartition("/")[2] in names else None
    except UnreadableRecordError as error:
        unreadable += error.problems
        return None
