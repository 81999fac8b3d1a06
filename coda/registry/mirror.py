"""MLflow aliases that mirror the release log, for people who look at MLflow's own pages.

The log is the truth: an alias that somebody moved by hand is reported by `drift` and put back by the next promotion.
"""

import hashlib
import re

from coda.contracts import ReleaseRecord
from coda.errors import Problem
from coda.registry.mlflow_client import connect, explained
from coda.registry.releases import ReleaseLog
from coda.registry.versions import EXTRACTOR, HEAD, find
from coda.settings import Settings


def alias_of(scope: str) -> str:
    """Return the alias of a scope: ``serving-<scope>``; MLflow allows no dots, so names with dots get a short hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", scope)
    suffix = "" if plain == scope else "-" + hashlib.sha256(scope.encode()).hexdigest()[:6]
    return f"serving-{plain}{suffix}"


def mirror(record: ReleaseRecord, scope: str, *, settings: Settings) -> None:
    """Point the aliases of a scope to the extractor and head of a release."""
    client = connect(settings)
    with explained(f"set the aliases of {scope!r}", settings):
        for ref in (record.extractor, record.head):
            client.set_registered_model_alias(ref.name, alias_of(scope), str(ref.version))


def drift(*, settings: Settings) -> list[Problem]:
    """Return one problem for each alias that does not say what the release log says; its place is 'model@alias'."""
    remedy = "Promote what should serve with `coda registry promote`; aliases follow the log, never the other way."
    return [
        Problem(f"{name}@{alias}", _in_words(held), _in_words(expected), remedy)
        for name, alias, held, expected in _differences(settings)
    ]


def restore(place: str, *, settings: Settings) -> bool:
    """Set one alias to what the release log says, or remove it where the log does not know its scope.

    Args:
        place: The alias as `drift` names it: 'model@alias'.
        settings: Where MLflow and the platform bucket are.

    Returns:
        Whether it was changed: not when it says that already, or when the version it should name is gone.
    """
    client = connect(settings)
    for name, alias, _, expected in _differences(settings):
        if f"{name}@{alias}" != place:
            continue
        if expected is not None and expected not in {item.ref.version for item in find(name, settings=settings)}:
            return False
        with explained(f"set the alias {alias!r} of {name}", settings):
            if expected is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(expected))
        return True
    return False


def _differences(settings: Settings) -> list[tuple[str, str, int | None, int | None]]:
    """Return model, alias, version it points to and version it should point to, wherever the two differ."""
    client = connect(settings)
    log = ReleaseLog(settings)
    found: dict[str, dict[str, int]] = {}
    with explained("read the aliases", settings):
        for model in client.search_registered_models():
            found[model.name] = {alias: int(version) for alias, version in dict(model.aliases).items()}
    expected: dict[str, dict[str, int]] = {EXTRACTOR: {}, HEAD: {}}
    for scope in log.scopes():
        record = log.current(scope)
        if record is not None:
            for ref in (record.extractor, record.head):
                expected.setdefault(ref.name, {})[alias_of(scope)] = ref.version
    differences = []
    for name, aliases in expected.items():
        held = {key: value for key, value in found.get(name, {}).items() if key.startswith("serving-")}
        differences += [
            (name, alias, held.get(alias), aliases.get(alias))
            for alias in sorted(set(aliases) | set(held))
            if aliases.get(alias) != held.get(alias)
        ]
    return differences


def _in_words(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
