"""Kubeflow Pipelines' client against a server that records what it is asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from coda.errors import ConfigError, ContractError, TransientError
from coda.runners import kubeflow, run_pipeline
from coda.runners.spec import compiled_path
from coda.storage.objects import ObjectStore
from coda.trigger.submit import KubeflowSubmitter, Request


class Server(ThreadingHTTPServer):
    """The part of the v2beta1 API that the client needs, over a list of runs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs, self.asked, self.broken = [], [], 0


class Handler(BaseHTTPRequestHandler):
    def answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urlsplit(self.path)
        self.server.asked.append(("GET", url.path, self.headers.get("authorization")))
        if self.server.broken and not url.path.endswith("/healthz"):
            self.answer({"error": "no"}, self.server.broken)
        elif url.path.endswith("/runs"):
            (predicate,) = json.loads(parse_qs(url.query)["filter"][0])["predicates"]
            assert (predicate["operation"], predicate["key"]) == ("EQUALS", "name")
            name = predicate["stringValue"]
            self.answer({"runs": [run for run in self.server.runs if run["display_name"] == name]})
        elif url.path.endswith("/experiments"):
            self.answer({"experiments": []})
        else:
            self.answer({"multi_user": False})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path
        self.server.asked.append(("POST", path, body))
        if path.endswith("/experiments"):
            self.answer({"experiment_id": "e1", **body})
        else:
            run = {"run_id": f"id{len(self.server.runs)}", "display_name": body["display_name"], "state": "PENDING"}
            self.server.runs.append(run)
            self.answer(run)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def settings(server, moto_server, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    monkeypatch.setenv("CODA_KFP_SERVICE_ACCOUNT", "pipeline-runner")
    monkeypatch.setenv("CODA_KFP_PIPELINE_ROOT", "s3://b/roots")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kubeflow, "POLL_S", 0.01)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return moto_server.settings(tmp_path).model_copy(
        update={"kfp_endpoint": endpoint, "image": "registry.example/coda@sha256:" + "1" * 64}
    )


@pytest.fixture
def request_(demo_params):
    return Request("adapt-lab_b-b1-abcd", "s3://landing/lab_b/b1/manifest.json", "ab" * 32, demo_params)


def posted(server, what):
    return [body for verb, path, body in server.asked if verb == "POST" and path.endswith(what)]


def test_run_is_submitted_with_everything_it_needs(server, settings, request_, demo_params):
    KubeflowSubmitter(settings).submit(request_)
    (run,) = posted(server, "/runs")
    assert run["display_name"] == request_.run_id
    assert run["experiment_id"] == "e1"
    assert run["service_account"] == "pipeline-runner"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["manifest_uri"] == request_.manifest_uri
    assert parameters["manifest_digest"] == request_.manifest_digest
    assert parameters["run_id"] == request_.run_id
    assert json.loads(parameters["params"]) == json.loads(demo_params.model_dump_json())
    assert run["runtime_config"]["pipeline_root"] == "s3://b/roots"
    spec = run["pipeline_spec"]
    images = {part["container"]["image"] for part in spec["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert images == {settings.image}
    assert "exec-adapt" in spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [body["display_name"] for body in posted(server, "/experiments")] == ["adaptation-lab_b"]
    assert {asked[2] for asked in server.asked if asked[0] == "GET"} == {"Bearer secret-token"}


def test_live_or_finished_run_of_the_name_is_found_and_not_submitted_again(server, settings, request_):
    submitter = KubeflowSubmitter(settings)
    for _ in range(3):
        submitter.submit(request_)
    assert len(server.runs) == 1
    assert submitter.alive(request_.run_id)
    server.runs[0]["state"] = "SUCCEEDED"
    KubeflowSubmitter(settings).submit(request_)
    assert not submitter.alive(request_.run_id)
    assert len(server.runs) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_failed_run_is_submitted_again_under_its_name(server, settings, request_, state):
    submitter = KubeflowSubmitter(settings)
    submitter.submit(request_)
    server.runs[0]["state"] = state
    submitter.submit(request_)
    assert [run["display_name"] for run in server.runs] == [request_.run_id] * 2
    assert submitter.alive(request_.run_id)


@pytest.mark.parametrize(("status", "error"), [(503, TransientError), (429, TransientError), (403, ConfigError)])
def test_refusals_are_told_apart_by_who_must_act(server, settings, request_, status, error):
    server.broken = status
    with pytest.raises(error, match=f"HTTP {status}"):
        KubeflowSubmitter(settings).submit(request_)


def test_server_that_is_away_is_transient(settings, request_, monkeypatch):
    monkeypatch.setenv("CODA_KFP_NAMESPACE", "lab")  # without one, KFP's client asks for it five times
    away = settings.model_copy(update={"kfp_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(TransientError):
        KubeflowSubmitter(away).submit(request_)


def test_no_server_configured_is_a_clear_error(settings):
    with pytest.raises(ConfigError, match="CODA_KFP_ENDPOINT"):
        KubeflowSubmitter(settings.model_copy(update={"kfp_endpoint": None})).alive("x")


def run(settings, tmp_path, demo_params, **more):
    arguments = {"run_id": "r1", "manifest_uri": "s3://landing/lab_b/b1/manifest.json", "params": demo_params}
    return run_pipeline("adaptation", arguments, runner="kfp", settings=settings, work=tmp_path, **more)


def test_submitted_run_is_not_waited_for_when_nobody_wants_to(server, settings, tmp_path, demo_params):
    outcome = run(settings, tmp_path, demo_params, wait=False)
    assert (outcome.outcome, outcome.record) == ("submitted", None)
    assert len(server.runs) == 1


def test_failed_run_on_the_cluster_shows_the_reason_of_its_step(server, settings, tmp_path, demo_params):
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    failure = {"step": "validate", "error": "ContractError", "exit_code": 3, "message": "No controls.", "problems": []}

    def say(line):
        if "is on Kubeflow" in line:
            server.runs[0]["state"] = "FAILED"
            store.put("runs/r1/failure.json", json.dumps(failure).encode())

    with pytest.raises(ContractError, match=r"Step 'validate' failed: No controls\."):
        run(settings, tmp_path, demo_params, say=say)


@pytest.mark.parametrize(
    ("arguments", "experiment"),
    [
        ({"manifest_uri": "s3://b/in/lab_b/b1/manifest.json"}, "adaptation-lab_b"),
        ({"manifest_uris": ["s3://b/lab_a/b1/manifest.json", "s3://b/lab_a/b2/manifest.json"]}, "adaptation-lab_a"),
        ({"manifest_uris": ["s3://b/lab_a/b1/manifest.json", "s3://b/lab_b/b2/manifest.json"]}, "adaptation"),
        ({"manifest_uri": "manifest.json"}, "adaptation"),
    ],
)
def test_experiment_is_the_source(arguments, experiment):
    assert kubeflow.experiment_of("adaptation", arguments) == experiment
    assert compiled_path("adaptation").is_file()
