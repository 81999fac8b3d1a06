"""The compiled pipelines as Kubeflow hands them to Argo: what retries, limits and clean-up come to."""

import base64
import gzip
import itertools
import json
import re

import pytest

from coda.config.load import load_params
from coda.runners.spec import PIPELINES, compiled_path, read_documents
from coda.steps import plates


def seconds(text):
    assert text.endswith("s")
    return float(text[:-1])


@pytest.fixture(params=PIPELINES)
def documents(request):
    return read_documents(compiled_path(request.param).read_text())


def tasks_of(documents):
    spec, platform = documents
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for part in [spec["root"], *spec["components"].values()]:
        for name, task in part.get("dag", {}).get("tasks", {}).items():
            component = spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                yield name, task, kubernetes[component["executorLabel"]]


def ends_of_attempts(policy, time_limit):
    """When attempts of a task end that each use up their time limit, in seconds from the first one's start.

    Argo's operator.go: an attempt is begun while the maximal duration since the *first* attempt's start is not over,
    and has that instant as its deadline besides its own.
    """
    deadline, pause, start = seconds(policy["backoffMaxDuration"]), seconds(policy["backoffDuration"]), 0.0
    for _ in range(policy["maxRetryCount"] + 1):
        if start > deadline:
            return
        end = min(start + time_limit, deadline) if start else time_limit
        yield start, end
        start, pause = end + pause, pause * policy["backoffFactor"]


def test_every_attempt_has_its_full_time(documents):
    found = list(tasks_of(documents))
    assert len(found) >= 9
    for name, task, pod in found:
        limit = float(pod["activeDeadlineSeconds"])
        attempts = list(ends_of_attempts(task["retryPolicy"], limit))
        assert len(attempts) == task["retryPolicy"]["maxRetryCount"] + 1, name
        assert all(end - start == limit for start, end in attempts), name


def test_the_reader_sees_the_fault_it_is_there_for():
    """Ten minutes as 'maximal pause', as it once was: a pod of 48 hours that is lost later is not tried again."""
    policy = {"backoffMaxDuration": "600s", "backoffDuration": "30s", "backoffFactor": 2.0, "maxRetryCount": 5}
    assert list(ends_of_attempts(policy, 48 * 3600.0)) == [(0.0, 48 * 3600.0)]
    assert list(ends_of_attempts(policy, 120.0))[-1] == (570.0, 600.0)


def test_failed_runs_stay_longer_than_good_ones(documents):
    config = documents[1]["platforms"]["kubernetes"]["pipelineConfig"]
    assert config["resourceTtlOnFailure"] > config["resourceTtlOnSuccess"] > 0


def resolved(spec, component, name):
    """The task output that an input of a component comes from, followed outwards through branches and groups."""
    for part in [spec["root"], *spec["components"].values()]:
        for task in part.get("dag", {}).get("tasks", {}).values():
            if task["componentRef"]["name"] != component:
                continue
            given = task["inputs"]["parameters"][name]
            if "taskOutputParameter" in given:
                return given["taskOutputParameter"]
            (outer,) = [key for key, other in spec["components"].items() if other is part]
            return resolved(spec, outer, given["componentInputParameter"])
    raise AssertionError((component, name))


def test_memory_that_follows_the_batch_comes_from_the_plan(documents):
    """The driver puts an input's value where a resource names it: as request and as limit alike."""
    spec, found = documents[0], {}
    for name, task, _ in tasks_of(documents):
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        asked = spec["deploymentSpec"]["executors"][label]["container"]["resources"]
        assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"], name
        named = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(.+)'\]\}\}", asked["resourceMemoryLimit"])
        if named:
            found[name] = resolved(spec, task["componentRef"]["name"], named[1])
        else:
            assert re.fullmatch(r"[1-9][0-9]*Gi", asked["resourceMemoryLimit"]), name
    learns = {"pretrain"} if "comp-pretrain" in spec["components"] else {"adapt"}
    assert found == {name: {"producerTask": "plan-memory", "outputParameterKey": "Output"} for name in learns}
    outputs = spec["components"]["comp-plan-memory"]["outputDefinitions"]["parameters"]
    assert outputs == {"Output": {"parameterType": "STRING"}}


MOST_OF_A_PARAMETER = 256 * 1024
"""Bytes of an output parameter: it travels in an annotation of the pod."""

MOST_OF_A_WORKFLOW = 1024 * 1024
"""Bytes of a workflow that Argo keeps in Kubernetes; its nodes are compressed when they would be more."""


def groups_of(monkeypatch, count, fields=3456):
    """Names of the groups of a batch of so many plates of 17,280 files, five to a field."""
    monkeypatch.setattr(plates, "read_manifests", lambda uris, settings: [])
    monkeypatch.setattr(plates, "_plates", lambda deliveries: [(None, None)] * count)
    monkeypatch.setattr(plates, "_fields", lambda item, entry: fields)
    return plates.plan_groups(["m"], params=None, settings=None)


@pytest.mark.parametrize("count", [1, 30, 200, 2400])
def test_what_the_plan_puts_out_fits_into_a_parameter(monkeypatch, count):
    groups = groups_of(monkeypatch, count)
    assert len(groups) == min(count, 100)
    for output in (groups, [3] * len(groups)):
        assert len(json.dumps(output)) < MOST_OF_A_PARAMETER / 100


def nodes_of(documents, groups, params):
    """What Argo keeps of the rounds: driver and step of each, with what the driver put out: the pod and its inputs."""
    spec, platform = documents
    component = spec["components"]["comp-ingest-plates"]
    container = spec["deploymentSpec"]["executors"]["exec-ingest-plates"]["container"]
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-ingest-plates"]
    for group, kind in itertools.product(groups, ("dag", "driver", "executor", "container")):
        values = {"run_id": "adapt-" + "x" * 190, "params": params, "group": group, "manifest_uri": "s3://" + "m" * 300}
        patch = json.dumps({"container": container, "pod": pod, "inputs": values})
        node = {"id": f"workflow-{kind}-{group}", "component": component, "times": ["2026-01-01T00:00:00Z"] * 2}
        # the driver puts the patch out, the executor and its container take it in
        yield node | {"inputs": values, **({} if kind == "dag" else {"pod-spec-patch": patch})}


def test_a_run_of_two_hundred_plates_fits_into_a_workflow(documents, monkeypatch, root):
    params = load_params(root / "params.yaml", []).model_dump_json()
    groups = groups_of(monkeypatch, 200)
    nodes = {node["id"]: node for node in nodes_of(documents, groups, params)}
    plain = len(json.dumps(nodes))
    packed = len(base64.b64encode(gzip.compress(json.dumps(nodes).encode())))
    spec = len(json.dumps(documents))
    assert plain > MOST_OF_A_WORKFLOW, "the test would say nothing: Argo need not compress"
    assert spec + packed < MOST_OF_A_WORKFLOW / 2, (spec, packed)
