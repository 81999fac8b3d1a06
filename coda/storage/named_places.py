"""Folders and prefixes that a person or a manifest names, as places of files."""

from pathlib import Path

from coda.errors import ConfigError, Problem
from coda.plates.manifests.places import LocalPlace, Place
from coda.settings import Settings
from coda.storage.image_places import images_place, store_at
from coda.storage.trees import ObjectTree


def place_at(address: str, settings: Settings, *, new: bool = False) -> Place:
    """Return the place that an operator typed.

    Args:
        address: A folder, or ``s3://bucket/prefix`` in any form of `coda.storage.image_places.store_at`.
        settings: Where object storage is, and how allowed places are read.
        new: Whether a folder may still have to be made.

    Raises:
        ConfigError: There is no such folder, or it is no address.
    """
    if "s3://" in address:
        return ObjectTree(store_at(address, settings))
    if not new and not Path(address).is_dir():
        problem = Problem(address, "no such folder", "a folder, or s3://bucket/prefix", "Check the name.")
        raise ConfigError(f"There is no {address}.", [problem])
    return LocalPlace(Path(address))


def below(address: str, name: str) -> str:
    """Return the address of a folder below another one, in any form that `place_at` takes."""
    place, mark, endpoint = address.partition("#") if "s3://" in address else (address, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{endpoint}"


def images_tree(images_at: str, settings: Settings) -> Place:
    """Return the place of a manifest's images; see `coda.storage.image_places.images_place` for what is refused."""
    place = images_place(images_at, settings)
    return LocalPlace(place) if isinstance(place, Path) else ObjectTree(place)
