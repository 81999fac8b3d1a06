"""One part of a benchmark: what its result depends on, and the file that keeps it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from coda.benchmark.sources import sources_digest
from coda.contracts.base import digest_of_json

JOBS = "jobs"


@dataclass(frozen=True)
class Job:
    """One part of a benchmark.

    Attributes:
        name: For people: 'seed 0: CODA, lab_a to lab_b'. Every job of a benchmark has another.
        key: Everything the result depends on beside code, as JSON values: seed, data, parameters.
        task: What the work needs to do it; sent to a worker process, so it must be small and picklable.
        after: Jobs that must be finished first.
    """

    name: str
    key: Mapping[str, Any]
    task: Any = None
    after: tuple["Job", ...] = field(default=(), compare=False)

    @cached_property
    def digest(self) -> str:
        """Names the result: of the key, of the jobs this one builds upon, and of the code that does it.

        No result of other code is ever taken for this one's; nobody needs to raise a version for that.
        """
        code = sources_digest(type(self.task).__module__)
        return digest_of_json({"key": self.key, "code": code, "after": sorted(job.digest for job in self.after)})

    def file(self, folder: Path) -> Path:
        """Return where the result is kept below a benchmark's folder."""
        return folder / JOBS / f"{self.digest}.json"

    def folder(self, folder: Path) -> Path:
        """Return where the work may keep more than numbers: predictions, models."""
        return folder / JOBS / self.digest


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        result: What the work returned, or None if it failed.
        cause: Why there is no result.
        seconds: Wall time of the work, whenever it was done.
    """

    job: Job
    result: dict[str, Any] | None
    cause: str = ""
    seconds: float = 0.0


Work = Callable[[Job], dict[str, Any]]
"""Does a job and returns its result as JSON values."""


def do(job: Job, work: Work, folder: Path) -> Outcome:
    """Do the work of one job and keep its result; an error becomes the outcome's cause."""
    start = time.perf_counter()
    try:
        result = work(job)
        seconds = time.perf_counter() - start
        write_job(job, folder, result, seconds)
    except Exception as error:  # noqa: BLE001 - one job's error must not take the others with it
        return Outcome(job, None, " ".join(f"{type(error).__name__}: {error}".split()))
    return Outcome(job, result, "", seconds)


def read_job(job: Job, folder: Path) -> Outcome | None:
    """Return the kept outcome of a job, or None when it is not finished (or its file is not whole)."""
    try:
        content = json.loads(job.file(folder).read_bytes())
        return Outcome(job, dict(content["result"]), "", float(content["seconds"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_job(job: Job, folder: Path, result: Mapping[str, Any], seconds: float) -> None:
    """Keep the result of a job, whole or not at all."""
    path = job.file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"name": job.name, "key": job.key, "result": dict(result), "seconds": seconds}
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
