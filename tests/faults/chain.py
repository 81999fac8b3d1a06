"""The steps of both pipelines one after the other in one process, called as their components call them.

KFP starts a process and imports everything anew for each step, which costs more than the steps themselves at this size.
Here a step that ended is not repeated, as with KFP's remembered results; everything else is the real thing: the step
functions, their services, the lock and the folder of a run, and the record of its end.
"""

import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coda.config import Params
from coda.errors import CodaError
from coda.runners.workdir import RunFolder, opened
from coda.runners.workdir import environment as variables
from coda.settings import Settings, read_settings
from coda.steps.adapt import adapt
from coda.steps.archive import archive
from coda.steps.context import clear_failure, running
from coda.steps.evaluate import evaluate
from coda.steps.finish import finish
from coda.steps.ingest import ingest
from coda.steps.judge import judge
from coda.steps.plates import ingest_group, plan_groups
from coda.steps.predict import predict
from coda.steps.pretrain import pretrain
from coda.steps.record import read_run
from coda.steps.register_adaptation import register_adaptation
from coda.steps.register_training import register_training
from coda.steps.release import release
from coda.steps.report import report
from coda.steps.train_head import train_head
from coda.steps.validate import validate, verdict
from coda.steps.version import version
from coda.storage.plate_shelf import StoredShelf
from coda.trigger.batch_versions import require_version
from tests.faults.deaths import Deaths

PEAK = "peak_kib"
"""File of a run's folder: the most memory that its last process, or one that it started, took, in KiB."""


@dataclass(frozen=True)
class Task:
    """One run, as a child process gets it.

    Attributes:
        run_id: Its name.
        manifests: Addresses of the manifests.
        digest: Manifest version that was claimed.
        params: Params as JSON.
        work: Folder of the runs of this machine.
        labels: Label table; given for a training run alone.
        deaths: Where to die.
    """

    run_id: str
    manifests: tuple[str, ...]
    digest: str
    params: str
    work: Path
    labels: str = ""
    deaths: Deaths | None = None

    @property
    def pipeline(self) -> str:
        return "training" if self.labels else "adaptation"


