"""The whole loop on one machine: plates in a bucket, training, new batches, a broken one, and what came of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coda.config import Params, load_params, params_digest
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, Problem
from coda.local.services import EmbeddedServices
from coda.local.stages import Stages
from coda.local.summary import summarise_seed
from coda.simulation.broken import break_batch
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment, write_labels
from coda.storage.bulk import upload_folder
from coda.storage.objects import ObjectStore

SOURCE = "lab_a"
TARGETS = ("lab_b", "lab_c")
LABELS_KEY = "labels/mechanisms.csv"
UPLOAD_WORKERS = 8


@dataclass(frozen=True)
class Delivery:
    """One batch of the demo: who delivers it, its plates, and how it is broken, if it is."""

    laboratory: str
    batch: str
    plates: int
    broken: tuple[str, ...] = ()

    @property
    def plate_names(self) -> tuple[str, ...]:
        """Names of its plates."""
        return tuple(f"{self.laboratory}_{self.batch}_p{number}" for number in range(1, self.plates + 1))

    @property
    def prefix(self) -> str:
        """Where it lands below the landing prefix."""
        return f"{self.laboratory}/{self.batch}"


TRAINING = tuple(Delivery(SOURCE, f"b{number}", 2) for number in range(1, 6))
ARRIVALS = tuple(Delivery(laboratory, f"b{number}", 2) for laboratory in TARGETS for number in (1, 2))
BROKEN = Delivery("lab_b", "b3", 3, ("corrupt_tiff", "missing_plate", "swapped_stains"))


def demo_params(seed: int, root: Path) -> Params:
    """Return the parameters of the demo: the project's with the demo's overlay and this seed."""
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [f"seed={seed}"])


def run_seed(folder: Path, seed: int, params: Params, console: Console) -> dict[str, Any]:
    """Run the demo of one seed, going on from what an interrupted run left.

    Args:
        folder: Where its state is kept.
        seed: Seed of the plates and of the training.
        params: Parameters of the pipelines.
        console: Where it says what it does.

    Returns:
        The summary of this seed; see docs/demo.md for its keys.

    Raises:
        CodaError: A stage failed; starting again goes on with that stage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    design = Design()
    made_of = {"params": params_digest(params), "design": design.model_dump(mode="json")}
    stages = Stages(folder, digest_of_json(made_of), console)
    with EmbeddedServices(folder / "services") as services:
        demo = _Demo(folder, seed, design, params, services, stages, console)
        demo.simulate()
        demo.train()
        for delivery in ARRIVALS:
            demo.arrive(delivery)
        demo.arrive(BROKEN)
        return summarise_seed(folder, seed, stages, services.settings, SOURCE)


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
        """Simulate every delivery of the source; the others are simulated when they arrive."""

        def work() -> int:
            write_labels(self.experiment, self.folder / "truth" / "labels.csv")
            return sum(self._simulate(delivery) for delivery in TRAINING)

        count = self.stages.run(
            "simulate", f"1. Simulating {len(TRAINING)} batches of {SOURCE} (raw 16-bit TIFFs, JUMP layout) ...", work
        )
        self.console.print(f"   {count} files lie in {self.plates}, with a manifest for each batch.")

    def train(self) -> None:
        """Upload the source's batches and its label table, and run the training pipeline."""
        from coda.runners.port import run_pipeline

        def upload() -> int:
            self.platform.put(LABELS_KEY, (self.folder / "truth" / "labels.csv").read_bytes())
            return sum(self._upload(delivery) for delivery in TRAINING)

        self.stages.run(f"upload {SOURCE}", f"   Uploading them to {self.settings.landing} ...", upload)

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

    def arrive(self, delivery: Delivery) -> None:
        """Deliver a batch as a producer would, and let the trigger find and run it."""
        number = "4" if delivery.broken else "3"
        name = f"{delivery.laboratory}/{delivery.batch}"
        what = f"A broken batch ({', '.join(delivery.broken)})" if delivery.broken else "A new batch"

        def deliver() -> int:
            self._simulate(delivery)
            return self._upload(delivery)

        self.stages.run(f"deliver {name}", f"{number}. {what} arrives from {delivery.laboratory}: {name} ...", deliver)
        title = f"   The trigger looks into {self.settings.landing} ..."
        before = self.stages.finished(f"adapt {name}")
        result = self.stages.run(f"adapt {name}", title, lambda: self._trigger(name))
        if before:  # otherwise the run itself has just said so
            self.console.print(f"   {result['outcome']}: {result['sentence']}", markup=False)

    def _trigger(self, name: str) -> dict[str, Any]:
        from coda.local.arrival import run_until_settled

        return run_until_settled(name, self.settings, self.params, self.folder / "work", SOURCE, self._say)

    def _simulate(self, delivery: Delivery) -> int:
        folder = self.plates / delivery.laboratory / delivery.batch
        if delivery.broken:
            shutil.rmtree(folder, ignore_errors=True)
        with self._progress(f"   {delivery.prefix}: simulating fields") as advance:
            names = delivery.plate_names
            manifest = simulate_batch(
                self.experiment, delivery.laboratory, delivery.batch, names, self.plates, progress=advance
            )
        if delivery.broken:
            for sentence in break_batch(folder, delivery.broken, self.seed):
                self.console.print(f"   [dim]broken on purpose: {sentence}[/dim]")
        return sum(plate.file_count for plate in manifest.plates)

    def _upload(self, delivery: Delivery) -> int:
        folder = self.plates / delivery.laboratory / delivery.batch
        with self._progress(f"   {delivery.prefix}: uploading files") as advance:
            return upload_folder(
                self.landing, folder, delivery.prefix, last=("manifest.json",), workers=UPLOAD_WORKERS, progress=advance
            )

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
