"""Where the services are. Values come from the environment of the process that runs a step, never from parameters.

The names are documented in `docs/settings.md`. Credentials are read by boto3 and MLflow themselves from their standard
variables (AWS_ACCESS_KEY_ID, MLFLOW_TRACKING_USERNAME, ...) and never pass through this model.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from coda.errors import ConfigError, Problem, raise_if_any

PUBLIC_IMAGES = "unsigned+s3://cellpainting-gallery#https://s3.us-east-1.amazonaws.com"
"""The public bucket of JUMP-CP, at AWS itself wherever the platform's own object store is."""

_ROOT = re.compile(r"((unsigned\+)?s3://[^/\s,#]+(/[^,#]*)?(#https?://[^\s,#]+)?|/[^,]*)")


def _places(text: str) -> str:
    if text.strip() != "none" and not all(_ROOT.fullmatch(place.strip()) for place in text.split(",")):
        message = "'none', or absolute folders and [unsigned+]s3://bucket[/prefix][#https://host], parted by commas"
        raise ValueError(message)
    return text


def is_address(text: str) -> bool:
    """Return whether text is an address that a client can be pointed to: ``http(s)://host`` with a port or without."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port  # a port that is none raises when it is read
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and port != 0 and not re.search(r"[\s\x00-\x1f]", text)


def _address(text: str | None) -> str | None:
    if text is not None and not is_address(text):
        message = "an address such as https://host/path"
        raise ValueError(message)
    return text


class Settings(BaseModel):
    """Addresses of the services one run talks to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    landing: str = Field(pattern=r"^s3://[^/]+(/.*)?$", description="Where producers drop batches: s3://bucket/prefix.")
    platform: str = Field(pattern=r"^s3://[^/]+(/.*)?$", description="Ledger, release log, predictions, reports, runs.")
    s3_endpoint: str | None = Field(default=None, description="S3 endpoint URL; none for AWS itself.")
    mlflow_uri: str = Field(min_length=1, description="MLflow tracking and registry URI.")
    mlflow_artifacts: str | None = Field(default=None, description="Artifact root for a registry without a server.")
    data_registry: str = Field(min_length=1, description="Git URL or path of the DVC data registry.")
    data_remote: str = Field(pattern=r"^s3://", description="DVC remote behind the data registry.")
    checkpoints: str = Field(min_length=1, description="Folder or s3:// prefix for checkpoints of running steps.")
    data_docs: str | None = Field(default=None, description="Folder that Great Expectations keeps its Data Docs in.")
    pushgateway: str | None = Field(default=None, description="host:port of a Prometheus Pushgateway.")
    metrics_dir: str | None = Field(default=None, description="Folder for metrics files where no Pushgateway is.")
    queue_url: Annotated[str | None, AfterValidator(_address)] = Field(
        default=None, description="SQS queue with S3 notifications of the landing bucket."
    )
    kfp_endpoint: str | None = Field(default=None, description="Kubeflow Pipelines API.")
    image: str = Field(default="", description="Image the steps run in, with digest.")
    signing_key: str | None = Field(default=None, description="PEM file of the private key that signs new versions.")
    verify_key: str | None = Field(default=None, description="PEM file of the public key every fetched model needs.")
    image_roots: Annotated[str, AfterValidator(_places)] = Field(
        default=PUBLIC_IMAGES,
        description="Folders and s3:// prefixes that a manifest may name as the place of its images (images_at).",
    )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings."""
        values = self.model_dump(exclude_none=True)
        return {VARIABLES[name]: str(value) for name, value in values.items()}


VARIABLES = {
    "landing": "CODA_LANDING",
    "platform": "CODA_PLATFORM",
    "s3_endpoint": "AWS_ENDPOINT_URL_S3",
    "mlflow_uri": "MLFLOW_TRACKING_URI",
    "mlflow_artifacts": "CODA_MLFLOW_ARTIFACTS",
    "data_registry": "CODA_DATA_REGISTRY",
    "data_remote": "CODA_DATA_REMOTE",
    "checkpoints": "CODA_CHECKPOINTS",
    "data_docs": "CODA_DATA_DOCS",
    "pushgateway": "CODA_PUSHGATEWAY",
    "metrics_dir": "CODA_METRICS_DIR",
    "queue_url": "CODA_QUEUE_URL",
    "kfp_endpoint": "CODA_KFP_ENDPOINT",
    "image": "CODA_IMAGE",
    "signing_key": "CODA_SIGNING_KEY",
    "verify_key": "CODA_VERIFY_KEY",
    "image_roots": "CODA_IMAGE_ROOTS",
}
"""Setting -> environment variable."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_NAMES = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN(?!_PATH)|CREDENTIAL", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(\w://)[^/\s@'\"]+@")
_SHORTEST_SECRET = 6
HIDDEN = "[hidden]"


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return text that may be printed, stored or sent: without user and password in addresses, and without secrets.

    The last fence, for words that other libraries put into their errors; ours never hold a secret to begin with.

    Args:
        text: Any text: an error, a traceback, a line of a log.
        environment: Variables whose values are looked for when their name says secret, password, token or credential;
            the process's own when not given. Values under six characters are left: they would hide ordinary words.
    """
    variables = os.environ if environment is None else environment
    hidden = {
        value for name, value in variables.items() if _SECRET_NAMES.search(name) and not Path(value).is_absolute()
    }
    for value in sorted(hidden, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            for form in {value, quote(value, safe=""), json.dumps(value)[1:-1]}:
                text = text.replace(form, HIDDEN)
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Args:
        environment: Variables; the process's own when not given.

    Raises:
        ConfigError: A variable is missing or has a value that cannot be used; all of them together.
    """
    variables = os.environ if environment is None else environment
    values = {name: variables[key] for name, key in VARIABLES.items() if variables.get(key)}
    raise_if_any(
        ConfigError,
        "The services are not configured.",
        [
            Problem(
                VARIABLES[name],
                without_secrets(repr(value)),
                "a value without blanks or line breaks at its ends, and without control characters",
                "Set the variable again; a file that it comes from may end in a line break.",
            )
            for name, value in values.items()
            # blanks around the items of a list mean nothing
            if (value != value.strip() and name != "image_roots") or _CONTROL.search(value)
        ],
    )
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [
            Problem(
                VARIABLES[str(item["loc"][0])],
                "nothing" if item["type"] == "missing" else without_secrets(repr(item["input"])),
                item["msg"].removeprefix("Value error, "),
                "Set the variable (docs/settings.md); `make up` prints a complete set for the embedded services.",
            )
            for item in error.errors(include_url=False)
        ]
        raise ConfigError("The services are not configured.", problems) from error
