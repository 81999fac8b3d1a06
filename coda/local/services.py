"""The embedded services: object store and queue, MLflow on SQLite, the DVC data registry in a local Git repository.

Everything lies below one folder and listens on loopback alone, on ports the system chose.
"""

import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from coda.errors import CodaError, Problem
from coda.local.environment import choose
from coda.local.object_store import ACCOUNT, REGION
from coda.local.one_writer import one_writer
from coda.settings import Settings

LANDING_BUCKET = "coda-landing"
PLATFORM_BUCKET = "coda-platform"
QUEUE = "coda-landing-events"
STORE = ("coda.local.object_store",)


class EmbeddedServices:
    """Embedded services below one folder; a context manager that leaves nothing running.

    The object store ends with this process however it ends: it watches a pipe this process holds open.
    """

    def __init__(self, root: Path, *, store: Sequence[str] = STORE, images: Path | None = None) -> None:
        """Keep all state below `root`; nothing is started before `__enter__`.

        Args:
            root: Folder of the state.
            store: Module that is the object store, and arguments of its own.
            images: Folder that manifests may name as the place of their images, beside the usual ones.
        """
        self.root = root.resolve()
        self._store = store
        self._images = images
        self._stack = ExitStack()
        self._object_store = ExitStack()
        self.settings: Settings
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start the object store, create buckets, queue and data registry where they are missing.

        Raises:
            ConfigError: Another process keeps its services below this folder, or it cannot be written.
        """
        self._stack.enter_context(one_writer(self.root))
        port = free_port()
        self.settings = self._settings(port)
        self.environment = {**self.settings.environment, **self._credentials()}
        choose(self.environment)
        self._stack.callback(self.stop_object_store)
        try:
            self._start_object_store(port)
            self._create_missing()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started."""
        self._stack.close()

    def stop_object_store(self) -> None:
        """Stop the object store and nothing else, as an outage would; objects are kept, waiting messages are lost."""
        self._object_store.close()

    def start_object_store(self) -> None:
        """Start the object store again at its address, with the objects it had.

        Raises:
            CodaError: It did not start; its log says why.
        """
        self._start_object_store(int(str(self.settings.s3_endpoint).rpartition(":")[2]))
        self._create_missing()

    def _settings(self, port: int) -> Settings:
        endpoint = f"http://127.0.0.1:{port}"
        return Settings(
            landing=f"s3://{LANDING_BUCKET}",
            platform=f"s3://{PLATFORM_BUCKET}",
            s3_endpoint=endpoint,
            mlflow_uri=sqlite_address(self.root / "mlflow.db"),
            mlflow_artifacts=(self.root / "mlflow-artifacts").as_uri(),
            data_registry=str(self.root / "data-registry.git"),
            data_remote=f"s3://{PLATFORM_BUCKET}/dvc",
            checkpoints=str(self.root / "checkpoints"),
            data_docs=str(self.root / "data-docs"),
            metrics_dir=str(self.root / "metrics"),
            queue_url=f"{endpoint}/{ACCOUNT}/{QUEUE}",
            **self._image_roots(),
        )

    def _image_roots(self) -> dict[str, str]:
        usual = str(Settings.model_fields["image_roots"].default)
        return {} if self._images is None else {"image_roots": f"{usual},{self._images.resolve()}"}

    def _credentials(self) -> dict[str, str]:
        # the embedded store accepts any key. An empty file and not /dev/null: DVC's client opens only regular files
        nothing = self.root / "aws-empty"
        nothing.touch()
        return {
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": str(nothing),
            "AWS_SHARED_CREDENTIALS_FILE": str(nothing),
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "DVC_NO_ANALYTICS": "1",
            "GX_ANALYTICS_ENABLED": "false",
        }

    def _start_object_store(self, port: int) -> None:
        command = [sys.executable, "-m", *self._store, "--root", str(self.root / "objects"), "--queue", QUEUE]
        log = self._object_store.enter_context((self.root / "object-store.log").open("a"))
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self._object_store.callback(_stop, process)
        line = _output(process).readline()
        if line.strip() != "ready":
            problem = Problem(
                "embedded object store", f"{line.strip()!r}", "'ready'", f"See {self.root / 'object-store.log'}."
            )
            raise CodaError("The embedded object store did not start.", [problem])

    def _create_missing(self) -> None:
        import boto3

        from coda.storage.data_registry import create_registry

        s3 = boto3.client("s3", endpoint_url=self.settings.s3_endpoint)
        existing = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        for bucket in (LANDING_BUCKET, PLATFORM_BUCKET):
            if bucket not in existing:
                s3.create_bucket(Bucket=bucket)
        sqs = boto3.client("sqs", endpoint_url=self.settings.s3_endpoint)
        queue = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        rule = {"Key": {"FilterRules": [{"Name": "suffix", "Value": "manifest.json"}]}}
        s3.put_bucket_notification_configuration(
            Bucket=LANDING_BUCKET,
            NotificationConfiguration={
                "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": rule}]
            },
        )
        if not Path(self.settings.data_registry).exists():
            create_registry(Path(self.settings.data_registry), self.settings.data_remote)


def sqlite_address(path: Path) -> str:
    """Return SQLAlchemy's address of a database file, whose path may hold what means something in an address."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _output(process: subprocess.Popen[str]) -> IO[str]:
    if process.stdout is None:
        raise CodaError("The embedded object store was started without a pipe.")
    return process.stdout


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
