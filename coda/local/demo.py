"""The whole loop on one machine: plates in a bucket, training, new batches, a broken one, and what came of it."""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coda.config import Params, load_params, params_digest
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, Problem
from coda.local import routine
from coda.local.services import EmbeddedServices
from coda.local.side_thread import Beside
from coda.local.stages import Stages
from coda.local.summary import summarise_seed
from coda.simulation.broken import break_batch
from coda.simulation.delivery import rendering_pool, simulate_batch
from coda.simulation.design import Design, plan_experiment, write_labels
from coda.simulation.laboratories import Laboratory
from coda.storage.bulk import upload_folder
from coda.storage.objects import ObjectStore

SOURCE = "lab_a"
TARGETS = ("lab_b", "lab_c")
LABELS_KEY = "labels/mechanisms.csv"
UPLOAD_WORKERS = 8

AT_ONCE = 3
"""Runs at a time: one of each source."""

LEASE_S = 20.0
"""Two triggers watch the bucket: neither may take a run of the other for left, however slow the machine."""

RENDERERS = 2
"""Processes that simulate plates."""

WEEKLY_ITERATIONS = 8
"""Iterations of adaptation to a weekly batch: its laboratory hardly changes, and ten of them cost two others."""

LONGEST_PATH = 400
"""Characters of a folder that a manifest can name as the place of its images, with some to spare."""


@dataclass(frozen=True)
class Delivery:
    """One batch of the demo: who delivers it, its plates, and how it is broken, if it is.

    Attributes:
        laboratory: Source.
        batch: Batch.
        plates: Number of plates.
        broken: Kinds of `coda.simulation.broken` that it is broken in.
        stays: Images stay on the disk where the microscope wrote them; manifest and tables are delivered.
        week: Of the laboratory that works by routine; 0 for the others.
    """

    laboratory: str
    batch: str
    plates: int
    broken: tuple[str, ...] = ()
    stays: bool = False
    week: int = 0

    @property
    def plate_names(self) -> tuple[str, ...]:
        """Names of its plates."""
        return tuple(f"{self.laboratory}_{self.batch}_p{number}" for number in range(1, self.plates + 1))

    @property
    def prefix(self) -> str:
        """Where it lands below the landing prefix, and its name."""
        return f"{self.laboratory}/{self.batch}"


TRAINING = tuple(Delivery(SOURCE, f"b{number}", 2, stays=True) for number in range(1, 6))
BROKEN = Delivery("lab_b", "b3", 3, ("corrupt_tiff", "missing_plate", "swapped_stains"))
ARRIVALS = (*(Delivery(laboratory, f"b{number}", 2) for laboratory in TARGETS for number in (1, 2)), BROKEN)
WEEKLY = tuple(
    Delivery(routine.NAME, routine.batch_name(week), routine.PLATES, stays=True, week=week)
    for week in range(1, routine.WEEKS + 1)
)


def demo_params(seed: int, root: Path) -> Params:
    """Return the parameters of the demo: the project's with the demo's overlay and this seed."""
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [f"seed={seed}"])


