"""The engines that pipelines run on: each is declared once, with how it runs one and how a trigger submits to it.

Heavy libraries are imported when an engine is used: a laptop needs no Kubeflow client, a cluster no Docker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coda.runners.port import Job, Runner
from coda.runners.submit import KubeflowSubmitter, LocalSubmitter, Submitter
from coda.settings import Settings


@dataclass(frozen=True)
class Engine:
    """One way of running pipelines.

    Attributes:
        name: What ``--runner`` takes.
        says: What it is, in a few words.
        run: Runs a job to its end, or submits it when the job does not wait; returns the log file, if there is one.
        submitter: Returns what starts runs for a trigger, given settings and the folder for runs of this machine.
    """

    name: str
    says: str
    run: Runner
    submitter: Callable[[Settings, Path], Submitter]


def _run_local(job: Job) -> Path | None:
    from coda.runners.local import run_local

    return run_local(job)


def _run_docker(job: Job) -> Path | None:
    from coda.runners.docker import run_docker

    return run_docker(job)


def _run_kubeflow(job: Job) -> Path | None:
    from coda.runners.kubeflow import run_kubeflow

    run_kubeflow(job)
    return None  # the pods' logs lie where the cluster keeps them


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("local", "processes of this machine", _run_local,
               lambda settings, work: LocalSubmitter(settings, work, "local")),
        Engine("docker", "containers of this machine", _run_docker,
               lambda settings, work: LocalSubmitter(settings, work, "docker")),
        Engine("kfp", "Kubeflow Pipelines", _run_kubeflow, lambda settings, _: KubeflowSubmitter(settings)),
    )
}  # fmt: skip
"""Name -> engine."""
