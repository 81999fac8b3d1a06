"""A training step on several machines: handed to a TrainJob, waited for, and its results fetched (decision 0029)."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from coda.config import params_digest
from coda.config.params import Params
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, ConfigError, Problem, StoppedError, TransientError
from coda.settings import Settings, without_secrets
from coda.steps.keeping import stopping_on_sigterm
from coda.steps.torchrun import FAILURE, NUMBERS, OUT, REQUEST, SENT, recorded, request_of
from coda.storage.objects import ObjectStore
from coda.trainer.cluster import Cluster, Job
from coda.trainer.reasons import SHOWN, cannot_start, failure, running, waiting_for
from coda.trainer.train_job import train_job

LOOK_S = 10.0
"""Seconds between two looks at a job."""

PULL_S = 300.0
"""Seconds for which an image or a secret may be missing: a registry may be slow, a secret on its way."""

START_S = 6 * 3600.0
"""Seconds until all machines must have run once: a queue may be long, but not without end."""

AWAY_S = 600.0
"""Seconds for which Kubernetes may be away; the job continues without it."""


def run_on_nodes(
    step: str, paths: Mapping[str, Path], *, params: Params, settings: Settings, run_id: str, texts: Mapping[str, str]
) -> dict[str, float]:
    """Run a step in a TrainJob of ``compute.nodes`` machines and return its numbers.

    Args:
        step: Name of the step.
        paths: Its folders by the names of its arguments: those that are there are handed over, ``out`` is filled.
        params: Parameters.
        settings: Where the services are. Checkpoints must lie in object storage, and the image must be named.
        run_id: The run. The same run, inputs and parameters find the same job, or its result.
        texts: The step's other arguments.

    Raises:
        ConfigError: There is no cluster, it refuses, or the machines cannot start or have too little memory.
        TransientError: Kubernetes is away, a machine was lost, or this step was told to stop.
        CodaError: What the first process to fail raised.
    """
    _require(settings)
    sent = {name: path for name, path in paths.items() if name != OUT}
    digests = {name: _folder_digest(path) for name, path in sent.items()}
    identity = digest_of_json([run_id, step, digests, dict(texts), params_digest(params), settings.image])[:16]
    name = f"coda-{step.replace('_', '-')}-{identity}"
    store = ObjectStore(f"{settings.checkpoints.rstrip('/')}/{run_id}/{step}-nodes/{identity}", settings.s3_endpoint)
    if store.find(NUMBERS) is None:
        cluster = Cluster.here()
        with stopping_on_sigterm() as asked:
            if not _found(cluster, name, asked):
                _clear(store)
                _send(store, sent, request_of(step, paths, params, settings, run_id, texts))
                where = f"{store.uri}/"
                command = ["python3", "-m", "torch.distributed.run", "-m", "coda.steps.torchrun", where]
                job = train_job(
                    name, image=settings.image, command=command, nodes=params.compute.nodes,
                    processes=params.compute.processes, run_id=run_id, environment=os.environ,
                )  # fmt: skip
                cluster.create(job)
            _say(f"TrainJob {name} in {cluster.namespace}: {params.compute.nodes} machines.")
            _Wait(cluster, name, params.compute.nodes, store, asked).until_complete()
    numbers: dict[str, float] = json.loads(store.get(NUMBERS))
    store.download_folder(f"{OUT}/", paths[OUT])
    _clear(store)
    return numbers


class _Wait:
    """Polls a job until it has ended; whatever ends the wait but an outage deletes the job."""

    def __init__(self, cluster: Cluster, name: str, nodes: int, store: ObjectStore, asked: Callable[[], bool]) -> None:
        self.cluster, self.name, self.nodes, self.store, self.asked = cluster, name, nodes, store, asked
        self.began, self.ran, self.told = time.monotonic(), False, ""
        self.mistaken: float | None = None

    def until_complete(self) -> None:
        """Return when the job is complete; see `run_on_nodes` for the errors."""
        answered = time.monotonic()
        while True:
            complete, error = False, None
            try:
                complete, error = self._seen() if not self.asked() else (False, self._stopped())
                answered = time.monotonic()
            except TransientError as away:
                if time.monotonic() - answered > AWAY_S:
                    raise
                self._tell(f"cannot be read: {away.problems[0].found if away.problems else away.message}")
            if complete or error is not None:
                self.cluster.delete(self.name)
            if error is not None:
                raise error
            if complete:
                return
            pause(LOOK_S, self.asked)

    def _seen(self) -> tuple[bool, CodaError | None]:
        """Poll once: whether the job is complete, and what ends the wait for it."""
        job = self.cluster.find(self.name)
        if job is None or job.leaving:
            remedy = "Start the step again; it makes a new job, which resumes from the checkpoint."
            problem = Problem(self.name, "no job", "its job", remedy)
            return False, StoppedError("The training's job was deleted.", [problem])
        if job.state == "Failed":
            error = failure(self.name, job.words, self.cluster.pods(self.name), self._log)
            told = self.store.find(FAILURE)
            return False, error if told is None else recorded(json.loads(told))
        return job.state == "Complete", None if self.ran else self._start(job)

    def _start(self, job: Job) -> CodaError | None:
        """Say what the job waits for; return what ends a wait that time does not mend."""
        pods, now = self.cluster.pods(self.name), time.monotonic()
        self.ran = running(pods, self.nodes)
        if self.ran:
            self._tell(f"runs on all machines; progress is in the log of pod {pods[0]['metadata']['name']}")
            return None
        words, mistake = waiting_for(pods)
        if job.state == "Suspended":
            words = f"a queue, which suspended it: {job.words}"
        words = words or ("pods that start" if pods else "pods: a quota or a queue may hold them")
        self._tell(f"waits for {words}")
        self.mistaken = (self.mistaken or now) if mistake else None
        if self.mistaken is not None and now - self.mistaken >= PULL_S:
            return cannot_start(self.name, words)
        if now - self.began >= START_S:
            remedy = "Start the step again when the cluster has room, or ask for fewer machines."
            problem = Problem(self.name, words, f"{self.nodes} machines within {START_S / 3600:g} hours", remedy)
            return TransientError("The cluster had no room for the training.", [problem])
        return None

    def _stopped(self) -> StoppedError:
        remedy = "Start the step again; it resumes from its checkpoint."
        problem = Problem(self.name, "a request to stop", "no interruption", remedy)
        return StoppedError("The training on several machines was interrupted.", [problem])

    def _log(self, pod: str) -> list[str]:
        lines = [without_secrets(line) for line in self.cluster.log(pod, 4 * SHOWN)]
        _say("\n".join([f"Last lines of pod {pod}:", *(f"  {line}" for line in lines)]))
        return lines

    def _tell(self, words: str) -> None:
        if words != self.told:
            self.told = words
            _say(f"TrainJob {self.name} {words}.")


def _found(cluster: Cluster, name: str, asked: Callable[[], bool]) -> bool:
    """Say whether an earlier attempt's job is there; one that is leaving is waited for."""
    job = cluster.find(name)
    while job is not None and job.leaving:
        if asked():
            remedy = "Start the step again."
            problem = Problem(name, "a request to stop", "no interruption", remedy)
            raise StoppedError("The training on several machines was interrupted.", [problem])
        pause(LOOK_S, asked)
        job = cluster.find(name)
    return job is not None


