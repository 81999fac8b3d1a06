"""What answers in place of Kubeflow Pipelines: the operator's, at once, and never a run called None."""

import logging

import pytest
from strangers import ANSWERS, PAGE, stranger

from coda.errors import ServiceRefusedError, TransientError
from coda.runners.kubeflow import Kubeflow
from coda.runners.submit import KubeflowSubmitter, Request


@pytest.fixture
def at(moto_server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "no-token"))
    settings = moto_server.settings(tmp_path)
    return lambda server: settings.model_copy(update={"kfp_endpoint": f"http://127.0.0.1:{server.server_port}"})


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_judged_by_its_shape_at_the_first_request(case, at, caplog, demo_params):
    status, kind, body, operator = ANSWERS[case]
    request = Request("adapt-lab_b-b1-abcd", "s3://landing/lab_b/b1/manifest.json", "ab" * 32, demo_params)
    with stranger(status, kind, body) as server, caplog.at_level(logging.DEBUG):
        for ask in (lambda it: Kubeflow(it).find("x"), lambda it: KubeflowSubmitter(it).submit(request)):
            with pytest.raises(ServiceRefusedError if operator else TransientError) as caught:
                ask(at(server))
            assert f"HTTP {status}" in str(caught.value)
        assert len(server.asked) <= 4
    assert not [record for record in caplog.records if record.exc_info], "a log without tracebacks"
    if PAGE in body:
        assert "Sign in to Acme" in str(caught.value)
    assert caught.value.exit_code == (2 if operator else 75)


def test_a_stranger_who_answers_everything_with_an_object_gives_no_run(at, demo_params):
    request = Request("adapt-lab_b-b1-abcd", "s3://landing/lab_b/b1/manifest.json", "ab" * 32, demo_params)
    with stranger(200, "application/json", "{}") as server, pytest.raises(ServiceRefusedError, match="no identifier"):
        KubeflowSubmitter(at(server)).submit(request)


def test_an_address_that_is_none_is_named(moto_server, tmp_path):
    settings = moto_server.settings(tmp_path).model_copy(update={"kfp_endpoint": "http://"})
    with pytest.raises(ServiceRefusedError, match="CODA_KFP_ENDPOINT"):
        Kubeflow(settings).find("x")
