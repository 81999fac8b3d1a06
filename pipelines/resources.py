"""What the steps ask of a cluster: memory, GPUs, time, retries, addresses and credentials by reference.

Local runners read none of this. A retry of Kubeflow is there for lost nodes: which failures it covers is the cluster's
choice (stock 2.17 repeats after errors of nodes alone, 2.15 and 2.16 after failures of steps alone), so the trigger is
the one that tries again by class of error. Training steps resume from their checkpoint either way (decision 0025).
"""

from dataclasses import dataclass
from typing import Any, Literal

from kfp import kubernetes

from coda.trainer.train_job import CREDENTIALS, KEYS, OPTIONAL, REQUIRED, SERVICES

REGISTRY = "coda-mlflow-client"
"""Secret with user and password for MLflow, where it asks for them; given only to steps that talk to it."""

Rights = Literal["intake", "version", "train", "gate", "register", "release", "predict", "report"]
"""Classes of steps that share a policy."""

TALK_TO_MLFLOW: tuple[Rights, ...] = ("train", "register", "release", "predict", "report")

SIGNING = "CODA_SIGNING_KEY"
REGISTRY_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
GIT: dict[Rights, str] = {"intake": "coda-git-read", "version": "coda-git-write"}
"""Secret with ``username`` and ``password`` for the data registry, where its Git server asks for them."""

MOUNTED = "/etc/coda"
"""Folder below which optional files lie: ``ca/ca.crt``, ``git/username`` and ``password``, ``signing/signing.pem``,
``verify/verify.pem``."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108  torch's data loaders pass images through it
USER = 1000
"""User and group the image runs as; never root."""


PARALLEL = 10
"""Groups of plates that are ingested at the same time."""

PAUSE_S = 30
"""Seconds before a first retry; each later pause is twice as long."""


@dataclass(frozen=True)
class Need:
    """Resources of one step.

    Attributes:
        cpu: Cores, requested and at most.
        memory: Kubernetes quantity, requested and at most.
        timeout_s: Seconds after which the pod is stopped.
        gpu: Ask for one GPU, shared memory for data loading, and the toleration of GPU nodes.
        retries: Times a lost pod is started again.
    """

    cpu: str
    memory: str
    timeout_s: int
    gpu: bool = False
    retries: int = 2

    @property
    def deadline_s(self) -> int:
        """Seconds from the first attempt's start until which the last one may still run in full.

        Argo ends all attempts at this instant, which Kubeflow calls the maximal duration of the backoff.
        """
        return (self.retries + 1) * self.timeout_s + PAUSE_S * ((1 << self.retries) - 1)


SMALL = Need("1", "4Gi", 1800)
"""Bookkeeping: registry, release, verdict."""

PLATES = Need("4", "16Gi", 6 * 3600)
"""Reading and judging plates."""

TRAIN = Need("8", "64Gi", 48 * 3600, gpu=True, retries=5)
"""Pretraining and head: resume from the last checkpoint after pre-emption."""

ADAPT = Need("8", "64Gi", 12 * 3600, gpu=True, retries=5)
"""Adaptation of one batch."""


def needs(task: Any, need: Need, rights: Rights, memory: Any = None) -> Any:
    """Give a task its resources, addresses and the credentials of its class of steps, and return it.

    Args:
        task: The task.
        need: Resources of its class.
        rights: Its class of credentials.
        memory: Output of `plan_memory`, for a step whose memory grows with the batch; the class's own when not given.
    """
    task.set_cpu_request(need.cpu).set_cpu_limit(need.cpu)
    held = need.memory if memory is None else memory
    task.set_memory_request(held).set_memory_limit(held)
    if memory is not None:
        # KFP's compiler looks for what a branch needs of the outside among registered channels, not in resources
        task.register_pipeline_channels([memory])
    task.set_retry(
        num_retries=need.retries,
        backoff_duration=f"{PAUSE_S}s",
        backoff_factor=2,
        backoff_max_duration=f"{need.deadline_s}s",
    )
    # a run that is submitted again resumes where it stopped: Kubeflow's key of a task holds all of its inputs, and each
    # has the run's name, so that no run is answered with what another one did (decision 0037)
    task.set_caching_options(enable_caching=True)
    if need.gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
        kubernetes.empty_dir_mount(task, volume_name="shm", mount_path=SHARED_MEMORY, medium="Memory", size_limit="8Gi")
    kubernetes.set_timeout(task, seconds=need.timeout_s)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.use_config_map_as_env(task, SERVICES, {name: name for name in REQUIRED})
    kubernetes.use_config_map_as_env(task, SERVICES, {name: name for name in OPTIONAL}, optional=True)
    kubernetes.use_secret_as_env(task, CREDENTIALS.format(rights=rights), {name: name for name in KEYS})
    if rights in TALK_TO_MLFLOW:
        kubernetes.use_secret_as_env(task, REGISTRY, {name: name for name in REGISTRY_KEYS}, optional=True)
    kubernetes.use_config_map_as_volume(task, "coda-ca", f"{MOUNTED}/ca", optional=True)
    kubernetes.use_config_map_as_volume(task, "coda-verify", f"{MOUNTED}/verify", optional=True)
    if rights in GIT:
        kubernetes.use_secret_as_volume(task, GIT[rights], f"{MOUNTED}/git", optional=True)
    if rights == "register":
        # the one class that signs
        kubernetes.use_secret_as_volume(task, "coda-signing", f"{MOUNTED}/signing", optional=True)
        kubernetes.use_config_map_as_env(task, SERVICES, {SIGNING: SIGNING}, optional=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "coda")
    return task
