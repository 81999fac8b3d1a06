"""The connection to MLflow, and MLflow's failures as errors of this library.

No process-wide tracking URI is set: two connections of one process may point to different servers.
"""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from coda.errors import NO_ROOM, OF_THE_DATA, CodaError, ConfigError, Problem, ServiceRefusedError, TransientError
from coda.settings import Settings, is_address, without_secrets
from coda.storage.failures import explained as store_explained
from coda.storage.service_answers import judged

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

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

_OF_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tag by which MLflow's pages show runs as training, and not as evaluations of prompts."""

_TRANSIENT = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "DEADLINE_EXCEEDED"})
_REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "ENDPOINT_NOT_FOUND"})
_CONFIG = frozenset({"INVALID_PARAMETER_VALUE"})
_STATUS = re.compile(r"failed with error code (\d{3})")
_LOOP = re.compile(r"Exceeded \d+ redirects")
_NO_JSON = "the response body was not in a valid JSON format"
"""What MLflow's client says of answers that are not MLflow's."""


def connect(settings: Settings) -> "MlflowClient":
    """Return a client for tracking and registry; one a process and address.

    Raises:
        TransientError: The server or its database does not answer.
        ServiceRefusedError: Address, credentials, rights or versions must be put right.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if settings.s3_endpoint is not None:
        # MLflow's own S3 access knows no other way to be told
        os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", settings.s3_endpoint)
    # it logs tracebacks of what a database refuses, whose words are in our error
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    _require_address(settings.mlflow_uri)
    with explained("connect to the model registry", settings):
        try:
            return _client(settings.mlflow_uri)
        except (ImportError, OSError) as error:
            # the driver of a database, or the folder of its file; what a connection raises has other numbers, or none
            if isinstance(error, OSError) and error.errno not in OF_THE_DATA | NO_ROOM | {errno.EACCES, errno.EPERM}:
                raise
            remedy = "Correct MLFLOW_TRACKING_URI, or install the driver that it names (docs/settings.md)."
            problem = Problem(without_secrets(settings.mlflow_uri), str(error)[:300], "an address of MLflow", remedy)
            raise ServiceRefusedError("Could not connect to the model registry.", [problem]) from error


def _require_address(uri: str) -> None:
    """Refuse what can be no address before MLflow tries it again and again, for minutes.

    Raises:
        ServiceRefusedError: An HTTP address without a host or with an impossible port; a folder for a file.
    """
    found = ""
    if uri.startswith(("http:", "https:")) and not is_address(uri):
        found = f"{without_secrets(uri)!r}, whose host or port cannot be"
    elif uri.startswith("sqlite:///") and Path(unquote(uri.removeprefix("sqlite:///"))).is_dir():
        found = f"{uri!r}, which is a folder"
    if found:
        remedy = "Correct MLFLOW_TRACKING_URI (docs/settings.md)."
        problem = Problem("MLFLOW_TRACKING_URI", found, "http(s)://host:port, or a database's address", remedy)
        raise ServiceRefusedError("Could not connect to the model registry.", [problem])


def experiment_id(client: "MlflowClient", settings: Settings) -> str:
    """Return the id of this project's experiment, creating it where it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, settings.mlflow_artifacts, tags=_OF_TRAINING))
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
        ConfigError: Something that was asked cannot be.
        ServiceRefusedError: Address, credentials, rights or versions must be put right.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    from coda.registry.mlflow_database import REMEDY, refused

    where = f"MLflow at {without_secrets(settings.mlflow_uri)}"
    try:
        # MLflow reads and writes model files in the object store with boto3
        with store_explained(action, settings.mlflow_artifacts or settings.mlflow_uri, settings.s3_endpoint):
            yield
    except MlflowException as error:
        raise _judged(error, action, where) from error
    except (ArgumentError, json.JSONDecodeError) as error:
        words = without_secrets(" ".join(str(error).split()))[:400]
        problem = Problem(where, words, "an address of MLflow", "Correct MLFLOW_TRACKING_URI (docs/settings.md).")
        raise ServiceRefusedError(f"Could not {action}.", [problem]) from error
    except (requests.RequestException, SQLAlchemyError, ConnectionError) as error:
        words = without_secrets(" ".join(str(error).split()))[:400]
        if isinstance(error, SQLAlchemyError) and refused(error):
            problem = Problem(where, words, "a database of this MLflow", REMEDY)
            raise ServiceRefusedError(f"Could not {action}.", [problem]) from error
        problem = Problem(where, words, "an answer", "Check that MLflow is up; the step can be repeated safely.")
        raise TransientError(f"Could not {action}: MLflow does not answer.", [problem]) from error