def run_seed(folder: Path, seed: int, params: Params, console: Console) -> dict[str, Any]:
    """Run the demo of one seed, resuming from what an interrupted run left.

    Returns:
        The summary of this seed; see docs/demo.md for its keys.

    Raises:
        CodaError: A stage failed; starting again resumes with that stage.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    design = Design()
    made_of = {"params": params_digest(params), "design": design.model_dump(mode="json"), "story": 2}
    stages = Stages(folder, digest_of_json(made_of), console)
    with EmbeddedServices(folder / "services", images=folder / "plates") as services:
        demo = _Demo(folder, seed, design, params, services, stages, console)
        demo.simulate()
        with Beside(demo.deliver):
            demo.train()
        demo.arrive()
        summary = summarise_seed(folder, seed, stages, services.settings, SOURCE)
        return {**summary, "seconds": round(time.monotonic() - started, 1)}


class _Demo:
    """The stages of one seed."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        design: Design,
        params: Params,
        services: EmbeddedServices,
        stages: Stages,
        console: Console,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.experiment = plan_experiment(seed, design)
        self.params = params
        self.settings = services.settings
        self.stages = stages
        self.console = console
        self.plates = folder / "plates"
        self.landing = ObjectStore(self.settings.landing, self.settings.s3_endpoint)
        self.platform = ObjectStore(self.settings.platform, self.settings.s3_endpoint)

    def simulate(self) -> None:
        """Simulate every delivery of the source; the others are simulated beside the training."""

        def work() -> int:
            write_labels(self.experiment, self.folder / "truth" / "labels.csv")
            return sum(self._simulate(delivery) for delivery in TRAINING)

        count = self.stages.run(
            "simulate", f"1. Simulating {len(TRAINING)} batches of {SOURCE} (raw 16-bit TIFFs, JUMP layout) ...", work
        )
        self.console.print(f"   {count} files lie in {self.plates}; the manifests say so, and the images stay there.")

    def train(self) -> None:
        """Deliver manifests and tables of the source's batches, and its labels; run the training pipeline."""
        from coda.runners.port import run_pipeline

        def upload() -> int:
            self.platform.put(LABELS_KEY, (self.folder / "truth" / "labels.csv").read_bytes())
            return sum(self._upload(delivery) for delivery in TRAINING)

        self.stages.run(
            f"upload {SOURCE}", f"   Delivering manifests and tables to {self.settings.landing} ...", upload
        )

        def work() -> dict[str, Any]:
            uris = [f"{self.settings.landing}/{delivery.prefix}/manifest.json" for delivery in TRAINING]
            outcome = run_pipeline(
                "training",
                {
                    "run_id": f"train-{SOURCE}-{self.seed}",
                    "manifest_uris": uris,
                    "labels": f"{self.settings.platform}/{LABELS_KEY}",
                    "params": self.params,
                },
                runner="local",
                settings=self.settings,
                work=self.folder / "work",
                say=self._say,
            )
            return {"run_id": outcome.run_id, "outcome": outcome.outcome, "sentence": outcome.sentence}

        title = "2. Training pipeline: ingest, validate, version, pretrain, head, evaluate, register, release ..."
        result = self.stages.run("training pipeline", title, work)
        self.console.print(f"   {result['sentence']}")

    def deliver(self, stopping: threading.Event) -> None:
        """Simulate and deliver what arrives after the training, as producers would; for a thread beside it."""
        with rendering_pool(RENDERERS) as pool:
            for delivery in (*ARRIVALS, *WEEKLY):
                name = f"deliver {delivery.prefix}"
                if self.stages.finished(name):
                    continue
                started = time.monotonic()
                count = self._simulate(delivery, pool, stopping)
                if stopping.is_set():
                    return
                count = self._upload(delivery)
                self.stages.note(name, time.monotonic() - started, count)

    def arrive(self) -> None:
        """Let two triggers find and run what was delivered: one is about the weekly batches alone."""
        self.console.print(
            f"[bold]3. New batches arrived from {', '.join(TARGETS)}, one of them broken, and weekly ones from "
            f"{routine.NAME}; the trigger looks into {self.settings.landing} ...[/bold]"
        )
        one_core = {"compute": self.params.compute.model_copy(update={"threads": 1})}
        budget = self.params.adaptation.budget.model_copy(update={"iterations": WEEKLY_ITERATIONS})
        adaptation = self.params.adaptation.model_copy(update={"budget": budget})
        params = self.params.model_copy(update=one_core)
        weekly = self.params.model_copy(update={**one_core, "adaptation": adaptation})
        with Beside(lambda stopping: self._settle(WEEKLY, weekly, (SOURCE, *TARGETS), stopping)):
            self._settle(ARRIVALS, params, (SOURCE, routine.NAME), threading.Event(), say=self._say)

    def _settle(
        self,
        deliveries: Sequence[Delivery],
        params: Params,
        ignore: Sequence[str],
        stopping: threading.Event,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        from coda.local.arrival import settle

        def ended(name: str, seconds: float, result: dict[str, Any]) -> None:
            self.stages.note(f"adapt {name}", seconds, result)
            self._say(f"{name}: {result['outcome']}: {result['sentence']}")

        open_ = [delivery.prefix for delivery in deliveries if not self.stages.finished(f"adapt {delivery.prefix}")]
        for delivery in deliveries:
            if delivery.prefix not in open_:
                result = self.stages.result(f"adapt {delivery.prefix}")
                self._say(f"{delivery.prefix}: {result['outcome']}: {result['sentence']}")
        found = settle(
            open_, self.settings, params, self.folder / "work", ignore,
            parallel=AT_ONCE, lease_s=LEASE_S, ended=ended, stopping=stopping,
            say=lambda name, line: say(f"{name}: {line.strip()}"),
        )  # fmt: skip
        for name, result in found.items():
            if not self.stages.finished(f"adapt {name}"):  # ended in an earlier start that was interrupted
                ended(name, 0.0, result)

    def _simulate(
        self, delivery: Delivery, pool: Executor | None = None, stopping: threading.Event | None = None
    ) -> int:
        folder = self.plates / delivery.laboratory / delivery.batch
        if delivery.broken:
            shutil.rmtree(folder, ignore_errors=True)
        laboratory: str | Laboratory = delivery.laboratory
        experiment, dispensed = self.experiment, {}
        if delivery.week:
            laboratory, experiment = routine.laboratory(delivery.week), routine.experiment(self.seed, delivery.week)
            dispensed = routine.dispensed(self.seed, delivery.week, delivery.plate_names)

        def advance(done: int, total: int) -> None:
            if stopping is not None and stopping.is_set():
                raise CodaError("The demo was stopped.")

        with nullcontext(advance) if pool else self._progress(f"   {delivery.prefix}: simulating fields") as progress:
            manifest = simulate_batch(
                experiment, laboratory, delivery.batch, delivery.plate_names, self.plates, pool=pool,
                progress=progress, dispensed=dispensed, images_stay=self._stays(delivery),
            )  # fmt: skip
        if delivery.broken:
            for sentence in break_batch(folder, delivery.broken, self.seed):
                self._say(f"{delivery.prefix} is broken on purpose: {sentence}")
        return sum(plate.file_count for plate in manifest.plates)

    def _stays(self, delivery: Delivery) -> bool:
        # a list of allowed places has commas between them, and a manifest names places of some length alone
        path = str(self.plates.resolve())
        return delivery.stays and "," not in path and len(path) < LONGEST_PATH

    def _upload(self, delivery: Delivery) -> int:
        folder = self.plates / delivery.laboratory / delivery.batch
        return upload_folder(
            self.landing, folder, delivery.prefix, last=("manifest.json",), workers=UPLOAD_WORKERS,
            leave=(".tif", ".tiff") if self._stays(delivery) else (),
        )  # fmt: skip

    def _say(self, line: str) -> None:
        self.console.print(f"   {line}", markup=False, highlight=False)

    def _progress(self, title: str) -> "_Bar":
        return _Bar(title, self.console)


class _Bar:
    """A progress bar for callbacks of (done, total)."""

    def __init__(self, title: str, console: Console) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self.title = title

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        task = self.bar.add_task(self.title, total=None)

        def advance(done: int, total: int) -> None:
            self.bar.update(task, completed=done, total=total)

        return advance

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def require_checkout(root: Path) -> None:
    """Check that the demo is started in a checkout of the project.

    Raises:
        CodaError: The parameter files are not there.
    """
    missing = [name for name in ("params.yaml", "params/demo.yaml") if not (root / name).is_file()]
    if missing:
        problem = Problem(str(root), f"no {', '.join(missing)}", "the project's checkout", "Change into the checkout.")
        raise CodaError("The demo needs the project's parameter files.", [problem])