class Chain:
    """One run under way."""

    def __init__(self, task: Task, folder: RunFolder, settings: Settings) -> None:
        self.task, self.folder, self.settings = task, folder, settings
        self.params = Params.model_validate_json(task.params)
        self.given = {"params": self.params, "settings": settings}
        self.named = {**self.given, "run_id": task.run_id}

    def out(self, step: str) -> Path:
        return self.folder.outputs / step

    def steps(self) -> dict[str, Callable[[], object]]:
        first: dict[str, Callable[[], object]] = {"ingest_plates": self._ingest_plates, "ingest": self._ingest}
        if self.task.labels:
            out = self.out
            return first | {
                "validate": self._validate,
                "version": lambda: version(out("validate"), out("version"), **self.named),
                "pretrain": lambda: pretrain(out("validate"), out("pretrain"), **self.named),
                "train_head": lambda: train_head(
                    out("validate"), out("pretrain"), self.task.labels, out("train_head"), **self.named
                ),
                "evaluate": lambda: evaluate(
                    out("validate"), out("pretrain"), out("train_head"), self.task.labels, out("evaluate"), **self.given
                ),
                "register_training": lambda: register_training(
                    out("pretrain"), out("train_head"), out("evaluate"), out("version"), out("draft"), **self.named
                ),
                "release": self._release,
                "report": self._report,
                "finish": self._finish,
            }
        return first | {
            "archive": lambda: archive(self.out("ingest"), self.out("archive"), **self.given),
            "validate": self._validate,
            "quality_verdict": lambda: verdict(self.out("validate")),
            "version": lambda: version(self.out("validate"), self.out("version"), **self.named),
            "adapt": self._adapt,
            "gate": self._gate,
            "register_adaptation": lambda: register_adaptation(
                self.out("adapt"),
                self.out("gate"),
                self.out("version"),
                self.out("draft"),
                **self.named,
                models=self.out("models"),
            ),
            "release": self._release,
            "predict": lambda: predict(
                self.out("validate"),
                self.out("release"),
                self.out("predict"),
                **self.given,
                candidates=self.out("adapt"),
            ),
            "report": self._report,
            "finish": self._finish,
        }

    def _ingest_plates(self) -> None:
        shelf = StoredShelf(self.settings, self.task.run_id)
        for group in plan_groups(self.task.manifests, **self.given):
            ingest_group(self.task.manifests, group, **self.given, shelf=shelf)

    def _ingest(self) -> None:
        shelf = StoredShelf(self.settings, self.task.run_id)
        ingest(self.task.manifests, self.out("ingest"), **self.given, shelf=shelf)
        require_version(self.out("ingest"), self.task.digest)

    def _validate(self) -> None:
        # an input artifact is never changed
        shutil.copytree(self.out("ingest"), self.out("validate"), dirs_exist_ok=True)
        history = self.out("archive") if self.out("archive").is_dir() else None
        for item in validate(self.out("validate"), **self.given, history=history):
            self._keep(self.out("validate") / item.source / item.batch / "quality.json", "quality.json")

    def _adapt(self) -> None:
        for candidate in adapt(
            self.out("validate"), self.out("archive"), self.out("adapt"), **self.named, models=self.out("models")
        ):
            path = self.out("adapt") / candidate.name / "predictions.parquet"
            self._keep(path, f"candidates/{candidate.name}.parquet")

    def _gate(self) -> None:
        judge(self.out("validate"), self.out("adapt"), self.out("gate"), **self.given)
        self._keep(self.out("gate"), "gate.json")

    def _release(self) -> None:
        release(self.out("draft"), self.out("release"), settings=self.settings, run_id=self.task.run_id)

    def _report(self) -> None:
        made = {"candidates": "adapt", "gate": "gate", "release": "release", "predictions": "predict"}
        given = {name: self.out(step) for name, step in made.items() if self.out(step).exists()}
        report(self.out("validate"), self.out("report.html"), **self.named, **given)

    def _finish(self) -> None:
        made = {"revisions": "version", "gate": "gate", "release": "release"}
        given = {name: self.out(step) for name, step in made.items() if self.out(step).exists()}
        finish(self.out("validate"), pipeline=self.task.pipeline, **self.named, **given)

    def _keep(self, path: Path, name: str) -> None:
        from coda.storage.objects import store_for

        store_for(self.settings.platform, self.settings).upload(path, f"runs/{self.task.run_id}/{name}")


def run_chain(task: Task, environment: dict[str, str]) -> None:
    """Run a task in this process, which is made for it: its end is the end of the process."""
    os.environ.clear()
    os.environ.update(environment)
    os.setsid()
    path = task.work / task.run_id
    path.mkdir(parents=True, exist_ok=True)
    with (path / "chain.txt").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        settings = read_settings()
        try:
            if read_run(task.run_id, settings) is not None:
                return
            with opened(task.work, task.run_id) as folder, variables({"TMPDIR": str(folder.temporary)}):
                clear_failure(task.run_id, settings)
                _run(Chain(task, folder, settings), task.deaths)
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            (path / PEAK).write_text(str(peak), encoding="utf-8")
        except CodaError as error:
            # the trigger reads what the step recorded; a service that was away before any step leaves only this
            sys.stderr.write(f"{error}\n")
            raise SystemExit(error.exit_code) from error


def _run(chain: Chain, deaths: Deaths | None) -> None:
    for name, step in chain.steps().items():
        done = chain.folder.remembered / name
        if done.exists():
            continue
        if deaths is not None:
            deaths.watch(name, chain.folder.path)
        with running(name, chain.task.run_id, chain.settings):
            step()
        if deaths is not None:
            deaths.rest()
        done.touch()
