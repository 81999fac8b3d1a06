"""One small platform for all faults: trained once, with batches of as many sources as there are faults."""

import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import BaseContext
from pathlib import Path

from coda.config import Params, load_params
from coda.errors import TransientError
from coda.local.services import EmbeddedServices
from coda.runners.submit import Submitter
from coda.settings import Settings
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment, write_labels
from coda.storage.bulk import upload_folder
from coda.storage.objects import store_for
from coda.trigger.ledger import Entry, Ledger
from coda.trigger.service import Pace, Trigger
from tests.faults.chain import Task
from tests.faults.deaths import Deaths
from tests.faults.processes import ChainSubmitter, prepared
from tests.flow.loop import DESIGN, copy_as, smoke_overlays

SMALLER = DESIGN.model_copy(update={"sites_per_well": 1, "field_px": 64})
TRAINED = "lab_a"
TEMPLATE = ("lab_b", "t1")
PACE = Pace(lease_s=1.0, attempts=10_000, losses=10_000, backoff_s=0.0, tick_s=0.1, parallel=2)


@dataclass
class Platform:
    """Services with a trained and released source.

    Attributes:
        folder: Everything lies below it.
        settings: Where the services are.
        params: Parameters of all runs.
        context: How child processes are made.
        seed: Seed of what is drawn.
        sources: Names of the sources that were given out.
    """

    folder: Path
    settings: Settings
    params: Params
    context: BaseContext
    seed: int
    sources: list[str] = field(default_factory=list)

    def new_source(self, name: str) -> str:
        """Return a source that nothing is known of yet."""
        self.sources.append(f"{name}-{len(self.sources):02d}")
        return self.sources[-1]

    def deliver(self, source: str, *, created_at: str | None = None) -> str:
        """Upload the template batch as one of another source, and return the name of the batch."""
        old, batch = TEMPLATE
        template, copy = self.folder / "plates" / old / batch, self.folder / "plates" / source / batch
        copy_as(template, copy, old, source, **({"created_at": created_at} if created_at else {}))
        landing = store_for(self.settings.landing, self.settings)
        upload_folder(landing, copy, f"{source}/{batch}", last=("manifest.json",), workers=4)
        return f"{source}/{batch}"

    def work(self, name: str) -> Path:
        """Return a folder for the runs of one machine."""
        return self.folder / "work" / name

    def submitter(self, work: Path, deaths: Deaths | None = None, settings: Settings | None = None) -> ChainSubmitter:
        return ChainSubmitter(settings or self.settings, work, self.context, {}, deaths)

    def trigger(self, submitter: Submitter, settings: Settings | None = None, **changes: object) -> Trigger:
        return Trigger(
            settings or self.settings, submitter, params=self.params, ignore_sources=(TRAINED,), events=("poll",),
            pace=replace(PACE, **changes),
        )  # fmt: skip

    def entries(self, *sources: str) -> list[Entry]:
        ledger = Ledger(store_for(self.settings.platform, self.settings))
        return [entry for source in sources for entry in ledger.entries(source)]

    def settle(self, trigger: Trigger, *sources: str, versions: int = 1, patience_s: float = 600.0) -> list[Entry]:
        """Let a trigger work until every batch version of these sources has ended."""
        until(lambda: self.settled(trigger, sources, versions), f"the end of {sources}", patience_s)
        return self.entries(*sources)

    def settled(self, trigger: Trigger, sources: tuple[str, ...], versions: int) -> bool:
        """Let a trigger look once; return whether every batch version of these sources has ended."""
        try:
            trigger.look()
            trigger.advance()
        except TransientError:
            return False
        entries = self.entries(*sources)
        return len(entries) >= versions * len(sources) and all(entry.last.final for entry in entries)

    def train(self) -> None:
        """Train on two batches of one source, and release what came out for it and as default."""
        experiment = plan_experiment(3, SMALLER)
        landing = store_for(self.settings.landing, self.settings)
        manifests = []
        for laboratory, batch in ((TRAINED, "b1"), (TRAINED, "b2"), TEMPLATE):
            names = [f"{laboratory}_{batch}_p{number}" for number in (1, 2)]
            simulate_batch(experiment, laboratory, batch, names, self.folder / "plates", workers=1)
            if laboratory == TRAINED:
                folder = self.folder / "plates" / laboratory / batch
                upload_folder(landing, folder, f"{laboratory}/{batch}", last=("manifest.json",), workers=4)
                manifests.append(landing.url(f"{laboratory}/{batch}/manifest.json"))
        write_labels(experiment, self.folder / "labels.csv")
        task = Task(
            "train-1", tuple(manifests), "", self.params.model_dump_json(), self.work("training"),
            str(self.folder / "labels.csv"),
        )  # fmt: skip
        submitter = self.submitter(task.work)
        process = submitter.start(task)
        process.join()
        assert process.exitcode == 0, submitter.last_words(task.run_id)


@contextmanager
def standing(folder: Path, root: Path, seed: int) -> Iterator[Platform]:
    """Start the services, train, and hand out the platform; afterwards nothing of it is left in this process.

    Embedded services by default; a real S3 server where CODA_TEST_S3_ENDPOINT names one, and the MLflow server of
    MLFLOW_TRACKING_URI where that is set.
    """
    before = dict(os.environ)
    try:
        with EmbeddedServices(folder / "services") as services:
            changes = _real_servers(before)
            settings = services.settings.model_copy(update=changes)
            os.environ.update(settings.environment)
            if "s3_endpoint" in changes:
                for uri in (settings.landing, settings.platform):
                    store_for(uri, settings).ensure_bucket()
            # the adapted extractor is taken each time: every accepted version registers a model and releases it
            policy = root / "tests" / "flow" / "eager_gate.yaml"
            # the stored fields of SMALLER are half as large as its images
            changes = ["adaptation.candidates=[unadapted, coda]", f"gate.policy={policy}", "crops.centre=32"]
            params = load_params(root / "params.yaml", smoke_overlays(root), changes)
            platform = Platform(folder, settings, params, prepared(), seed)
            platform.train()
            yield platform
    finally:
        os.environ.clear()
        os.environ.update(before)


def _real_servers(environment: Mapping[str, str]) -> dict[str, str]:
    changes = {}
    if endpoint := environment.get("CODA_TEST_S3_ENDPOINT"):
        os.environ["AWS_ACCESS_KEY_ID"] = environment["CODA_TEST_S3_ACCESS_KEY"]
        os.environ["AWS_SECRET_ACCESS_KEY"] = environment["CODA_TEST_S3_SECRET_KEY"]
        name = f"faults-{uuid.uuid4().hex[:8]}"
        changes |= {
            "s3_endpoint": endpoint, "landing": f"s3://{name}-landing", "platform": f"s3://{name}-platform",
            "data_remote": f"s3://{name}-platform/dvc",
        }  # fmt: skip
    if uri := environment.get("MLFLOW_TRACKING_URI"):
        changes["mlflow_uri"] = uri
    return changes


def until(question: Callable[[], object], what: str, patience_s: float = 240.0) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + patience_s
    while not question():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience_s:.0f} s"
        time.sleep(0.1)


def forget(folder: Path) -> None:
    """Lose what a machine held."""
    shutil.rmtree(folder, ignore_errors=True)


def drawn(platform: Platform, what: str) -> random.Random:
    """Return a generator of its own for one scenario, the same for the same seed."""
    return random.Random(f"{platform.seed} {what}")
