"""Embedded services for tests: an S3 and SQS API on loopback (moto), started once a session."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from coda.settings import Settings
from coda.storage import ObjectStore

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Moto:
    """The running server: its endpoint, and the variables a process needs to talk to it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_ENDPOINT_URL": self.endpoint}

    def bucket(self, name: str | None = None) -> ObjectStore:
        """A fresh bucket, of a name nobody else has."""
        store = ObjectStore(f"s3://{name or 'test-' + uuid4().hex[:16]}", self.endpoint)
        store.ensure_bucket()
        return store

    def settings(self, folder: Path) -> Settings:
        """Settings whose buckets are fresh, with MLflow on SQLite below `folder`."""
        landing, platform, remote = (self.bucket().uri for _ in range(3))
        return Settings(
            landing=landing,
            platform=platform,
            s3_endpoint=self.endpoint,
            mlflow_uri=f"sqlite:///{folder / 'mlflow.db'}",
            mlflow_artifacts=(folder / "mlartifacts").as_uri(),
            data_registry=str(folder / "data-registry.git"),
            data_remote=f"{remote}/dvc",
            checkpoints=str(folder / "checkpoints"),
        )


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    """moto's server on a free loopback port, with its credentials in the environment for the whole session."""
    from moto.server import ThreadedMotoServer

    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Moto(f"http://{host}:{port}")
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
