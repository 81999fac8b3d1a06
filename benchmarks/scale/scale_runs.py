"""Measures batches of growing size, each against a source of its own and services that have seen nothing else."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.scale.measured_code import code_digest
from benchmarks.scale.parts_of_years import measure_looks, measure_manifest, measure_releases
from benchmarks.scale.run_figures import Run, figures_of
from benchmarks.scale.run_watching import Watching
from benchmarks.scale.small_plates import (
    FIELD_PX,
    TEACHER,
    Delivery,
    experiment_of,
    lay_into,
    simulate,
    take_away,
)
from benchmarks.scale.traffic import read_requests
from coda.benchmark.benchmark_report import write_json
from coda.config import Params, params_digest
from coda.config.load import changed
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, Problem
from coda.local.services import LANDING_BUCKET, EmbeddedServices
from coda.runners.local import run_local
from coda.runners.port import RunOutcome, run_pipeline
from coda.simulation.delivery import SIMULATION_VERSION
from coda.simulation.design import write_labels
from coda.storage.objects import store_for

LABELS = "labels/mechanisms.csv"
SMALL: dict[str, Any] = {
    "crops.centre": FIELD_PX // 2, "pretrain.iterations": 60, "head.budget.iterations": 60,
    "quality.min_history_plates": 4,
}  # fmt: skip
"""The smallest training that gives a model to adapt; crops are what fits into a small image."""

LIMITS = {
    "max_top_class_share": 1.0,
    "max_top_class_excess": 1.0,
    "min_marginal_entropy": 0.0,
    "min_feature_spread": 0.0,
}
"""Limits of health that no model misses: what is measured is a batch on its way, and a model of sixty iterations may
give most fields one class on one machine and not on another."""

SMALLEST: dict[str, Any] = {"adaptation.budget.iterations": 2, "gate.bootstrap": 20}
"""For batches of the archive: they have to be accepted, and to be there."""


@dataclass(frozen=True)
class Size:
    """One measurement: a batch of so many plates, after so many accepted ones of the same source and size."""

    plates: int
    archive: int

    @property
    def name(self) -> str:
        """Name of the source, and of everything that is kept of the measurement."""
        return f"scale-{self.plates:02d}-{self.archive}"

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All its batches; the last one is measured."""
        return tuple(Delivery(self.name, f"b{number}", self.plates) for number in range(1, self.archive + 2))


