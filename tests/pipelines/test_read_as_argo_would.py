"""The compiled pipelines as Kubeflow hands them to Argo: what retries, limits and clean-up come to."""

import pytest

from coda.runners.spec import PIPELINES, compiled_path, read_documents


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
