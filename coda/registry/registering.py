"""Registering a model as a version: once for each run and content, with all that is known of where it comes from."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coda.contracts import DataRevision, ModelRef
from coda.registry.cards import DESCRIPTION_LENGTH, version_card
from coda.registry.mlflow_client import connect, experiment_id, explained
from coda.registry.package import MODEL, STATE, Package, build_package, read_config, require_kind
from coda.registry.versions import EXTRACTOR, HEAD, describe, find, quoted
from coda.settings import Settings
from coda.storage.failures import disk_explained

RUN_TAG = "coda.run_id"
"""Tag of the MLflow run that stands for a pipeline run."""

_OF_STORED = ("kind", "alignment", "digest", "source", "method", "run_id")
"""Tags that a stored model has, too; the version has all, and provenance.json everything."""

_TAG_LENGTH = 4500
"""MLflow refuses tags of more than 5000 characters; the whole list of data is in provenance.json."""

_FILE_TAGS = {
    "weights.safetensors": "weights_digest",
    "config.json": "config_digest",
    "labels.json": "labels_digest",
    "label_report.json": "label_report_digest",
    "source_statistics.safetensors": "statistics_digest",
}
"""File of a model folder -> tag that carries its SHA-256."""


@dataclass(frozen=True)
class Provenance:
    """Where a version comes from.

    Attributes:
        run_id: Pipeline run that made it.
        source: Source it was made for.
        params_digest: Digest of the run's parameters.
        data: Data revisions it was trained on.
        code_version: Git revision of this code.
        image: Container image, with digest, when there is one.
        lock_digest: SHA-256 of the lock that the image was built from.
        params: The parameters themselves, as JSON values.
        remarks: Further facts: method, base release, parent version, figures; JSON values.
    """

    run_id: str
    source: str
    params_digest: str
    data: tuple[DataRevision, ...] = ()
    code_version: str = ""
    image: str = ""
    lock_digest: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
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
            "lock_digest": self.lock_digest,
            "params": dict(self.params),
            **self.remarks,
        }

    def tags(self) -> dict[str, str]:
        """Return the facts that MLflow can search for; what is long is cut, and whole in provenance.json."""
        data = ", ".join(f"{item.source}/{item.batch}@{item.revision[:12]}" for item in self.data)
        facts = {
            "run_id": self.run_id,
            "source": self.source,
            "params_digest": self.params_digest,
            "data": data if len(data) <= _TAG_LENGTH else data[:_TAG_LENGTH] + "...",
            "code_version": self.code_version,
            "image": self.image,
            "lock_digest": self.lock_digest or "",
            **{name: str(value)[:_TAG_LENGTH] for name, value in self.remarks.items() if not isinstance(value, dict)},
        }
        return {name: value for name, value in facts.items() if value}


def register_extractor(
    model: Path, state: Path | None, provenance: Provenance, *, settings: Settings, line: str | None = None
) -> ModelRef:
    """Register an extractor with its adaptation state; the same one of the same run only once.

    Args:
        model: Model folder of the extractor.
        state: Model folder of the adaptation state beside it.
        provenance: Where it comes from.
        settings: Where MLflow is; with a signing key, the version is signed.
        line: Digest of the pretrained extractor it was adapted from; its own when not given. Heads fit one line.

    Raises:
        IntegrityError: A folder is not what its digests say.
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    # these bring torch, which a service that only reads the log does without
    from coda.networks import artifact
    from coda.training.methods.registry import require_state

    config = read_config(model)
    require_kind(config, "extractor", model)
    digest = artifact.folder_digest(model)
    tags = {"kind": "extractor", "alignment": "none", "digest": digest, "line": line or digest}
    parts = {MODEL: model}
    if state is not None:
        _, state_config = artifact.load(state)
        require_state(state_config, state)
        tags["state_digest"] = artifact.folder_digest(state)
        parts[STATE] = state
    return _register(EXTRACTOR, parts, tags, config, provenance, settings)


def register_head(model: Path, extractor: ModelRef, provenance: Provenance, *, settings: Settings) -> ModelRef:
    """Register a head with the extractor it was trained on; the same one of the same run only once.

    Args:
        model: Model folder of the head, with its label list and token statistics.
        extractor: Registered extractor whose tokens it was trained on.
        provenance: Where it comes from.
        settings: Where MLflow is; with a signing key, the version is signed.

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
    if table := config.get("provenance", {}).get("labels"):
        tags["label_table"] = str(table)
    return _register(HEAD, {MODEL: model}, tags, config, provenance, settings)


def name_heads(extractor: ModelRef, heads: tuple[ModelRef, ...], *, settings: Settings) -> None:
    """Note on an extractor which heads were trained on it: they exist only after it does. Repeating it is safe."""
    numbers = ", ".join(str(item.version) for item in heads)
    with explained(f"note the heads of {extractor.name} version {extractor.version}", settings):
        connect(settings).set_model_version_tag(extractor.name, str(extractor.version), "head_versions", numbers)


def _register(
    name: str,
    parts: Mapping[str, Path],
    tags: Mapping[str, str],
    config: Mapping[str, Any],
    provenance: Provenance,
    settings: Settings,
) -> ModelRef:
    key = {"run_id": provenance.run_id, "kind": tags["kind"], "alignment": tags["alignment"], "digest": tags["digest"]}
    if known := find(name, settings=settings, **key):
        return known[0].ref
    client = connect(settings)
    facts = provenance.to_json()
    tags = {**tags, **_shape(config), **_files(parts[MODEL]), **provenance.tags()}
    card = version_card(name, tags, facts, config)
    with explained(f"register {name}", settings), tempfile.TemporaryDirectory() as work, disk_explained(Path(work)):
        package = build_package(Path(work), parts, facts, card, signing_key=settings.signing_key)
        tags |= _package(package)
        experiment = experiment_id(client, settings)
        run = run_of(client, experiment, provenance.run_id)
        few = {tag: tags[tag] for tag in _OF_STORED if tag in tags}
        logged = client.create_logged_model(experiment, name=name, source_run_id=run, tags=few)
        client.log_model_artifacts(logged.model_id, str(package.folder))
        client.finalize_logged_model(logged.model_id, "READY")
        _ensure_model(client, name)
        # the tags come with the version in one request: there is never a version without its digest
        # (the source is the place itself: 'models:/<id>' would be looked up at the process-wide tracking URI)
        made = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=run,
            tags=tags,
            model_id=logged.model_id,
            description=card[:DESCRIPTION_LENGTH],
        )
    first = find(name, settings=settings, **key)[0].ref
    if first.version != int(made.version):
        # another process registered the same model at the same moment; both agree on the lower number
        with explained(f"remove the second copy of {name}", settings):
            client.delete_model_version(name, str(made.version))
    return first


def run_of(client: Any, experiment: str, run_id: str) -> str:
    """Return the MLflow run that stands for a pipeline run, creating it where it is missing."""
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{quoted(run_id)}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(experiment, tags={RUN_TAG: run_id}, run_name=run_id)
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


def _shape(config: Mapping[str, Any]) -> dict[str, str]:
    return {"width": str(config["width"]), "channels": ",".join(config["channels"])}


def _files(model: Path) -> dict[str, str]:
    # the folder was verified a moment ago, so its list says what its files are
    from coda.networks.artifact import DIGESTS

    digests = json.loads((model / DIGESTS).read_bytes())
    return {tag: digests[name] for name, tag in _FILE_TAGS.items() if name in digests}


def _package(package: Package) -> dict[str, str]:
    tags = {"files_digest": package.files_digest}
    return tags if package.signed_by is None else {**tags, "signed_by": package.signed_by}
