"""Manifests that a person names: each by its own address, or all below a folder or prefix."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from coda.contracts.manifest import MANIFEST_NAME
from coda.errors import ConfigError, Problem, raise_if_any
from coda.settings import Settings
from coda.storage.objects import ObjectStore

DEPTH = 2
"""Folders between a place and a manifest: source and batch."""


def manifests_at(addresses: Sequence[str], settings: Settings) -> list[str]:
    """Return the manifests that are meant, in the order given; those of one folder in the order of their names.

    Args:
        addresses: A manifest (``.../manifest.json``), or a folder or ``s3://`` prefix: of one batch, of a source with
            its batches, or of several sources. Deeper folders are not looked into: images may lie there by millions.
        settings: Where object storage is.

    Raises:
        ConfigError: There is no manifest at one of them.
        TransientError: The storage is away.
    """
    found: list[str] = []
    problems: list[Problem] = []
    for address in addresses:
        if address.endswith(".json"):
            found.append(address)
            continue
        place = address.rstrip("/") or address
        below = list(_stored(place, settings) if "://" in place else _local(Path(place)))
        found += below
        if not below:
            remedy = "Check the address; a producer writes the manifest last, when all files are there."
            expected = f"{MANIFEST_NAME} there, or in folders <batch>/ or <source>/<batch>/ below"
            problems.append(Problem(address, "none", expected, remedy))
    raise_if_any(ConfigError, "There is no manifest.", problems)
    return list(dict.fromkeys(found))


def _local(folder: Path) -> Iterator[str]:
    for depth in range(DEPTH + 1):
        yield from (str(path) for path in sorted(folder.glob("*/" * depth + MANIFEST_NAME)) if path.is_file())


def _stored(address: str, settings: Settings) -> Iterator[str]:
    store = ObjectStore(address, settings.s3_endpoint)
    folders = [""]
    for depth in range(DEPTH + 1):
        yield from (
            store.url(f"{folder}{MANIFEST_NAME}") for folder in folders if store.exists(f"{folder}{MANIFEST_NAME}")
        )
        if depth < DEPTH:
            folders = [f"{folder}{name}/" for folder in folders for name in sorted(store.folders(folder))]
