"""What MLflow stores for us: every model's artifacts, with or without a version, and taking them away."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coda.registry.mlflow_client import EXPERIMENT, all_pages, connect, explained
from coda.settings import Settings


@dataclass(frozen=True)
class Stored:
    """Artifacts of one model that this program registered, or began to register.

    Attributes:
        model_id: MLflow's own name of the logged model.
        location: Where its files are.
        created: When registration began.
        digest: Digest of its model folder, as it was registered.
        version: Registered model and number; none where registration never ended.
    """

    model_id: str
    location: str
    created: datetime
    digest: str
    version: tuple[str, int] | None


def stored_models(*, settings: Settings) -> list[Stored]:
    """Return all artifacts that this program put into MLflow, the oldest first.

    Logged models of other people and programs, which lack our digest, are left out.

    Raises:
        TransientError: MLflow does not answer.
    """
    client = connect(settings)
    with explained("list the stored models", settings):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        found = all_pages(lambda token: client.search_model_versions("", page_token=token))
        versions = {str(item.source): (item.name, int(item.version)) for item in found}
        logged = all_pages(lambda token: client.search_logged_models([experiment.experiment_id], page_token=token))
        models = [item for item in logged if "digest" in (item.tags or {})]
    return sorted(
        (
            Stored(
                item.model_id,
                item.artifact_location,
                datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
                item.tags["digest"],
                versions.get(item.artifact_location),
            )
            for item in models
        ),
        key=lambda stored: (stored.created, stored.model_id),
    )


def size_of(stored: Stored, *, settings: Settings) -> int:
    """Return the bytes of a model's artifacts."""
    with explained(f"list the files of {stored.model_id}", settings):
        repository = _repository(stored, settings)
        folders, total = [""], 0
        while folders:
            for item in repository.list_artifacts(folders.pop() or None):
                if item.is_dir:
                    folders.append(item.path)
                else:
                    total += int(item.file_size or 0)
    return total


def remove(stored: Stored, *, settings: Settings) -> None:
    """Delete a version, its files and MLflow's record of them, in this order; repeating it after a failure is safe.

    Nothing resolves the version any more when its files go; a call that breaks off leaves files without a version,
    which are found again.

    Raises:
        TransientError: MLflow does not answer.
    """
    client = connect(settings)
    with explained(f"delete {stored.model_id}", settings):
        if stored.version is not None:
            name, number = stored.version
            client.delete_model_version(name, str(number))
        _repository(stored, settings).delete_artifacts()
        client.delete_logged_model(stored.model_id)


def _repository(stored: Stored, settings: Settings) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(stored.location, tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)
