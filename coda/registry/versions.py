"""Registered models and their versions in MLflow: find, describe, fetch and verify."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coda.contracts import ModelRef
from coda.errors import ConfigError, IntegrityError, Problem
from coda.registry import signing
from coda.registry.mlflow_client import all_pages, connect, explained
from coda.registry.package import MODEL, PACKAGE, STATE, read_config
from coda.settings import Settings
from coda.storage.failures import disk_explained

EXTRACTOR = "coda-extractor"
HEAD = "coda-head"


@dataclass(frozen=True)
class Version:
    """One registered version as MLflow knows it.

    Attributes:
        ref: Name, number and digest.
        tags: Its tags: run_id, kind, alignment, digest, line, source, width, channels, ...
        created: When it was registered.
        aliases: MLflow aliases that point to it now.
        location: Where its files are; empty where MLflow must be asked for it.
    """

    ref: ModelRef
    tags: Mapping[str, str]
    created: datetime
    aliases: tuple[str, ...] = ()
    location: str = ""

    @property
    def name(self) -> str:
        """Registered model it is a version of."""
        return self.ref.name


def find(name: str, *, settings: Settings, **tags: str) -> list[Version]:
    """Return the versions of a model that carry these tags, the oldest first."""
    client = connect(settings)
    clauses = [f"name = '{name}'", *(f"tags.{key} = '{quoted(value)}'" for key, value in tags.items())]
    with explained(f"search the versions of {name}", settings):
        found = all_pages(lambda token: client.search_model_versions(" and ".join(clauses), page_token=token))
        # MLflow reads versions and their tags in two queries: one deleted in between comes back without any tag
        present = [item for item in found if item.tags or registered(name, int(item.version), settings=settings)]
    return sorted((_version(item) for item in present), key=lambda version: version.ref.version)


def list_versions(settings: Settings) -> list[Version]:
    """Return all versions of extractors and heads, by model and number, with the aliases that point to them."""
    aliases: dict[tuple[str, int], list[str]] = {}
    for name, pointed in aliases_of_models(settings).items():
        for alias, number in sorted(pointed.items()):
            aliases.setdefault((name, number), []).append(alias)
    return [
        replace(version, aliases=tuple(aliases.get((name, version.ref.version), ())))
        for name in (EXTRACTOR, HEAD)
        for version in find(name, settings=settings)
    ]


def aliases_of_models(settings: Settings) -> dict[str, dict[str, int]]:
    """Return registered model -> alias -> number of the version it points to.

    Asked of the models: over HTTP, a search for versions leaves their aliases out.
    """
    client = connect(settings)
    with explained("list the registered models", settings):
        models = all_pages(lambda token: client.search_registered_models(page_token=token))
        return {model.name: {alias: int(n) for alias, n in dict(model.aliases).items()} for model in models}


def registered(name: str, number: int, *, settings: Settings) -> Version | None:
    """Return a version by registered model and number, or none where there is no such version."""
    from mlflow.exceptions import MlflowException

    client = connect(settings)
    with explained(f"read {name} version {number}", settings):
        try:
            return _version(client.get_model_version(name, str(number)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None


def describe(ref: ModelRef, *, settings: Settings) -> Version:
    """Return what MLflow knows of a version.

    Raises:
        ConfigError: There is no such version.
        IntegrityError: It is registered with another digest.
    """
    where = f"{ref.name} version {ref.version}"
    version = registered(ref.name, ref.version, settings=settings)
    if version is None:
        problem = Problem(where, "no such version", "a registered version", "See `coda registry list --versions`.")
        raise ConfigError("The registry does not hold this version.", [problem])
    if version.ref.digest != ref.digest:
        remedy = "Find out who changed the record or the registry; do not use the model until then."
        problem = Problem(where, f"digest {version.ref.digest}", f"digest {ref.digest}", remedy)
        raise IntegrityError("The registry holds another model under this version.", [problem])
    return version


def version_of(name: str, number: int, *, settings: Settings) -> Version:
    """Return a version by its number.

    Args:
        name: Registered model, or its short form: ``extractor``, ``head``.
        number: Number of the version.
        settings: Where MLflow is.

    Raises:
        ConfigError: There is no such version.
    """
    full = {"extractor": EXTRACTOR, "head": HEAD}.get(name, name)
    found = registered(full, number, settings=settings)
    if found is not None:
        return found
    problem = Problem("version", f"{full}/{number}", "a registered version", "See `coda registry list --versions`.")
    raise ConfigError("There is no such version.", [problem])


def named_version(name: str, *, settings: Settings) -> Version | None:
    """Return the version that a person named (``coda-head/2``, ``head/2``); none where the name is no such pair.

    Raises:
        ConfigError: There is no such version.
    """
    model, slash, number = name.partition("/")
    return version_of(model, int(number), settings=settings) if slash and number.isdigit() else None


def fetched_config(ref: ModelRef, *, settings: Settings) -> dict[str, Any]:
    """Return the verified config of a version; see `fetch` for the errors."""
    with tempfile.TemporaryDirectory() as work:
        return read_config(fetch(ref, Path(work) / MODEL, settings=settings))


def fetch(ref: ModelRef, out: Path, *, settings: Settings) -> Path:
    """Fetch the model folder of a version and verify every byte, and its signature where a key asks for one.

    Args:
        ref: Version and digest.
        out: Folder to write, replaced when it is there.
        settings: Where MLflow is; ``verify_key`` is the key that must have signed the model.

    Returns:
        `out`, a model folder for `load_extractor` or `load_head`.

    Raises:
        IntegrityError: A file is missing or changed (named), the folder's digest is not the reference's, or a
            signature is asked for and does not hold.
        ConfigError: There is no such version.
        TransientError: MLflow does not answer.
    """
    return fetch_described(describe(ref, settings=settings), out, settings=settings)


def fetch_described(version: Version, out: Path, *, settings: Settings) -> Path:
    """Fetch the model folder of a version that `describe` returned, verified as `fetch` does."""
    return _fetch(version, MODEL, out, version.ref.digest, settings)


def fetch_state(ref: ModelRef, out: Path, *, settings: Settings) -> Path:
    """Fetch the adaptation state beside an extractor and verify every byte; see `fetch`.

    Raises:
        ConfigError: The version has none.
    """
    version = describe(ref, settings=settings)
    digest = version.tags.get("state_digest")
    if digest is None:
        problem = Problem(f"{ref.name} version {ref.version}", "no adaptation state", "one", "Train the source again.")
        raise ConfigError("This extractor cannot be adapted.", [problem])
    return _fetch(version, STATE, out, digest, settings)


def download(version: Version, part: str, folder: Path, *, settings: Settings) -> Path | None:
    """Fetch one file or folder of a version as it is stored, verifying nothing.

    Returns:
        Where the part is now; none where the version has no such part.

    Raises:
        TransientError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client, number = connect(settings), str(version.ref.version)
    with explained(f"fetch {version.name} version {number}", settings), disk_explained(folder):
        uri = version.location or client.get_model_version_download_uri(version.name, number)
        repository: Any = get_artifact_repository(
            uri, tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri
        )
        try:
            found = Path(repository.download_artifacts(part, str(folder)))
        except (FileNotFoundError, MlflowException) as error:
            if not _is_missing(error):
                raise
            return None
    return found if found.exists() else None


