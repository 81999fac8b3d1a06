"""A batch as DVC keeps a folder: its files under the MD5 of their content, a list of them, and the pointer Git keeps.

Written here and not by DVC, which can only add what lies on this disk: plate stores do not. A test compares every byte
with DVC's own.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coda.contracts.ingest import IngestReport
from coda.contracts.placement import STORES_NAME, StoreReference, StoreReferences
from coda.errors import ContractError, IntegrityError, Problem, raise_if_any
from coda.storage.bulk import content_type_of
from coda.storage.clone import Entry, entries_in, object_key
from coda.storage.failures import disk_explained
from coda.storage.objects import ObjectStore
from coda.storage.plate_stores import DataStore, md5_of

STORE_SUFFIX = ".ome.zarr.zip"
"""End of the names of plate stores, which are named and not fetched."""

FOR_PEOPLE = ("data_docs/", "examples/")
"""Folders of a batch that no later step reads."""

AT_ONCE = 8
"""Objects under way at once."""

REMEDY = "Restore the object from a backup; find out who deleted or changed it."


@dataclass(frozen=True)
class BatchTree:
    """The files of one version of a batch.

    Attributes:
        files: Files that lie on this disk, by their path in the batch.
        references: Plate stores that lie in the data store.
        entries: MD5 and path of all of them, in the order of their paths.
        size_bytes: Bytes of all of them.
    """

    files: dict[str, Path]
    references: tuple[StoreReference, ...]
    entries: tuple[Entry, ...]
    size_bytes: int

    @property
    def listing(self) -> bytes:
        """DVC's list of the files, as it writes it."""
        listed = [{"md5": item.md5, "relpath": item.relpath} for item in self.entries]
        return json.dumps(listed, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        """DVC's name for the folder: the MD5 of its list, with '.dir'."""
        return hashlib.md5(self.listing, usedforsecurity=False).hexdigest() + ".dir"

    def pointer(self, name: str) -> str:
        """Return the text of the .dvc file of a folder of this name, which is a Slug."""
        lines = ["outs:", f"- md5: {self.digest}", f"  size: {self.size_bytes}", f"  nfiles: {len(self.entries)}"]
        return "\n".join([*lines, "  hash: md5", f"  path: {name}"]) + "\n"


def tree_of(folder: Path) -> BatchTree:
    """Return the files of a batch folder, those that it names in the data store among them."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    listed = files.pop(STORES_NAME, None)
    known = StoreReferences.read(listed).stores if listed is not None else ()
    references = tuple(item for item in known if item.store not in files)
    entries = [Entry(md5=md5_of(path), relpath=name) for name, path in files.items()]
    entries += [Entry(md5=item.md5, relpath=item.store) for item in references]
    size = sum(path.stat().st_size for path in files.values()) + sum(item.size_bytes for item in references)
    return BatchTree(files, references, tuple(sorted(entries, key=lambda entry: entry.relpath)), size)


def store_tree(tree: BatchTree, remote: ObjectStore, data: DataStore) -> None:
    """Put what lies on this disk and the list of files into the data store, each content once; the list last of all.

    Raises:
        IntegrityError: The data store does not hold a plate store that the batch names.
        TransientError: It is away; repeating is safe.
    """
    digests = {entry.relpath: entry.md5 for entry in tree.entries}

    def send(name: str) -> None:
        path, key = tree.files[name], object_key(digests[name])
        if remote.size(key) != path.stat().st_size:
            remote.upload(path, key, content_type_of(path.name))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = list(pool.map(data.holds, tree.references))
        problems = [
            Problem(str(data.at(item)), "no such object, or one of another size", f"{item.size_bytes} bytes",
                    "Ingest the batch again; find out who deleted the object.")
            for item, there in zip(tree.references, held, strict=True) if not there
        ]  # fmt: skip
        raise_if_any(IntegrityError, "The data store does not hold a plate store that a batch names.", problems)
        list(pool.map(send, tree.files))
    if not remote.exists(object_key(tree.digest)):
        remote.put(object_key(tree.digest), tree.listing, "application/json")


def fetch_tree(digest: str, remote: ObjectStore, folder: Path, *, where: str) -> None:
    """Fetch a version of a batch as a folder of tables that names its plate stores in the data store.

    Args:
        digest: DVC's name for the folder ('<md5>.dir').
        remote: The data store.
        folder: Folder to write; it is not there yet.
        where: Name of the version, for messages.

    Raises:
        IntegrityError: The store does not hold the recorded bytes; all such files together.
        TransientError: It is away.
    """
    entries = listed_entries(digest, remote, where=where)
    tables = [
        item for item in entries if not item.relpath.endswith(STORE_SUFFIX) and not item.relpath.startswith(FOR_PEOPLE)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        contents = list(pool.map(lambda item: remote.find(object_key(item.md5)), tables))
    problems = [
        Problem(f"{where}: {item.relpath}", "nothing" if data is None else "other bytes", f"MD5 {item.md5}", REMEDY)
        for item, data in zip(tables, contents, strict=True)
        if data is None or hashlib.md5(data, usedforsecurity=False).hexdigest() != item.md5
    ]
    raise_if_any(IntegrityError, "The store behind the data registry does not hold what was recorded.", problems)
    with disk_explained(folder):
        for item, data in zip(tables, contents, strict=True):
            path = folder / item.relpath
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data or b"")
        stores = [item for item in entries if item.relpath.endswith(STORE_SUFFIX)]
        _references(folder, stores, remote).write(folder / STORES_NAME)


def listed_entries(digest: str, remote: ObjectStore, *, where: str) -> list[Entry]:
    """Return the files of a version of a batch from its list, verified; see `fetch_tree`."""
    listing = remote.find(object_key(digest))
    if listing is None or hashlib.md5(listing, usedforsecurity=False).hexdigest() != digest.removesuffix(".dir"):
        found = "nothing" if listing is None else "other bytes"
        problem = Problem(f"{where}: list of files", found, remote.url(object_key(digest)), REMEDY)
        raise IntegrityError("The store behind the data registry does not hold this batch.", [problem])
    return entries_in(listing, remote.url(object_key(digest)))


def _references(folder: Path, stores: Sequence[Entry], remote: ObjectStore) -> StoreReferences:
    """Name the plate stores, with the sizes that ingest recorded."""
    try:
        known = {plate.store: plate.store_bytes for plate in IngestReport.read(folder / "ingest.json").plates}
    except (FileNotFoundError, ContractError):
        known = {}
    found = []
    for item in stores:
        size = known.get(item.relpath) or remote.size(object_key(item.md5)) or 0
        found.append(StoreReference(store=item.relpath, md5=item.md5, size_bytes=size))
    return StoreReferences(stores=tuple(found))
