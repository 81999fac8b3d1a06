"""Settings for steps that run on local paths alone: no service is configured, and none is talked to."""

from pathlib import Path

from coda.settings import Settings


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