def _require(settings: Settings) -> None:
    if not settings.checkpoints.startswith("s3://"):
        remedy = "Set CODA_CHECKPOINTS to an s3:// prefix, or compute.nodes=1."
        problem = Problem("CODA_CHECKPOINTS", settings.checkpoints, "object storage, which every machine sees", remedy)
        raise ConfigError("Several machines cannot share this folder.", [problem])
    if not settings.image:
        remedy = "Set CODA_IMAGE to the image of the steps, best with a digest."
        raise ConfigError("The image is not known.", [Problem("CODA_IMAGE", "nothing", "an image", remedy)])


def _send(store: ObjectStore, sent: Mapping[str, Path], request: Mapping[str, object]) -> None:
    for name, path in sent.items():
        store.upload_folder(path, f"{SENT}/{name}", last=())
    relative = {name: name for name in (*sent, OUT)}
    store.put(f"{SENT}/{REQUEST}", json.dumps({**request, "paths": relative}).encode())


def _clear(store: ObjectStore) -> None:
    # what says that there is a result goes first
    for name in (NUMBERS, FAILURE, *(item.key for item in store.list())):
        store.delete(name)


def _folder_digest(folder: Path) -> str:
    names = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        names.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return names.hexdigest()


def pause(seconds: float, asked: Callable[[], bool]) -> None:
    """Wait, but not longer than until somebody asks to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not asked():
        time.sleep(min(0.5, seconds))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