class Scale:
    """Measures sizes below one folder; what was measured with the same code and parameters is not measured again."""

    def __init__(self, work: Path, params: Params, *, field_px: int, workers: int, told: Callable[[str], None]) -> None:
        """Measure nothing yet.

        Args:
            work: Folder of plates, services and results.
            params: Parameters of the pipelines.
            field_px: Side of the images, in pixels.
            workers: Processes that simulate plates.
            told: Called with what is done.
        """
        given = params.gate.policy.health.model_dump(mode="json")
        limits = {f"gate.policy.health.{name}": value for name, value in LIMITS.items() if name in given}
        self.params = changed(params, {**SMALL, **limits})
        self._experiment = experiment_of(field_px)
        self._design = self._experiment.design
        made_of = {
            "code": code_digest(), "params": params_digest(self.params), "design": self._design.model_dump(mode="json"),
            "simulation": SIMULATION_VERSION,
            "place": str(work.resolve()),  # the model registry names its files by their whole paths
        }  # fmt: skip
        self.plates = work.resolve() / f"shifted-{field_px}px"
        self.folder = work.resolve() / digest_of_json(made_of)[:12]
        self._live = self.folder / "services"
        self._trained = self.folder / "trained"
        self._traffic = self.folder / "traffic.jsonl"
        self._workers = workers
        self._told = told

    def measure(self, sizes: Iterable[Size]) -> list[dict[str, Any]]:
        """Return the figures of each size, smallest batch first.

        Raises:
            CodaError: A run failed, or a batch was refused.
        """
        return [self._size(size) for size in sorted(set(sizes), key=lambda size: (size.archive, size.plates))]

    def measure_parts(self, *, objects: int, versions: int, manifest_plates: int, releases: int) -> dict[str, Any]:
        """Return what does not grow with one batch: 'looks', 'manifest', 'releases' (`parts_of_years`).

        Args:
            objects: Objects below the landing prefix that a trigger looks at; 0 leaves the looks out.
            versions: Versions in its ledger.
            manifest_plates: Plates of the manifest that it takes; 0 leaves the manifest out.
            releases: Releases that are listed; 0 leaves them out.

        Raises:
            CodaError: What is measured failed.
        """
        found = {}
        if objects:
            looks = partial(measure_looks, objects, versions)
            found["looks"] = self._kept(f"looks-{objects}-{versions}", looks)
        if manifest_plates:
            found["manifest"] = self._kept(f"manifest-{manifest_plates}", partial(measure_manifest, manifest_plates))
        if releases:
            found["releases"] = self._kept(f"releases-{releases}", partial(measure_releases, releases))
        return found

    def _size(self, size: Size) -> dict[str, Any]:
        return self._kept(size.name, partial(self._run, size))

    def _kept(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was measured under a name, or measure it."""
        kept = self.folder / "measured" / f"{name}.json"
        if kept.exists():
            self._told(f"{name}: measured before")
            return dict(json.loads(kept.read_text(encoding="utf-8")))
        self._told(f"measuring {name}")
        figures = measure()
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, figures)
        return figures

    def _train(self) -> None:
        """Train once, and keep the services as they are then: every size begins with a copy of them."""
        if self._trained.exists():
            return
        shutil.rmtree(self._live, ignore_errors=True)
        batches = [Delivery(TEACHER, f"b{number}", 1, TEACHER) for number in (1, 2)]
        labels = write_labels(self._experiment, self.folder / "labels.csv")
        for delivery in batches:
            lay_into(self._objects, self._simulated(delivery), delivery)
        with EmbeddedServices(self._live) as services:
            store_for(services.settings.platform, services.settings).put(LABELS, labels.read_bytes())
            self._told("training")
            arguments = {
                "run_id": "scale-train", "params": self.params, "labels": f"{services.settings.platform}/{LABELS}",
                "manifest_uris": [f"{services.settings.landing}/{it.folder}/manifest.json" for it in batches],
            }  # fmt: skip
            run_pipeline(
                "training", arguments, runner="local", settings=services.settings, work=self._runs, say=self._told
            )  # fmt: skip
        take_away(self._objects)
        shutil.rmtree(self._runs)
        self._live.replace(self._trained)

    @property
    def _objects(self) -> Path:
        return self._live / "objects"

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    def _run(self, size: Size) -> dict[str, Any]:
        self._train()
        for folder in (self._live, self._runs):
            shutil.rmtree(folder, ignore_errors=True)
        self._traffic.unlink(missing_ok=True)
        *earlier, measured = size.deliveries
        folders = {it: self._simulated(it) for it in size.deliveries}
        shutil.copytree(self._trained, self._live)
        with EmbeddedServices(
            self._live, store=("benchmarks.scale.traffic", "--traffic", str(self._traffic))
        ) as services:
            for delivery in earlier:
                self._deliver(services, folders[delivery], delivery)
                self._adapt(services, delivery, changed(self.params, SMALLEST), runner="local")
                shutil.rmtree(self._runs)
            raw = self._deliver(services, folders[measured], measured)
            place = self._traffic.stat().st_size
            with Watching() as watching:
                began = time.monotonic()
                outcome = self._adapt(services, measured, self.params, runner=partial(run_local, watch=watching))
                seconds = time.monotonic() - began
            requests, _ = read_requests(self._traffic, since=place)
            run = Run(watching, tuple(requests), outcome, seconds, self._runs / outcome.run_id, LANDING_BUCKET)
            figures = figures_of(run, services.settings, measured.source, measured.batch)
        shutil.rmtree(self._runs)
        fields = measured.plates * len(self._experiment.imaged_wells()) * self._design.sites_per_well
        return {"plates": size.plates, "archive": size.archive, "fields": fields, "raw_bytes": raw, **figures}

    def _simulated(self, delivery: Delivery) -> Path:
        return simulate(delivery, self._experiment, self.plates, self._workers, self._told)

    def _deliver(self, services: EmbeddedServices, folder: Path, delivery: Delivery) -> int:
        services.stop_object_store()
        take_away(self._objects)
        raw = lay_into(self._objects, folder, delivery)
        services.start_object_store()
        return raw

    def _adapt(self, services: EmbeddedServices, delivery: Delivery, params: Params, runner: Any) -> RunOutcome:
        self._told(f"{delivery.folder}: adapting")
        arguments = {
            "run_id": f"adapt-{delivery.source}-{delivery.batch}", "params": params,
            "manifest_uri": f"{services.settings.landing}/{delivery.folder}/manifest.json",
        }  # fmt: skip
        outcome = run_pipeline(
            "adaptation", arguments, runner=runner, settings=services.settings, work=self._runs, say=self._told,
            attempts=1,
        )  # fmt: skip
        if outcome.outcome == "refused":
            problem = Problem(delivery.folder, outcome.sentence, "a batch that is accepted", "Give other parameters.")
            raise CodaError("A simulated batch was refused, so nothing can be measured.", [problem])
        return outcome