def _fetch(version: Version, part: str, out: Path, digest: str, settings: Settings) -> Path:
    from coda.networks import artifact

    where = f"{version.name} version {version.ref.version}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as draft:
        fetched = download(version, f"{PACKAGE}/{part}", Path(draft), settings=settings)
        if fetched is None:
            problem = Problem(f"{where}: {PACKAGE}/{part}", "nothing", "a model folder", "Restore the artifacts.")
            raise IntegrityError("The registry lost the files of this version.", [problem])
        try:
            artifact.load(fetched, digest)
        except IntegrityError as error:
            problems = [replace(item, where=item.where.replace(str(fetched), where)) for item in error.problems]
            raise IntegrityError(f"{where} is not the model that was registered.", problems) from error
        if settings.verify_key is not None:
            signature = f"{PACKAGE}/{part}{signing.SUFFIX}"
            download(version, signature, Path(draft), settings=settings)
            signing.require_signature(fetched, Path(draft) / signature, settings.verify_key, f"{where}/{part}")
        if out.exists():
            shutil.rmtree(out)
        fetched.replace(out)
    return out


def _is_missing(error: Exception) -> bool:
    # MLflow has one exception for all that can go wrong with artifacts; only its words tell a lost file from a failure
    words = ("No such artifact", "does not exist", "404 Client Error", "NoSuchKey")
    return isinstance(error, FileNotFoundError) or any(word in str(error) for word in words)


def _version(found: Any) -> Version:
    tags = dict(found.tags)
    where = f"{found.name} version {found.version}"
    if not re.fullmatch(r"[0-9a-f]{64}", tags.get("digest", "")):
        remedy = "Delete the version in MLflow, or restore its tag: it was not registered by this program."
        problem = Problem(where, f"tag digest {tags.get('digest')!r}", "the digest of the model folder", remedy)
        raise IntegrityError("The registry holds a version without a digest.", [problem])
    ref = ModelRef(name=found.name, version=int(found.version), digest=tags["digest"])
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    # MLflow answers the question where a version's files are with its source, unless that names another model: then it
    # looked up once where that one's are. It takes a dozen SQL statements for it, more with every version
    location = "" if str(found.source).startswith("models:") else str(found.source or "")
    return Version(ref, tags, created, tuple(sorted(found.aliases or ())), location)


def quoted(value: str) -> str:
    """Return a name for use between quotation marks in a search, refusing one that has some itself."""
    if "'" in value:
        problem = Problem("name", repr(value), "a name without quotation marks", "Choose another name.")
        raise ConfigError("The registry cannot search for this name.", [problem])
    return value
