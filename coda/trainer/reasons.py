"""What Kubernetes says of the pods of a job, as an error of this project: who must act, and how."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coda.errors import CodaError, ConfigError, Problem, StoppedError

SHOWN = 12
"""Last lines of the failed pod's log that an error shows."""

_KILLED = re.compile(r"Signal 9 \(SIGKILL\)|exitcode\s*:\s*-9\b")
"""What torchrun says of a process of its own that the system killed."""

_CANNOT_START = frozenset(
    {
        "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError",
    }
)  # fmt: skip
_LOST = frozenset(
    {"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting", "UnexpectedAdmissionError"}
)
_BY_SIGNAL = frozenset({137, 143})
_ASKED_TO_STOP = 75


@dataclass(frozen=True)
class Ended:
    """A container that ended badly: its pod, Kubernetes' reason and message, exit code, and when."""

    pod: str
    reason: str
    message: str
    code: int
    at: str


def waiting_for(pods: Iterable[dict[str, Any]]) -> tuple[str, bool]:
    """Say why pods do not run yet, and whether that is a mistake that time does not mend.

    Returns:
        Words, empty when all run; and whether an image, a secret or a config map cannot be had.
    """
    words: dict[str, bool] = {}
    for pod in pods:
        status = pod.get("status", {})
        for item in status.get("containerStatuses", ()):
            waits = item.get("state", {}).get("waiting")
            if waits:
                reason, message = str(waits.get("reason", "")), str(waits.get("message", ""))
                words[f"{reason} {message}".strip()] = reason in _CANNOT_START
        for item in status.get("conditions", ()):
            if item.get("type") == "PodScheduled" and item.get("status") == "False":
                words[f"{item.get('reason', '')}: {item.get('message', '')}"] = False
    lasting = [text for text, mistake in words.items() if mistake]
    return "; ".join(lasting or words), bool(lasting)


def running(pods: Sequence[dict[str, Any]], count: int) -> bool:
    """Return whether so many pods run or have ended."""
    return sum(pod.get("status", {}).get("phase") in {"Running", "Succeeded"} for pod in pods) >= count


def cannot_start(job: str, words: str) -> ConfigError:
    """Return the error of a job whose pods can never start."""
    remedy = "Mend CODA_IMAGE, its registry's password, or the secret that is named (docs/kubernetes.md)."
    return ConfigError("The machines of the training cannot start.", [Problem(job, words, "pods that start", remedy)])


def failure(job: str, words: str, pods: Sequence[dict[str, Any]], log: Callable[[str], list[str]]) -> CodaError:
    """Return why a job failed.

    Returns:
        A `ConfigError` where memory, image or setting must be mended, a `StoppedError` where a machine was lost or the
        pods were told to stop, else a `CodaError` with the last lines of the log.
    """
    ended = sorted((one for pod in pods for one in _ended(pod)), key=lambda one: (one.at, one.pod))
    lost = [pod for pod in pods if _is_lost(pod.get("status", {}))]
    killed = [one for one in ended if one.reason == "OOMKilled"]
    first = killed[0] if killed else ended[0] if ended else None
    if lost or first is None:
        return _lost(job, lost, words)
    lines = log(first.pod)
    where, said = f"pod {first.pod}", f"{first.reason or 'Error'} (exit code {first.code})"
    if killed or any(_KILLED.search(line) for line in lines):
        remedy = (
            "Give the machines more memory: resources of the training runtime (k8s/components/trainer). Or let it need "
            "less: compute.images: stored."
        )
        found = said if killed else f"{said}; torchrun: a process was killed by signal 9"
        problem = Problem(where, found, "a training that keeps to its memory", remedy)
        return ConfigError("A machine of the training was killed for want of memory.", [problem])
    # torchrun ends with 1 whatever its processes ended with; that of the pod tells who was told to stop
    if first.code in _BY_SIGNAL or first.code == _ASKED_TO_STOP:
        return _lost(job, (), f"{where}: {said}")
    tail = " | ".join(line.strip() for line in lines[-SHOWN:] if line.strip()) or "nothing in its log"
    remedy = "Read the log; the step can be started again and resumes from its checkpoint."
    found = f"{' '.join(f'{said} {first.message}'.split())}; its log ends: {tail}"
    problem = Problem(where, found, "a training that ends well", remedy)
    return CodaError(f"The training on several machines failed: {words or 'no reason given'}.", [problem])


def _is_lost(status: dict[str, Any]) -> bool:
    marks = (item for item in status.get("conditions", ()) if item.get("type") == "DisruptionTarget")
    return status.get("reason") in _LOST or any(item.get("status") == "True" for item in marks)


def _lost(job: str, lost: Sequence[dict[str, Any]], words: str) -> StoppedError:
    told = "; ".join(
        f"pod {pod['metadata']['name']}: {pod['status'].get('reason')} {pod['status'].get('message', '')}".strip()
        for pod in lost
    )
    remedy = "Start the step again; it resumes from its checkpoint."
    problem = Problem(job, told or words or "pods that are gone", "machines that stay", remedy)
    return StoppedError("A machine of the training was lost.", [problem])


def _ended(pod: dict[str, Any]) -> Iterable[Ended]:
    for item in pod.get("status", {}).get("containerStatuses", ()):
        for state in (item.get("state", {}), item.get("lastState", {})):
            how = state.get("terminated")
            if how and how.get("exitCode"):
                yield Ended(
                    str(pod["metadata"]["name"]), str(how.get("reason", "")), str(how.get("message", "")),
                    int(how["exitCode"]), str(how.get("finishedAt", "")),
                )  # fmt: skip
