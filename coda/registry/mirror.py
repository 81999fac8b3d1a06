"""MLflow aliases that mirror the release log, for people who look at MLflow's own pages.

The log is the truth: an alias that somebody moved by hand is reported by `drift` and put back by the next promotion.
"""

import hashlib
import re

from coda.contracts import ReleaseRecord
from coda.errors import Problem
from coda.registry.mlflow_client import connect, explained
from coda.registry.releases import ReleaseLog
from coda.registry.versions import EXTRACTOR, HEAD
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
    """Return one problem for each alias that does not say what the release log says."""
    client = connect(settings)
    log = ReleaseLog(settings)
    found: dict[str, dict[str, int]] = {}
    with explained("read the aliases", settings):
        for model in client.search_registered_models():
            found[model.name] = {alias: int(version) for alias, version in dict(model.aliases).items()}
    problems = []
    remedy = "Promote what should serve with `coda registry promote`; aliases follow the log, never the other way."
    expected: dict[str, dict[str, int]] = {EXTRACTOR: {}, HEAD: {}}
    for scope in log.scopes():
        record = log.current(scope)
        if record is not None:
            for ref in (record.extractor, record.head):
                expected.setdefault(ref.name, {})[alias_of(scope)] = ref.version
    for name, aliases in expected.items():
        held = {key: value for key, value in found.get(name, {}).items() if key.startswith("serving-")}
        for alias in sorted(set(aliases) | set(held)):
            if aliases.get(alias) != held.get(alias):
                was, should = held.get(alias, "nothing"), aliases.get(alias, "nothing")
                problems.append(Problem(f"{name}@{alias}", f"version {was}", f"version {should}", remedy))
    return problems
