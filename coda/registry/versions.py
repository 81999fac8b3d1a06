"""Registered models and their versions in MLflow: register once, find, describe, fetch and verify."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coda.contracts import DataRevision, ModelRef
from coda.errors import ConfigError, IntegrityError, Problem
from coda.registry.mlflow_client import connect, experiment_id, explained
from coda.registry.package import PACKAGE, build_package, read_config, require_kind
from coda.settings import Settings
from coda.storage.failures import disk_explained

EXTRACTOR = "coda-extractor"
HEAD = "coda-head"

_TAG_LENGTH = 4500
"""MLflow refuses tags of more than 5000 characters; the whole list of data is in provenance.json."""


@dataclass(frozen=True)
class Provenance:
    """Where a version comes from.

    Attributes:
        run_id: Pipeline run that made it.
        source: Source it was made for.
        params_digest: Digest of the run's parameters.
        data: Data revisions it was trained on.
        code_version: Version of this code.
        image: Container image, with digest, when there is one.
        remarks: Further facts: method, base release, parent version, figures; JSON values.
    """

    run_id: str
    source: str
    params_digest: str
    data: tuple[DataRevision, ...] = ()
    code_version: str = ""
    image: str = ""
    remarks: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {
            "run_id": self.run_id,
            "source": self.source,
            "params_digest": self.params_digest,
            "data": [item.model_dump(mode="json") for item in self.data],
            "code_version": self.code_version,
            "image": self.image,
            **self.remarks,
        }


@dataclass(frozen=True)
class Version:
    """One registered version as MLflow knows it.

    Attributes:
        ref: Name, number and digest.
        tags: Its tags: run_id, kind, alignment, digest, line, source, width, channels, ...
        created: When it was registered.
        aliases: MLflow aliases that point to it now.
    """

    ref: ModelRef
    tags: Mapping[str, str]
    created: datetime
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Registered model it is a version of."""
        return self.ref.name


def register_extractor(
    model: Path, state: Path | None, provenance: Provenance, *, settings: Settings, line: str | None = None
) -> ModelRef:
    """Register an extractor with its adaptation state; the same one of the same run only once.

    Args:
        model: Model folder of the extractor.
        state: Model folder of the adaptation state beside it.
        provenance: Where it comes from.
        settings: Where MLflow is.
        line: Digest of the pretrained extractor it was adapted from; its own when not given. Heads fit one line.

    Raises:
        IntegrityError: A folder is not what its digests say.
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    from coda.networks import artifact  # brings torch, which a service that only reads the log does without

    config = read_config(model)
    require_kind(config, "extractor", model)
    digest = artifact.folder_digest(model)
    tags = {"kind": "extractor", "alignment": "none", "digest": digest, "line": line or digest}
    if state is not None:
        _, state_config = artifact.load(state)
        require_kind(state_config, "adaptation_state", state)
        tags["state_digest"] = artifact.folder_digest(state)
    return _register(EXTRACTOR, (model, state), {**tags, **_shape(config)}, provenance, settings)


def register_head(model: Path, extractor: ModelRef, provenance: Provenance, *, settings: Settings) -> ModelRef:
    """Register a head with the extractor it was trained on; the same one of the same run only once.

    Args:
        model: Model folder of the head, with its label list and token statistics.
        extractor: Registered extractor whose tokens it was trained on.
        provenance: Where it comes from.
        settings: Where MLflow is.

    Raises:
        IntegrityError: The folder is not what its digests say.
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    from coda.networks import artifact  # brings torch, which a service that only reads the log does without

    config = read_config(model)
    require_kind(config, "head", model)
    tags = {
        "kind": "head",
        "alignment": str(config["alignment"]),
        "digest": artifact.folder_digest(model),
        "line": describe(extractor, settings=settings).tags.get("line", extractor.digest),
        "extractor_version": str(extractor.version),
        "classes": ", ".join(config["classes"])[:_TAG_LENGTH],
    }
    return _register(HEAD, (model, None), {**tags, **_shape(config)}, provenance, settings)


