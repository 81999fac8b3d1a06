"""Whether the releases' models are there and are the recorded ones, and whether every model belongs to something."""

from collections.abc import Iterator
from functools import partial

from coda.contracts import DataRevision, ModelRef, ReleaseRecord
from coda.doctor.evidence import Records, models_of
from coda.doctor.findings import Finding, Repair
from coda.errors import ConfigError, IntegrityError, Problem
from coda.registry import verify_release
from coda.registry.mirror import drift, restore
from coda.storage.data_registry import missing_revisions


def models(records: Records) -> Iterator[Finding]:
    """Yield releases whose models are missing or changed, and versions that nothing names."""
    registered = {(item.name, item.ref.version): item for item in records.versions}
    wrong: set[ModelRef] = set()
    for release_id, entries in records.released().items():
        for ref in models_of(entries[0].release):
            item = registered.get((ref.name, ref.version))
            if ref in wrong or (item is not None and item.ref.digest == ref.digest):
                continue
            wrong.add(ref)
            found = "no such version" if item is None else f"digest {item.ref.digest}"
            remedy = "Restore MLflow's database from its backup; until then `coda registry rollback`."
            problem = Problem(f"release {release_id}: {ref.name} {ref.version}", found, f"digest {ref.digest}", remedy)
            yield Finding("model", problem, bytes_differ=item is not None)
    yield from _serving(records, wrong)
    if not records.unreadable:  # what cannot be read may name them
        yield from _orphans(records)


def aliases(records: Records) -> Iterator[Finding]:
    """Yield MLflow aliases that do not say what the release log says."""
    for problem in drift(settings=records.settings):
        act = partial(restore, problem.where, settings=records.settings)
        yield Finding("alias", problem, Repair(f"{problem.where} says what the release log says.", act))


def data(records: Records) -> Iterator[Finding]:
    """Yield data revisions that a run or a release names and the data registry or its store lacks."""
    named: dict[DataRevision, str] = {}
    for run in records.runs.values():
        for item in run.record.data if run.record is not None else ():
            named.setdefault(item, f"run {run.run_id}")
    for release_id, entries in records.released().items():
        for item in entries[0].release.data:
            named.setdefault(item, f"release {release_id}")
    for item, problem in missing_revisions(list(named), settings=records.settings).items():
        told = Problem(f"{named[item]}: {problem.where}", problem.found, problem.expected, problem.remedy)
        yield Finding("data", told)


def _serving(records: Records, wrong: set[ModelRef]) -> Iterator[Finding]:
    """Fetch what serves, each pair once, and verify every byte."""
    pairs: dict[tuple[ModelRef, ModelRef, str], tuple[str, ReleaseRecord]] = {}
    for scope, entries in records.log.items():
        record = entries[-1].release
        pairs.setdefault((record.extractor, record.head, record.alignment), (scope, record))
    for scope, record in pairs.values():
        if wrong & set(models_of(record)):
            continue  # told already
        try:
            verify_release(record, settings=records.settings)
        except (IntegrityError, ConfigError) as error:
            for problem in error.problems:
                told = Problem(f"what serves {scope}: {problem.where}", problem.found, problem.expected, problem.remedy)
                yield Finding("model", told, bytes_differ=isinstance(error, IntegrityError))


def _orphans(records: Records) -> Iterator[Finding]:
    named = {(ref.name, ref.version) for ref in records.named_models()}
    for item in records.versions:
        run_id = item.tags.get("run_id", "")
        young = records.now - item.created < records.lease
        if (item.name, item.ref.version) in named or records.live(run_id) or young:
            continue
        problem = Problem(
            f"{item.name} version {item.ref.version}",
            f"a version of run {run_id or 'unknown'} that no release, draft or live run names",
            "a release or a draft that names it",
            f"See `coda registry show {item.name}/{item.ref.version}`; `coda registry gc` removes what nobody wants.",
        )
        yield Finding("orphan_version", problem)
