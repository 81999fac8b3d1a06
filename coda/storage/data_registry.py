"""The data registry: a Git repository that names every accepted batch, and a DVC remote on S3 that holds the bytes.

A revision (Git commit) and a digest (DVC's md5 of the folder) name one version of one batch for ever. Bytes are pushed
before the commit that names them, so a commit never points at nothing; DVC's store is addressed by content, so pushing
twice changes nothing.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from coda.contracts import DataRevision
from coda.contracts.base import Slug
from coda.errors import CodaError, ConfigError, IntegrityError, Problem, TransientError, raise_if_any
from coda.settings import Settings
from coda.storage.clone import BRANCH, OBJECTS, Clone, cloned, digest_in, object_key
from coda.storage.dvc_tree import REMEDY, fetch_tree, listed_entries, store_tree, tree_of
from coda.storage.failures import disk_explained
from coda.storage.objects import ObjectStore
from coda.storage.plate_stores import DataStore
from coda.storage.programs import dvc, git

_SOURCE: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True)
class BatchToCommit:
    """A batch folder, and the names it gets in the registry."""

    source: str
    batch: str
    folder: Path

    @property
    def path(self) -> str:
        """Path in the data registry."""
        return f"data/{self.source}/{self.batch}"


def create_registry(path: Path, remote: str) -> None:
    """Create an empty data registry in a bare Git repository, with its first commit; one that is there stays.

    Args:
        path: Folder of the bare repository.
        remote: DVC remote, ``s3://bucket/prefix``; nothing is written there yet.
    """
    with disk_explained(path):
        path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet", "--bare", "--template=", f"--initial-branch={BRANCH}")
    with cloned(str(path), remote, endpoint=None) as clone:
        clone.publish({}, "")


def commit_batches(batches: Sequence[BatchToCommit], *, settings: Settings, run_id: str) -> list[DataRevision]:
    """Put batches into the registry, each once: content that is there already keeps the revision it has.

    What lies in a batch folder is sent to the data store; plate stores that it names there stay where they are.

    Returns:
        One revision a batch, in the order given.

    Raises:
        TransientError: Git or the object store does not answer, or too many writers pushed at once.
        ConfigError: There is no such registry, or no right to use it.
        IntegrityError: The data store does not hold a plate store that a batch names.
    """
    if not batches:
        return []
    _require_files(batches)
    remote, data = _remote(settings), DataStore(settings)
    remote.exists(".coda")  # fails in seconds, and in plain words, when the store is away
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        trees = {item.path: tree_of(item.folder) for item in batches}
        for tree in trees.values():
            # what the registry knows is looked up as well: it costs little, and heals a store that lost something
            store_tree(tree, remote, data)
        pointers = {path: tree.pointer(path.rpartition("/")[2]) for path, tree in trees.items()}
        new = {path: text for path, text in pointers.items() if not _known(clone, path, trees[path].digest)}
        if new:
            names = ", ".join(path.removeprefix("data/") for path in new)
            clone.publish(new, f"Add {names}\n\nrun: {run_id}\n")
        return [_named(path, clone.last_change(path), tree.digest) for path, tree in trees.items()]


def commit_batch(folder: Path, source: str, batch: str, *, settings: Settings, run_id: str) -> DataRevision:
    """Put one batch into the registry; see `commit_batches`."""
    return commit_batches([BatchToCommit(source, batch, folder)], settings=settings, run_id=run_id)[0]


def list_batches(source: str, *, settings: Settings, revision: str | None = None) -> list[DataRevision]:
    """Return the batches of a source, in the order in which they first came.

    Args:
        source: The source.
        settings: Where the registry is.
        revision: Commit to read; the newest when not given.

    Returns:
        For each batch its newest version at that commit.

    Raises:
        ConfigError: The source can have no such name, or the revision is no commit of the registry.
        TransientError: Git does not answer.
    """
    try:
        _SOURCE.validate_python(source)
    except ValidationError as error:
        remedy = "Give the source's name as its manifests have it, without a path."
        problem = Problem("source", repr(source), "a name of letters, digits, '.', '_' and '-'", remedy)
        raise ConfigError("There is no such source.", [problem]) from error
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        at = _commit(clone, revision) if revision else "HEAD"
        log = git(clone.folder, "log", "--reverse", "--format=%x00%H", "--name-only", at, "--", f"data/{source}/")
        newest: dict[str, str] = {}
        for entry in log.split("\0")[1:]:
            commit, *names = entry.split()
            for name in names:
                if name.endswith(".dvc"):
                    newest[name.removesuffix(".dvc")] = commit  # a dict keeps the place of the first insertion
        pointers = zip(newest.items(), clone.pointers([(path, at) for path in newest]), strict=True)
        return [
            _named(path, commit, digest_in(pointer, path))
            for (path, commit), pointer in pointers
            if pointer is not None  # none: somebody removed the batch
        ]


def find_batch(source: str, batch: str, *, settings: Settings, revision: str | None = None) -> DataRevision:
    """Return the newest version of a batch, or its version at a commit.

    Args:
        source: The source.
        batch: The batch.
        settings: Where the registry is.
        revision: Commit to read, in hexadecimal, possibly shortened; the newest when not given.

    Raises:
        ConfigError: The registry does not hold the batch, or the revision is no commit of it.
        TransientError: Git does not answer.
    """
    for item in list_batches(source, settings=settings, revision=revision):
        if item.batch == batch:
            return item
    at = f" at {revision}" if revision else ""
    remedy = f"See `coda data list {source}`; only accepted batches are versioned."
    problem = Problem(f"batch {source}/{batch}{at}", "nothing", "a batch of the data registry", remedy)
    raise ConfigError("There is no such batch.", [problem])


def missing_revisions(revisions: Sequence[DataRevision], *, settings: Settings) -> dict[DataRevision, Problem]:
    """Return what is wrong with each revision that the registry, or the store behind it, does not hold as named.

    One clone for all; of the store only the list of a batch's files is looked for, not the files: in listings, of which
    one answers for up to a thousand.

    Raises:
        ConfigError: There is no such registry.
        TransientError: Git or the object store does not answer.
    """
    found: dict[DataRevision, Problem] = {}
    if not revisions:
        return found
    remote = _remote(settings)
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        there = remote.present([object_key(item.digest) for item in revisions], OBJECTS)
        pointers = clone.pointers([(item.path, item.revision) for item in revisions])
        for item, pointer in zip(revisions, pointers, strict=True):
            try:
                _require_named(item, pointer)
            except IntegrityError as error:
                found[item] = error.problems[0]
                continue
            if object_key(item.digest) not in there:
                where, remedy = f"{item.path} ({item.revision[:12]})", "Restore the object from a backup."
                found[item] = Problem(where, "no list of its files", remote.url(object_key(item.digest)), remedy)
    return found


def fetch_batches(revisions: Sequence[DataRevision], out: Path, *, settings: Settings) -> list[Path]:
    """Fetch batches into a dataset folder, every byte verified.

    Args:
        revisions: What to fetch.
        out: Dataset folder; batches come to ``<out>/<source>/<batch>``, replacing what is there.
        settings: Where the registry and its remote are.

    Returns:
        The batch folders, in the order given.

    Raises:
        IntegrityError: The registry names another digest than the revision, or the store's bytes are not the
            recorded ones; with the file's name.
        TransientError: Git or the object store does not answer.
    """
    if not revisions:
        return []
    _remote(settings).exists(".coda")
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint, out.parent) as clone:
        for item in revisions:
            _write_pointer(clone, item)
        try:
            dvc(clone.folder, "pull", *(f"{item.path}.dvc" for item in revisions))
        except (ConfigError, TransientError):
            raise
        except CodaError:
            for item in revisions:
                _explain_missing(item, settings)
            raise
        return [_move(clone.folder / item.path, out / item.source / item.batch) for item in revisions]


def fetch_tables(revisions: Sequence[DataRevision], out: Path, *, settings: Settings) -> list[Path]:
    """Fetch batches into a dataset folder without their plate stores, which stay in the data store and are named.

    Args:
        revisions: What to fetch.
        out: Dataset folder; batches come to ``<out>/<source>/<batch>``, replacing what is there.
        settings: Where the registry and its remote are.

    Returns:
        The batch folders, in the order given.

    Raises:
        IntegrityError: The registry names another digest than the revision, or the store's bytes are not the
            recorded ones; with the file's name.
        TransientError: Git or the object store does not answer.
    """
    if not revisions:
        return []
    remote = _remote(settings)
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        for item in revisions:
            _named_pointer(clone, item)
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".tables-", dir=out))
    try:
        targets = []
        for number, item in enumerate(revisions):
            fetch_tree(item.digest, remote, work / str(number), where=f"{item.path} ({item.revision[:12]})")
            targets.append(_move(work / str(number), out / item.source / item.batch))
        return targets
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch_batch(revision: DataRevision, out: Path, *, settings: Settings) -> Path:
    """Fetch one batch; see `fetch_batches`."""
    return fetch_batches([revision], out, settings=settings)[0]


def _commit(clone: Clone, revision: str) -> str:
    """Return the full name of a commit. Only hexadecimal goes to git: other text could be an option."""
    found = ""
    if re.fullmatch(r"[0-9a-f]{4,40}", revision):
        with suppress(CodaError):
            found = git(clone.folder, "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}").strip()
    if not found:
        problem = Problem("revision", repr(revision), "a commit of the data registry", "See `coda data list SOURCE`.")
        raise ConfigError("The data registry has no such revision.", [problem])
    return found


def _remote(settings: Settings) -> ObjectStore:
    return ObjectStore(settings.data_remote, settings.s3_endpoint)


def _require_files(batches: Sequence[BatchToCommit]) -> None:
    problems = [
        Problem(str(item.folder), "no files", "the folder of an ingested batch", "Run ingest first.")
        for item in batches
        if not item.folder.is_dir() or not any(path.is_file() for path in item.folder.rglob("*"))
    ]
    raise_if_any(ConfigError, "There is nothing to version.", problems)


def _known(clone: Clone, path: str, digest: str) -> bool:
    before = clone.pointer(path)
    return before is not None and digest_in(before, path) == digest


def _named(path: str, commit: str, digest: str) -> DataRevision:
    _, source, batch = path.split("/", 2)
    return DataRevision(source=source, batch=batch, path=path, revision=commit, digest=digest)


def _write_pointer(clone: Clone, item: DataRevision) -> None:
    pointer = _named_pointer(clone, item)
    file = clone.folder / f"{item.path}.dvc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(pointer, encoding="utf-8")


def _named_pointer(clone: Clone, item: DataRevision) -> str:
    """Return the .dvc file that a revision names, with the digest it names."""
    return _require_named(item, clone.pointer(item.path, item.revision))


def _require_named(item: DataRevision, pointer: str | None) -> str:
    if pointer is None:
        remedy = "Check CODA_DATA_REGISTRY, and whether its history was rewritten."
        problem = Problem(f"{item.path} at {item.revision}", "nothing", "a version of the batch", remedy)
        raise IntegrityError("The data registry does not hold this version of the batch.", [problem])
    found = digest_in(pointer, item.path)
    if found != item.digest:
        remedy = "Find out who changed the record or the registry."
        problem = Problem(f"{item.path} at {item.revision}", f"digest {found}", f"digest {item.digest}", remedy)
        raise IntegrityError("The data registry holds other data under this revision.", [problem])
    return pointer


def _explain_missing(item: DataRevision, settings: Settings) -> None:
    """Check every object of a batch that DVC could not fetch, and raise with the names of the bad ones."""
    remote = _remote(settings)
    where = f"{item.path} ({item.revision[:12]})"
    problems = []
    for entry in listed_entries(item.digest, remote, where=where):
        content = remote.find(object_key(entry.md5))
        if content is None or hashlib.md5(content, usedforsecurity=False).hexdigest() != entry.md5:
            found = "nothing" if content is None else "other bytes"
            problems.append(Problem(f"{where}: {entry.relpath}", found, f"MD5 {entry.md5}", REMEDY))
    raise_if_any(IntegrityError, "The store behind the data registry does not hold what was recorded.", problems)


def _move(folder: Path, target: Path) -> Path:
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)  # DVC write-protects what it links to its cache
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    folder.replace(target)
    return target
