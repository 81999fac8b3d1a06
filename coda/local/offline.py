"""Settings for steps that run on local paths alone: no service is configured, and none is talked to."""

import os
from pathlib import Path

from coda.settings import Settings, read_settings


def offline_settings(work: Path) -> Settings:
    """Return settings whose only real place is the checkpoint folder below `work`.

    The addresses of services point at a closed loopback port: a step that needs one says so, instead of reaching a
    service by accident.
    """
    return Settings(
        landing="s3://no-service",
        platform="s3://no-service",
        s3_endpoint="http://127.0.0.1:9",
        mlflow_uri="http://127.0.0.1:9",
        data_registry="no-service",
        data_remote="s3://no-service",
        checkpoints=str(work.resolve() / "checkpoints"),
    )


def storage_settings(work: Path = Path("runs")) -> Settings:
    """Return settings for commands that may read object storage and talk to no other service.

    `AWS_ENDPOINT_URL_S3` and `CODA_IMAGE_ROOTS` are taken from the environment; all else is as in `offline_settings`.

    Raises:
        ConfigError: One of the two variables cannot be understood.
    """
    offline = offline_settings(work)
    taken = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL_S3", "CODA_IMAGE_ROOTS") if os.environ.get(name)}
    return read_settings({**offline.model_copy(update={"s3_endpoint": None}).environment, **taken})