def all_pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield all that a search finds: MLflow answers with the first page alone, and says so by a token only.

    Args:
        search: Token of a page, none for the first -> the page.
    """
    token: str | None = None
    while token != "":
        page = search(token)
        yield from page
        token = page.token or ""


def _judged(error: "MlflowException", action: str, where: str) -> CodaError:
    """Return the error for an answer of MLflow, its client or a proxy, by who must act."""
    from coda.registry.mlflow_database import REMEDY, refusal_in

    words = without_secrets(" ".join(str(error).split()))[:400]
    message = f"Could not {action}."
    if "database schema" in words:
        remedy = "Back the database up and run `mlflow db upgrade` with its address, or use the MLflow that made it."
        return ServiceRefusedError(message, [Problem(where, words, "the schema of this MLflow", remedy)])
    if "CERTIFICATE_VERIFY_FAILED" in words or _LOOP.search(words) or type(error).__name__ == "InvalidUrlException":
        remedy = "Correct MLFLOW_TRACKING_URI, or let MLFLOW_TRACKING_SERVER_CERT_PATH name the issuer's certificate."
        return ServiceRefusedError(message, [Problem(where, words, "an address that can be trusted", remedy)])
    status = _STATUS.search(str(error))
    if status or _NO_JSON in str(error):
        body = str(error).partition("Response body: '")[2]
        found = judged("MLflow", "MLFLOW_TRACKING_URI", where, int(status[1]) if status else 200, "", body)
        if found is not None:
            return found
    if "error_code" not in getattr(error, "json", {"error_code": ""}):
        remedy = "Let MLFLOW_TRACKING_URI name MLflow itself; check its credentials (docs/settings.md)."
        problem = Problem(where, words, "an answer of MLflow", remedy)
        return ServiceRefusedError("Something else answers in place of MLflow.", [problem])
    problem = Problem(where, words, "an accepted request", "Read MLflow's own log; the step can be repeated.")
    if refusal_in(words):
        problem = Problem(where, words, "a database of this MLflow", REMEDY)
    if error.error_code in _REFUSED or refusal_in(words):
        return ServiceRefusedError(message, [problem])
    kind = ConfigError if error.error_code in _CONFIG else CodaError
    if error.error_code in _TRANSIENT or "database is locked" in words:
        kind = TransientError
    return kind(message, [problem])


def _require_mlflow(uri: str) -> None:
    """Ask a server once what only MLflow can answer: a stranger's JSON would read as an empty registry."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    where = f"MLflow at {without_secrets(uri)}"
    answer = http_request(
        get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        "/api/2.0/mlflow/experiments/get-by-name", "GET",
        params={"experiment_name": EXPERIMENT},
    )  # fmt: skip
    kind = str(answer.headers.get("Content-Type", ""))
    found = judged("MLflow", "MLFLOW_TRACKING_URI", where, answer.status_code, kind, answer.text)
    if found is not None and not (answer.status_code == 403 and "error_code" in answer.text):
        raise found  # MLflow's own 403 is about this experiment alone
    if "experiment" not in answer.text and "error_code" not in answer.text:
        problem = Problem(where, answer.text[:200], "an answer of MLflow", "Correct MLFLOW_TRACKING_URI.")
        raise ServiceRefusedError("Something else answers in place of MLflow.", [problem])


@lru_cache(maxsize=8)
def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    if uri.startswith(("http://", "https://")):
        _require_mlflow(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
