"""The handful of calls that a step makes to Kubernetes about its TrainJob."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from coda.errors import ConfigError, Problem, TransientError
from coda.trainer.train_job import GROUP, PLURAL, VERSION, TrainJob

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ANSWER_S = (5, 30)
"""Seconds to connect, and to wait for an answer."""

CONTAINER = "node"
"""Container of a pod that trains, as every runtime of Trainer names it."""

COMPONENT = "add the component k8s/components/trainer to the overlay (docs/kubernetes.md)"


@dataclass(frozen=True)
class Job:
    """How a TrainJob is.

    Attributes:
        state: 'Complete', 'Failed', 'Suspended', or 'Running', which includes waiting for machines.
        words: Reason and message that belong to it.
        leaving: It was deleted, and its pods are still ending.
    """

    state: str
    words: str = ""
    leaving: bool = False


class Cluster:
    """A namespace of a cluster; made by `here`."""

    def __init__(self, configuration: client.Configuration, namespace: str) -> None:
        """Talk to the server of a configuration about one namespace."""
        self.namespace, self.host = namespace, str(configuration.host)
        api = client.ApiClient(configuration)
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    @classmethod
    def here(cls) -> "Cluster":
        """Return the cluster that this pod belongs to, or else the one that kubectl would talk to.

        Raises:
            ConfigError: There is neither.
        """
        found = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(found)
                return cls(found, NAMESPACE_FILE.read_text(encoding="utf-8").strip())
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=found)
            _, active = config.list_kube_config_contexts(file)
        except (config.ConfigException, OSError) as error:
            remedy = "Run the pipeline on Kubeflow, or set compute.nodes=1 to train on this machine."
            problem = Problem("compute.nodes", str(error)[:200], "a pod with a token, or a kubeconfig", remedy)
            raise ConfigError("There is no cluster here to train on.", [problem]) from error
        return cls(found, active["context"].get("namespace", "default"))

    def find(self, name: str) -> Job | None:
        """Return how a job is; None where there is none."""
        try:
            with self._explained("read", name):
                found = self._jobs.get_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=ANSWER_S
                )
        except _AbsentError:
            return None
        now = [item for item in found.get("status", {}).get("conditions", ()) if item.get("status") == "True"]
        by_type = {item["type"]: item for item in now}
        state = next((name for name in ("Failed", "Complete", "Suspended") if name in by_type), "Running")
        about = by_type.get(state, {})
        words = ": ".join(part for part in (about.get("reason"), about.get("message")) if part)
        return Job(state, words, leaving="deletionTimestamp" in found.get("metadata", {}))

    def create(self, job: TrainJob) -> bool:
        """Create a job; say whether it is new. One of the same name was made by an earlier attempt of the same step.

        Raises:
            ConfigError: It was refused: no rights, no Trainer, no such runtime.
            TransientError: Kubernetes is away.
        """
        try:
            with self._explained("create", job.metadata.name):
                self._jobs.create_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, job.document, _request_timeout=ANSWER_S
                )
        except _ConflictError:
            return False
        except _AbsentError as error:
            remedy = f"Install Kubeflow Trainer 2, and {COMPONENT}; or set compute.nodes=1."
            problem = Problem(self.host, "no resource trainjobs", f"{GROUP}/{VERSION}", remedy)
            raise ConfigError("Kubeflow Trainer is not installed.", [problem]) from error
        return True

    def delete(self, name: str) -> None:
        """Delete a job with its pods, which get SIGTERM; it need not be there."""
        try:
            with self._explained("delete", name):
                self._jobs.delete_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, name, propagation_policy="Foreground",
                    _request_timeout=ANSWER_S,
                )  # fmt: skip
        except _AbsentError:
            return

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a job, as Kubernetes describes them, by name."""
        with self._explained("list the pods of", name):
            answer = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"jobset.sigs.k8s.io/jobset-name={name}", _preload_content=False,
                _request_timeout=ANSWER_S,
            )  # fmt: skip
        items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def log(self, pod: str, lines: int) -> list[str]:
        """Return the last lines of a pod; none where it has none to show."""
        try:
            with self._explained("read the log of", pod):
                answer = self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=CONTAINER, tail_lines=lines, _preload_content=False,
                    _request_timeout=ANSWER_S,
                )  # fmt: skip
        except (_AbsentError, ConfigError):
            return []  # gone with its node, or never started
        return str(answer.data.decode("utf-8", "replace")).splitlines()

    @contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            status = int(error.status or 0)
            if status == HTTPStatus.NOT_FOUND:
                raise _AbsentError from error
            if status == HTTPStatus.CONFLICT:
                raise _ConflictError from error
            found = f"HTTP {status}: {_message(error)}"
            if (
                status in {0, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS}
                or status >= 500
            ):
                raise TransientError(f"Kubernetes could not {action} {name}.", [self._away(found)]) from error
            remedy = f"Give the account of the runs its rights: {COMPONENT}."
            if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or "admission webhook" in found:
                remedy = f"Name a runtime that is there in CODA_TRAIN_RUNTIME: {COMPONENT}."
            problem = Problem(self.host, found, "a job that may be made", remedy)
            raise ConfigError(f"Kubernetes refused to {action} {name}.", [problem]) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(f"Kubernetes could not {action} {name}.", [self._away(str(error)[:200])]) from error

    def _away(self, found: str) -> Problem:
        remedy = "Start the step again: it finds its job and resumes."
        return Problem(self.host, found, "an answer", remedy)


class _AbsentError(Exception):
    pass


class _ConflictError(Exception):
    pass


def _message(error: ApiException) -> str:
    """Return the sentence of Kubernetes' answer."""
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        said = str(error.body or error.reason)
    return " ".join(str(said).split())[:300]
