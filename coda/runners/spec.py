"""Compiled pipelines as documents: found, read, and fitted to the runner that takes them."""

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from coda.errors import ConfigError, Problem

PIPELINES = ("training", "adaptation")

WAITING = {"cpu": 1.0, "memory": 4.294967296, "resourceCpu": "1", "resourceMemory": "4Gi"}
"""What a step asks for that only waits, in KFP's two spellings."""

Documents = list[dict[str, Any]]
"""The pipeline spec, and the platform spec when there is one."""


def compiled_path(name: str) -> Path:
    """Return the compiled YAML of a pipeline, beside its definition.

    Raises:
        ConfigError: There is no pipeline of this name, or it was not compiled.
    """
    package = importlib.util.find_spec("pipelines")
    folders = list(package.submodule_search_locations or []) if package else []
    for folder in folders:
        path = Path(folder) / f"{name}.yaml"
        if name in PIPELINES and path.is_file():
            return path
    problem = Problem(
        "pipeline", repr(name), f"one of {', '.join(PIPELINES)}, compiled", "Run `coda pipeline compile` once."
    )
    raise ConfigError(f"There is no compiled pipeline {name!r}.", [problem])


def read_documents(text: str) -> Documents:
    """Return the YAML documents of a compiled pipeline: spec first."""
    return [document for document in yaml.safe_load_all(text) if document]


def dump_documents(documents: Documents) -> str:
    """Return documents as one YAML text."""
    return yaml.safe_dump_all(documents, sort_keys=True)


def with_image(text: str, image: str) -> str:
    """Return a compiled pipeline whose steps all run in `image`."""
    documents = read_documents(text)
    _set_image(documents[0], image)
    return dump_documents(documents)


def with_gpus(text: str, step: str, count: int) -> str:
    """Return a compiled pipeline one of whose steps asks for several GPUs; its processes learn together.

    Args:
        text: The compiled pipeline.
        step: Name of the step, as KFP writes it: 'pretrain', 'train-head', 'adapt'.
        count: GPUs.

    Raises:
        ConfigError: No step of that name asks for GPUs.
    """
    documents = read_documents(text)
    executor = documents[0]["deploymentSpec"]["executors"].get(f"exec-{step}", {})
    accelerator = executor.get("container", {}).get("resources", {}).get("accelerator")
    if accelerator is None:
        problem = Problem("step", repr(step), "a step that asks for a GPU", "Give more GPUs to a step that trains.")
        raise ConfigError("This step asks for no GPU.", [problem])
    accelerator.update(count=str(count), resourceCount=str(count))
    return dump_documents(documents)


def with_a_waiting_step(text: str, step: str) -> str:
    """Return a compiled pipeline one of whose steps only waits for machines: it asks for no GPU and little else."""
    documents = read_documents(text)
    executors = documents[0]["deploymentSpec"]["executors"]
    small: dict[str, Any] = {}
    for key, value in WAITING.items():
        small |= {f"{key}Limit": value, f"{key}Request": value}
    executors[f"exec-{step}"]["container"]["resources"] = small
    for platform in documents[1:]:
        pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
        for gone in ("tolerations", "emptyDirMounts"):
            pod.pop(gone, None)
    return dump_documents(documents)


def without_requests(text: str) -> str:
    """Return a compiled pipeline whose steps ask for no cores, memory or GPUs: a small cluster has too few of them."""
    documents = read_documents(text)
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources", None)
    for platform in documents[1:]:
        for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            pod.pop("tolerations", None)
    return dump_documents(documents)


def for_one_machine(text: str, image: str, python: str | None = None) -> str:
    """Return a compiled pipeline as the runners of one machine take it.

    Requests to a cluster are dropped (they would only be warned about), and so are retries: these runners cannot tell
    a service that is away from a batch that is bad, so `coda.runners` repeats a run itself, for transient failures
    alone. Remembered results are switched on: their store is the folder of the one run, so a run that was broken off
    and is started again does not repeat finished steps.

    Args:
        text: The compiled pipeline.
        image: Image of the steps.
        python: Variable of the steps with the path of the interpreter. KFP writes that path into a shell's text as it
            is, where a blank or a quote ends it; a variable in quotation marks holds any path.
    """
    spec = read_documents(text)[0]
    _set_image(spec, image)
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources", None)
        if python is not None:
            # the shell's text alone: the program of the step comes after it
            shell = executor["container"]["command"].index("-ec") + 1
            command = executor["container"]["command"][shell]
            executor["container"]["command"][shell] = command.replace("python3 -m", f'"${python}" -m')
    for component in [spec["root"], *spec["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
            # what runs last looks at what became of the others, anew each time
            last = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            task["cachingOptions"] = {"enableCache": not last}
            if "parameterIterator" in task:
                # one after the other: with two threads, KFP's printing wraps itself once more at every overlap and is
                # never unwrapped, so that each line takes twice as long as before (measured: minutes after ten runs)
                task["iteratorPolicy"] = {"parallelismLimit": 1}
    return dump_documents([spec])


def _set_image(spec: dict[str, Any], image: str) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = image
