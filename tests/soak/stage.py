"""What the soak plays on: embedded services, a proxy that can be told to fail, a fork server, a trained source."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml

from coda.config import Params, load_params
from coda.local.services import EmbeddedServices
from coda.settings import Settings
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment, write_labels
from coda.storage.objects import ObjectStore, store_for
from tests.soak.asking import ADDRESS
from tests.soak.deliveries import DESIGN, SEED
from tests.soak.proxy import FaultProxy

ROOT = Path(__file__).resolve().parents[2]

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Stage:
    """Everything that runs; a context manager that leaves nothing running.

    Attributes:
        folder: Where all of it keeps its files; it must be empty.
        seed: Of the proxy.
    """

    folder: Path
    seed: int
    proxy: FaultProxy = field(init=False)
    services: EmbeddedServices = field(init=False)
    forks: int = field(init=False, default=0)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Self:
        before = dict(os.environ)
        self._stack.callback(lambda: (os.environ.clear(), os.environ.update(before)))
        try:
            self.services = self._stack.enter_context(EmbeddedServices(self.folder / "services"))
            self.proxy = self._stack.enter_context(FaultProxy(self._port(self.direct), seed=self.seed))
            os.environ.update(self.settings.environment)
            self._start_forks()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def direct(self) -> Settings:
        """Settings of whoever must not meet the faults: producers and the audit."""
        return self.services.settings

    @property
    def settings(self) -> Settings:
        """Settings of triggers and runs: all their requests to S3 and SQS pass the proxy."""
        endpoint = f"http://127.0.0.1:{self.proxy.port}"
        queue = str(self.direct.queue_url).replace(str(self.direct.s3_endpoint), endpoint)
        return self.direct.model_copy(update={"s3_endpoint": endpoint, "queue_url": queue})

    @property
    def params(self) -> Params:
        """The parameters of all runs."""
        overlays = [ROOT / "params" / "demo.yaml", ROOT / "tests/flow/smoke.yaml", ROOT / "tests/soak/soak.yaml"]
        return load_params(ROOT / "params.yaml", overlays)

    @property
    def landing(self) -> ObjectStore:
        """The landing bucket, without faults."""
        return store_for(self.direct.landing, self.direct)

    @property
    def platform(self) -> ObjectStore:
        """The platform bucket, without faults."""
        return store_for(self.direct.platform, self.direct)

    @property
    def work(self) -> Path:
        """Folder of the runs."""
        return self.folder / "work"

    def train(self) -> None:
        """Train and release the source that everything is adapted from."""
        experiment = plan_experiment(SEED, DESIGN)
        uris = []
        for batch in ("b1", "b2"):
            plates = [f"lab_a_{batch}_p{number}" for number in (1, 2)]
            simulate_batch(experiment, "lab_a", batch, plates, self.folder / "plates", workers=1)
            self.landing.upload_folder(self.folder / "plates" / "lab_a" / batch, f"lab_a/{batch}")
            uris.append(self.landing.url(f"lab_a/{batch}/manifest.json"))
        labels = write_labels(experiment, self.folder / "labels.csv")
        self.platform.put("labels/mechanisms.csv", labels.read_bytes())
        (self.folder / "params.json").write_text(self.params.model_dump_json(), encoding="utf-8")
        self.run_pipeline(
            "training", "--run-id", "train-1", "--labels", self.platform.url("labels/mechanisms.csv"),
            *(item for uri in uris for item in ("--manifest-uri", uri)),
        )  # fmt: skip

    def run_pipeline(self, *arguments: str) -> None:
        """Run a pipeline as the trigger's submitter does, and wait for its end."""
        params = self.folder / "params.yaml"
        # not JSON: YAML 1.1 takes JSON's 1e-6 for text
        params.write_text(yaml.safe_dump(self.params.model_dump(mode="json")), encoding="utf-8")
        with (self.folder / "pipelines.log").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "tests.soak.asking", "pipeline", "run", *arguments, "--params", str(params),
                 "--work", str(self.work)],
                stdout=log, stderr=log, check=True,
            )  # fmt: skip

    @contextmanager
    def locked_registry(self) -> Iterator[None]:
        """Hold MLflow's database locked: whoever reads or writes it meanwhile gets no answer."""
        path = self.direct.mlflow_uri.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                database.execute("ROLLBACK")

    def processes(self) -> dict[int, str]:
        """Return the live forks: process number -> what it is ('coda', 'adapt', 'dvc', ...)."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = path.read_text(encoding="utf-8").rpartition(")")
            except OSError:
                continue
            name = head.partition("(")[2]
            if name.startswith("soak:") and int(tail.split()[1]) == self.forks and tail.split()[0] != "Z":
                found[int(path.parent.name)] = name.removeprefix("soak:")
        return found

    def start(self, module: str, *arguments: str, log: str) -> "subprocess.Popen[bytes]":
        """Start a program beside the services, its output in a log of its own."""
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def _start_forks(self) -> None:
        address = self.folder / "forks.sock"
        os.environ.update({ADDRESS: str(address), "PYTHONPATH": str(ROOT)})
        log = self._stack.enter_context((self.folder / "forks.log").open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.forks", str(address)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **ONE_THREAD},
        )  # fmt: skip
        self._stack.callback(_end, process)
        if process.stdout is None or process.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"The fork server did not start; see {self.folder / 'forks.log'}.")
        self.forks = process.pid

    @staticmethod
    def _port(settings: Settings) -> int:
        return int(str(settings.s3_endpoint).rpartition(":")[2])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Have a program that ends with its standard input end."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait(30)
