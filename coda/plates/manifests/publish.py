"""Writing the manifest of drafted plates: tables, digests (each image is read once), file lists, the manifest last."""

from collections.abc import Callable, Mapping

from coda.contracts.base import digest_of_json
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BatchManifest, PlateEntry
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.file_lists import FileList, FileListError, decoded_list, read_file_list
from coda.plates.manifests.digests import KeptDigests, Progress, digests_of
from coda.plates.manifests.draft import Draft
from coda.plates.manifests.places import Place, PlaceFiles

ListOf = Callable[[PlateEntry], FileList]
"""Gives the file list of a plate that has one; raises a `FileListError`."""


def publish(
    made: Draft, place: Place, out: Place, kept: KeptDigests, *, workers: int, progress: Progress, replacing: bool
) -> tuple[BatchManifest, bool]:
    """Write the tables, compute the digests, write the file lists of a large batch, and the manifest last of all.

    Args:
        made: What was found.
        place: Where the images lie.
        out: Where tables and manifest go.
        kept: Digests that earlier, interrupted calls computed.
        workers: Files under way at once.
        progress: Called after every image.
        replacing: Replace a different manifest (and tables) that are there.

    Returns:
        The manifest, and whether it was written: one that says the same is left as it is.

    Raises:
        ConfigError: Another manifest or table is there, or the place cannot be written.
        ContractError: Files vanished or changed while they were read.
        TransientError: A storage is away. The same call resumes where it stopped.
    """
    old = _existing(out)
    if not replacing:
        _refuse_others(made, old, out)
    for path, body in made.tables.items():
        if out.size(path) != len(body) or out.read(path, at_most=len(body)) != body:
            out.put(path, body, "text/csv; charset=utf-8")
    manifest, lists = made.described(digests_of(place, made.files, kept, workers=workers, progress=progress))
    if isinstance(old, BatchManifest) and _content(old, _lists_at(out)) == _content(manifest, _lists_made(lists)):
        return old, False
    if old is not None and not replacing:
        raise _taken(out, "a manifest with other digests")
    for path, data in lists.items():
        _put_list(out, path, data, replacing=replacing)
    body = manifest.to_json().encode()
    if old is not None:
        out.put(MANIFEST_NAME, body, "application/json")
    elif not out.create(MANIFEST_NAME, body, "application/json"):
        raise _taken(out, "a manifest that came meanwhile")
    return manifest, True


def _put_list(out: Place, path: str, data: bytes, *, replacing: bool) -> None:
    """Write a file list; another one that is there is replaced only when that was asked for."""
    size = out.size(path)
    if size == len(data) and out.read(path, at_most=size) == data:
        return
    if size is not None and not replacing:
        remedy = "Give another place with --out; or --replace, if the file is of an earlier build."
        problem = Problem(f"{out.where}: {path}", "another file", "no file, or this file list", remedy)
        raise ConfigError("A file list would replace a file.", [problem])
    out.put(path, data, "application/vnd.apache.parquet")


def _existing(out: Place) -> BatchManifest | str | None:
    """Return the manifest that is there; a short text where it cannot be read; None where there is none."""
    size = out.size(MANIFEST_NAME)
    if size is None:
        return None
    if size > MAX_MANIFEST_BYTES:
        return f"a file of {size} bytes"
    try:
        return BatchManifest.parse(out.read(MANIFEST_NAME, at_most=MAX_MANIFEST_BYTES), MANIFEST_NAME)
    except ContractError:
        return "a file that is no manifest"


def _refuse_others(made: Draft, old: BatchManifest | str | None, out: Place) -> None:
    """Refuse, before hours of reading, what would be replaced without having been asked to."""
    if isinstance(old, str):
        raise _taken(out, old)
    if old is not None:
        manifest, lists = made.described()
        if _content(old, _lists_at(out), digests=False) != _content(manifest, _lists_made(lists), digests=False):
            raise _taken(out, f"the manifest of {old.batch_id} with other contents")
        return
    others = [
        path for path, body in made.tables.items()
        if (size := out.size(path)) is not None
        and (size != len(body) or out.read(path, at_most=len(body)) != body)
    ]  # fmt: skip
    remedy = "Give another place with --out; or --replace, if the file is of an earlier build."
    problems = [Problem(f"{out.where}: {path}", "another file", "no file, or this table", remedy) for path in others]
    raise_if_any(ConfigError, "A table would replace a file.", problems)


def _taken(out: Place, found: str) -> ConfigError:
    remedy = (
        "Give another place with --out, or --replace it; a running pipeline takes a changed manifest for a new one."
    )
    problem = Problem(f"{out.where}: {MANIFEST_NAME}", found, "none, or the same one", remedy)
    return ConfigError("There is another manifest.", [problem])


def _lists_at(out: Place) -> ListOf:
    return lambda entry: read_file_list(PlaceFiles(out), entry)


def _lists_made(lists: Mapping[str, bytes]) -> ListOf:
    return lambda entry: decoded_list(lists[entry.file_list.path if entry.file_list else ""], entry)


def _content(manifest: BatchManifest, list_of: ListOf, *, digests: bool = True) -> object:
    """Return what a manifest says, its time apart; a file list by what it lists, whatever release wrote it."""
    said = manifest.model_dump(mode="json", exclude={"created_at"})
    for plate, entry in zip(said["plates"], manifest.plates, strict=True):
        if not digests:
            for file in plate["files"]:
                del file["sha256"]
        if entry.file_list is not None:
            plate["file_list"] = _listed(list_of, entry, digests=digests)
    return said


def _listed(list_of: ListOf, entry: PlateEntry, *, digests: bool) -> object:
    """Return path and content of a plate's file list as a few values; a list that cannot be read is like no other."""
    try:
        table = list_of(entry).table
    except FileListError:
        return None
    names = table.column_names if digests else [name for name in table.column_names if name != "sha256"]
    return entry.file_list.path if entry.file_list else "", digest_of_json([table.column(n).to_pylist() for n in names])
