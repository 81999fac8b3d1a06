"""The connection to MLflow, and MLflow's failures in the words of this library.

No process-wide tracking URI is set: two connections of one process may point to different servers.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from coda.errors import CodaError, ConfigError, Problem, TransientError
from coda.settings import Settings, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "coda"

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # the default is 7 tries with growing pauses: a server that is away would be noticed after four minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""Settings of MLflow that it reads from the environment alone; what is set there already wins."""

_TRANSIENT = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "DEADLINE_EXCEEDED"})
_CONFIG = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "INVALID_PARAMETER_VALUE"})


def connect(settings: Settings) -> "MlflowClient":
    """Return a client for tracking and registry; one a process and address.

    Raises:
        TransientError: The server or its database does not answer.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if settings.s3_endpoint is not None:
        # MLflow's own S3 access knows no other way to be told
        os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", settings.s3_endpoint)
    with explained("connect to the model registry", settings):
        return _client(settings.mlflow_uri)


def experiment_id(client: "MlflowClient", settings: Settings) -> str:
    """Return the id of this project's experiment, creating it where it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=settings.mlflow_artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(EXPERIMENT)
    if found is None or found.lifecycle_stage != "active":
        remedy = f"Restore the experiment {EXPERIMENT!r} in MLflow, or delete it for good with `mlflow gc`."
        problem = Problem(f"MLflow experiment {EXPERIMENT!r}", "a deleted experiment", "an active one", remedy)
        raise ConfigError("The model registry cannot be written.", [problem])
    return str(found.experiment_id)


@contextmanager
def explained(action: str, settings: Settings) -> Iterator[None]:
    """Turn what MLflow raises inside the block into the errors of this library.

    Args:
        action: What is being done, in words that follow "Could not".
        settings: Where MLflow is, for the message.

    Raises:
        TransientError: MLflow or its database does not answer, or is locked.
        ConfigError: Address, credentials or rights must be put right.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    where = f"MLflow at {without_secrets(settings.mlflow_uri)}"
    try:
        yield
    except MlflowException as error:
        words = without_secrets(" ".join(str(error).split()))[:400]
        problem = Problem(where, words, "an accepted request", "Look at MLflow's own log; the step can be repeated.")
        kind = ConfigError if error.error_code in _CONFIG else CodaError
        if error.error_code in _TRANSIENT or "database is locked" in words:
            kind = TransientError
        raise kind(f"Could not {action}.", [problem]) from error
    except (requests.RequestException, OperationalError, ConnectionError) as error:
        words = without_secrets(" ".join(str(error).split()))[:400]
        problem = Problem(where, words, "an answer", "Check that MLflow is up; the step can be repeated safely.")
        raise TransientError(f"Could not {action}: MLflow does not answer.", [problem]) from error


@lru_cache(maxsize=8)
def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)
