"""Writing the manifest of drafted plates: tables, then digests (each image is read once), and the manifest last."""

from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BatchManifest
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.manifests.digests import KeptDigests, Progress, digests_of
from coda.plates.manifests.draft import Draft
from coda.plates.manifests.places import Place


def publish(
    made: Draft, place: Place, out: Place, kept: KeptDigests, *, workers: int, progress: Progress, replacing: bool
) -> tuple[BatchManifest, bool]:
    """Write the tables, compute the digests, and write the manifest last of all.

    Args:
        made: What was found.
        place: Where the images lie.
        out: Where tables and manifest go.
        kept: Digests that earlier, interrupted calls computed.
        workers: Files under way at once.
        progress: Told of every image.
        replacing: Replace a different manifest (and tables) that are there.

    Returns:
        The manifest, and whether it was written: one that says the same is left as it is.

    Raises:
        ConfigError: Another manifest or table is there, or the place cannot be written.
        ContractError: Files vanished or changed while they were read.
        TransientError: A storage is away. The same call goes on where it stopped.
    """
    old = _existing(out)
    if not replacing:
        _refuse_others(made, old, out)
    for path, body in made.tables.items():
        if out.size(path) != len(body) or out.read(path, at_most=len(body)) != body:
            out.put(path, body, "text/csv; charset=utf-8")
    manifest = made.manifest(digests_of(place, made.files, kept, workers=workers, progress=progress))
    if old is not None and isinstance(old, BatchManifest) and _content(old) == _content(manifest):
        return old, False
    body = manifest.to_json().encode()
    if old is not None and replacing:
        out.put(MANIFEST_NAME, body, "application/json")
    elif old is not None or not out.create(MANIFEST_NAME, body, "application/json"):
        raise _taken(out, "a manifest with other digests" if old is not None else "a manifest that came meanwhile")
    return manifest, True


def _existing(out: Place) -> BatchManifest | str | None:
    """Return the manifest that is there; a few words where it is none that can be read; None where there is none."""
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
        if _content(old, digests=False) != _content(made.manifest(), digests=False):
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


def _content(manifest: BatchManifest, *, digests: bool = True) -> object:
    """Return what a manifest says, its time apart."""
    said = manifest.model_dump(mode="json", exclude={"created_at"})
    if not digests:
        for plate in said["plates"]:
            for file in plate["files"]:
                del file["sha256"]
    return said