def find(name: str, *, settings: Settings, **tags: str) -> list[Version]:
    """Return the versions of a model that carry these tags, the oldest first."""
    client = connect(settings)
    clauses = [f"name = '{name}'", *(f"tags.{key} = '{_quoted(value)}'" for key, value in tags.items())]
    with explained(f"search the versions of {name}", settings):
        found = client.search_model_versions(" and ".join(clauses))
        # MLflow reads versions and their tags in two queries: one deleted in between comes back without any tag
        present = [item for item in found if item.tags or _exists(client, item)]
    return sorted((_version(item) for item in present), key=lambda version: version.ref.version)


def list_versions(settings: Settings) -> list[Version]:
    """Return all versions of extractors and heads, by model and number, with the aliases that point to them."""
    client = connect(settings)
    with explained("list the registered models", settings):
        # over HTTP, a search for versions leaves their aliases out
        models = {model.name: dict(model.aliases) for model in client.search_registered_models()}
    return [
        replace(
            version,
            aliases=tuple(sorted(a for a, n in models.get(name, {}).items() if int(n) == version.ref.version)),
        )
        for name in (EXTRACTOR, HEAD)
        for version in find(name, settings=settings)
    ]


def describe(ref: ModelRef, *, settings: Settings) -> Version:
    """Return what MLflow knows of a version.

    Raises:
        ConfigError: There is no such version.
        IntegrityError: It is registered with another digest.
    """
    from mlflow.exceptions import MlflowException

    client = connect(settings)
    where = f"{ref.name} version {ref.version}"
    with explained(f"read {where}", settings):
        try:
            version = _version(client.get_model_version(ref.name, str(ref.version)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            problem = Problem(where, "no such version", "a registered version", "See `coda registry list`.")
            raise ConfigError("The registry does not hold this version.", [problem]) from error
    if version.ref.digest != ref.digest:
        remedy = "Find out who changed the record or the registry; do not use the model until then."
        problem = Problem(where, f"digest {version.ref.digest}", f"digest {ref.digest}", remedy)
        raise IntegrityError("The registry holds another model under this version.", [problem])
    return version


def fetch(ref: ModelRef, out: Path, *, settings: Settings) -> Path:
    """Fetch the model folder of a version and verify every byte.

    Args:
        ref: Version and digest.
        out: Folder to write, replaced when it is there.
        settings: Where MLflow is.

    Returns:
        `out`, a model folder for `load_extractor` or `load_head`.

    Raises:
        IntegrityError: A file is missing or changed (named), or the folder's digest is not the reference's.
        ConfigError: There is no such version.
        TransientError: MLflow does not answer.
    """
    return _fetch(ref, "model", out, ref.digest, settings)


def fetch_state(ref: ModelRef, out: Path, *, settings: Settings) -> Path:
    """Fetch the adaptation state beside an extractor and verify every byte; see `fetch`.

    Raises:
        ConfigError: The version has none.
    """
    digest = describe(ref, settings=settings).tags.get("state_digest")
    if digest is None:
        problem = Problem(f"{ref.name} version {ref.version}", "no adaptation state", "one", "Train the source again.")
        raise ConfigError("This extractor cannot be adapted.", [problem])
    return _fetch(ref, "state", out, digest, settings)


def _fetch(ref: ModelRef, part: str, out: Path, digest: str, settings: Settings) -> Path:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from coda.networks import artifact

    describe(ref, settings=settings)
    client = connect(settings)
    where = f"{ref.name} version {ref.version}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as draft:
        with explained(f"fetch {where}", settings), disk_explained(out):
            uri = client.get_model_version_download_uri(ref.name, str(ref.version))
            repository: Any = get_artifact_repository(
                uri, tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri
            )
            try:
                fetched = Path(repository.download_artifacts(f"{PACKAGE}/{part}", draft))
            except (FileNotFoundError, MlflowException) as error:
                if not _is_missing(error):
                    raise
                problem = Problem(f"{where}: {PACKAGE}/{part}", "nothing", "a model folder", "Restore the artifacts.")
                raise IntegrityError("The registry lost the files of this version.", [problem]) from error
        try:
            artifact.load(fetched, digest)
        except IntegrityError as error:
            problems = [replace(item, where=item.where.replace(str(fetched), where)) for item in error.problems]
            raise IntegrityError(f"{where} is not the model that was registered.", problems) from error
        if out.exists():
            shutil.rmtree(out)
        fetched.replace(out)
    return out


def _is_missing(error: Exception) -> bool:
    # MLflow has one exception for all that can go wrong with artifacts; only its words tell a lost file from a failure
    words = ("No such artifact", "does not exist", "404 Client Error", "NoSuchKey")
    return isinstance(error, FileNotFoundError) or any(word in str(error) for word in words)


def _register(
    name: str, folders: tuple[Path, Path | None], tags: dict[str, str], provenance: Provenance, settings: Settings
) -> ModelRef:
    key = {"run_id": provenance.run_id, "kind": tags["kind"], "alignment": tags["alignment"], "digest": tags["digest"]}
    if known := find(name, settings=settings, **key):
        return known[0].ref
    client = connect(settings)
    tags = {**tags, **_origin(provenance)}
    with explained(f"register {name}", settings), tempfile.TemporaryDirectory() as work, disk_explained(Path(work)):
        folder = build_package(Path(work), *folders, provenance.to_json())
        experiment = experiment_id(client, settings)
        run = run_of(client, experiment, provenance.run_id)
        logged = client.create_logged_model(experiment, name=name, source_run_id=run, tags=tags)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        _ensure_model(client, name)
        # the tags come with the version in one request: there is never a version without its digest
        # (the source is the place itself: 'models:/<id>' would be looked up at the process-wide tracking URI)
        made = client.create_model_version(
            name, source=logged.artifact_location, run_id=run, tags=tags, model_id=logged.model_id
        )
    first = find(name, settings=settings, **key)[0].ref
    if first.version != int(made.version):
        # another process registered the same model at the same moment; both agree on the lower number
        with explained(f"remove the second copy of {name}", settings):
            client.delete_model_version(name, str(made.version))
    return first


def run_of(client: Any, experiment: str, run_id: str) -> str:
    """Return the MLflow run that stands for a pipeline run, creating it where it is missing."""
    found = client.search_runs([experiment], f"tags.`coda.run_id` = '{_quoted(run_id)}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(experiment, tags={"coda.run_id": run_id}, run_name=run_id)
    client.set_terminated(made.info.run_id)
    return str(made.info.run_id)


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    words = {
        EXTRACTOR: "Vision transformer that turns a field into tokens, with the state its adaptation continues from.",
        HEAD: "Frozen classifier over an extractor's tokens; one version an alignment.",
    }
    try:
        client.create_registered_model(name, description=words.get(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _exists(client: Any, found: Any) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(found.name, str(found.version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _version(found: Any) -> Version:
    tags = dict(found.tags)
    where = f"{found.name} version {found.version}"
    if not re.fullmatch(r"[0-9a-f]{64}", tags.get("digest", "")):
        remedy = "Delete the version in MLflow, or restore its tag: it was not registered by this program."
        problem = Problem(where, f"tag digest {tags.get('digest')!r}", "the digest of the model folder", remedy)
        raise IntegrityError("The registry holds a version without a digest.", [problem])
    ref = ModelRef(name=found.name, version=int(found.version), digest=tags["digest"])
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Version(ref, tags, created, tuple(sorted(found.aliases or ())))


def _shape(config: Mapping[str, Any]) -> dict[str, str]:
    return {"width": str(config["width"]), "channels": ",".join(config["channels"])}


def _origin(provenance: Provenance) -> dict[str, str]:
    data = ", ".join(f"{item.source}/{item.batch}@{item.revision[:12]}" for item in provenance.data)
    facts = {
        "run_id": provenance.run_id,
        "source": provenance.source,
        "params_digest": provenance.params_digest,
        "data": data if len(data) <= _TAG_LENGTH else data[:_TAG_LENGTH] + "...",
        "code_version": provenance.code_version,
        "image": provenance.image,
        **{name: str(value)[:_TAG_LENGTH] for name, value in provenance.remarks.items() if not isinstance(value, dict)},
    }
    return {name: value for name, value in facts.items() if value}


def _quoted(value: str) -> str:
    if "'" in value:
        problem = Problem("name", repr(value), "a name without quotation marks", "Choose another name.")
        raise ConfigError("The registry cannot search for this name.", [problem])
    return value
