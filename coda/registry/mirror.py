"""MLflow aliases that mirror the release log, for people who use MLflow's own pages.

The log is the truth: an alias that somebody moved by hand is reported by `drift`, and put back by `repair` or by the
next promotion.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from coda.contracts import ReleaseRecord
from coda.errors import Problem
from coda.registry.mlflow_client import connect, explained
from coda.registry.releases import ReleaseLog
from coda.registry.versions import EXTRACTOR, HEAD, aliases_of_models, registered
from coda.settings import Settings
from coda.storage.records import UnreadableRecordError

PREFIX = "serving-"
"""Aliases that begin like this are ours; others belong to the people who set them."""


def alias_of(scope: str) -> str:
    """Return the alias of a scope: ``serving-<scope>``; MLflow allows no dots, so names with dots get a short hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", scope)
    suffix = "" if plain == scope else "-" + hashlib.sha256(scope.encode()).hexdigest()[:6]
    return f"{PREFIX}{plain}{suffix}"


def mirror(record: ReleaseRecord, scope: str, *, settings: Settings) -> None:
    """Point the aliases of a scope to the extractor and head of a release."""
    client = connect(settings)
    with explained(f"set the aliases of {scope!r}", settings):
        for ref in (record.extractor, record.head):
            client.set_registered_model_alias(ref.name, alias_of(scope), str(ref.version))


def drift(*, settings: Settings) -> list[Problem]:
    """Return one problem for each alias that does not say what the release log says; its place is 'model@alias'."""
    remedy = "`coda registry verify --repair` puts it back: aliases follow the log, never the other way."
    return [
        Problem(f"{item.name}@{item.alias}", _words(item.found), _words(item.expected), remedy)
        for item in _differences(settings)
    ]


def repair(*, settings: Settings) -> list[Problem]:
    """Set every alias to what the release log says, and remove those of scopes it does not know.

    Returns:
        What still differs afterwards: an alias whose version is gone, or one that somebody moved at the same moment.
    """
    for item in _differences(settings):
        _set(item, settings)
    return drift(settings=settings)


def restore(place: str, *, settings: Settings) -> bool:
    """Set one alias to what the release log says, or remove it where the log does not know its scope.

    Args:
        place: The alias as `drift` names it: 'model@alias'.
        settings: Where MLflow and the platform bucket are.

    Returns:
        Whether it was changed: not when it says that already, or when the version it should name is gone.
    """
    alias = place.rpartition("@")[2]
    found = _differences(settings, lambda scope: alias_of(scope) == alias)
    return any(_set(item, settings) for item in found if f"{item.name}@{item.alias}" == place)


def _set(item: "_Difference", settings: Settings) -> bool:
    client = connect(settings)
    if item.expected is not None and registered(item.name, item.expected, settings=settings) is None:
        return False
    with explained(f"put back the alias {item.name}@{item.alias}", settings):
        if item.expected is None:
            client.delete_registered_model_alias(item.name, item.alias)
        else:
            client.set_registered_model_alias(item.name, item.alias, str(item.expected))
    return True


@dataclass(frozen=True)
class _Difference:
    """An alias, the version it points to, and the version it should point to; none for no alias at all."""

    name: str
    alias: str
    found: int | None
    expected: int | None


def _differences(settings: Settings, wanted: Callable[[str], bool] = lambda _: True) -> list[_Difference]:
    """Return what differs; of scopes that are not wanted, every alias does."""
    found = aliases_of_models(settings)
    expected: dict[str, dict[str, int]] = {EXTRACTOR: {}, HEAD: {}}
    unknown: set[str] = set()
    for scope, entry in ReleaseLog(settings).pointers(wanted).items():
        if isinstance(entry, UnreadableRecordError):
            # what it should say is not known: its aliases stay as they are, and the others are looked at
            unknown.add(alias_of(scope))
            continue
        for ref in (entry.release.extractor, entry.release.head):
            expected.setdefault(ref.name, {})[alias_of(scope)] = ref.version
    return [
        _Difference(name, alias, found.get(name, {}).get(alias), aliases.get(alias))
        for name, aliases in expected.items()
        for alias in sorted(aliases.keys() | {key for key in found.get(name, {}) if key.startswith(PREFIX)})
        if alias not in unknown and found.get(name, {}).get(alias) != aliases.get(alias)
    ]


def _words(version: int | None) -> str:
    return "no alias" if version is None else f"version {version}"
