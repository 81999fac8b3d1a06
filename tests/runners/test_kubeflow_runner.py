"""Kubeflow Pipelines' client against a server that records what it is asked."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from coda.errors import ConfigError, ContractError, TransientError
from coda.runners import kubeflow, run_pipeline
from coda.runners.spec import compiled_path
from coda.runners.submit import KubeflowSubmitter, Request
from coda.storage.objects import ObjectStore


class Server(ThreadingHTTPServer):
    """The part of the v2beta1 API that the client needs, over a list of runs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs, self.asked, self.broken = [], [], 0
        self.pipelines, self.versions, self.uploaded = {}, {}, []
        self.raced, self.queries = False, []


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
        if url.path.endswith(("/runs", "/pipelines", "/experiments")):
            self.server.queries.append(url.query)
        if self.server.broken and not url.path.endswith("/healthz"):
            self.answer({"error": "no"}, self.server.broken)
        elif url.path.endswith("/runs"):
            (predicate,) = json.loads(parse_qs(url.query)["filter"][0])["predicates"]
            assert (predicate["operation"], predicate["key"]) == ("EQUALS", "name")
            name = predicate["stringValue"]
            self.answer({"runs": [run for run in self.server.runs if run["display_name"] == name]})
        elif url.path.endswith("/experiments"):
            self.answer({"experiments": []})
        elif url.path.endswith("/versions"):
            pairs = self.server.versions.items()
            self.answer({"pipeline_versions": [{"display_name": n, "pipeline_version_id": v} for n, v in pairs]})
        elif url.path.endswith("/pipelines"):
            pairs = self.server.pipelines.items()
            self.answer({"pipelines": [{"display_name": n, "pipeline_id": v} for n, v in pairs]})
        else:
            self.answer({"multi_user": False})

    def do_POST(self):
        data, url = self.rfile.read(int(self.headers["Content-Length"])), urlsplit(self.path)
        path = url.path
        if "/upload" in path:
            self.upload(path, {key: value[0] for key, value in parse_qs(url.query).items()}, data)
            return
        body = json.loads(data)
        self.server.asked.append(("POST", path, body))
        if path.endswith("/experiments"):
            self.answer({"experiment_id": "e1", **body})
        else:
            run = {"run_id": f"id{len(self.server.runs)}", "display_name": body["display_name"], "state": "PENDING"}
            self.server.runs.append(run)
            self.answer(run)

    def upload(self, path, query, data):
        """Keep an uploaded package, as a new pipeline or a new version; a name that is taken is a conflict."""
        self.server.asked.append(("POST", path, query))
        version = path.endswith("upload_version")
        kept = self.server.versions if version else self.server.pipelines
        raced, self.server.raced = self.server.raced, False
        if raced:
            kept[query["name"]] = "made-by-another"
        if query["name"] in kept:
            self.answer({"error": "already exists"}, 409)
            return
        kept[query["name"]] = f"{'v' if version else 'p'}{len(kept)}"
        text = data.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0].decode()
        self.server.uploaded.append(text)
        made = {"display_name": query["name"], "pipeline_id": query.get("pipelineid", kept[query["name"]])}
        self.answer({**made, "pipeline_version_id": kept[query["name"]]} if version else made)

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
    (version,) = server.versions
    reference = {"pipeline_id": "p0", "pipeline_version_id": server.versions[version]}
    assert run["pipeline_version_reference"] == reference
    assert "pipeline_spec" not in run
    assert list(server.pipelines) == ["coda-adaptation"]
    assert hashlib.sha256(server.uploaded[-1].encode()).hexdigest() == version
    spec, platform = yaml.safe_load_all(server.uploaded[-1])
    images = {part["container"]["image"] for part in spec["deploymentSpec"]["executors"].values()}
    assert images == {settings.image}
    assert "exec-adapt" in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [body["display_name"] for body in posted(server, "/experiments")] == ["adaptation-lab_b"]
    assert {asked[2] for asked in server.asked if asked[0] == "GET"} == {"Bearer secret-token"}


def test_package_is_uploaded_once_and_a_changed_one_is_a_new_version(server, settings, request_, demo_params):
    for batch in ("b1", "b2"):
        KubeflowSubmitter(settings).submit(Request(f"adapt-{batch}", request_.manifest_uri, "ab" * 32, demo_params))
    assert len(server.uploaded) == 2  # the pipeline with its first package, and the version that runs refer to
    changed = settings.model_copy(update={"image": "registry.example/coda@sha256:" + "2" * 64})
    KubeflowSubmitter(changed).submit(request_)
    references = [body["pipeline_version_reference"]["pipeline_version_id"] for body in posted(server, "/runs")]
    assert references == ["v0", "v0", "v1"]
    assert len(server.pipelines) == 1


def test_steps_ask_a_small_cluster_for_nothing(server, settings, request_, monkeypatch):
    monkeypatch.setenv("CODA_KFP_REQUESTS", "none")
    KubeflowSubmitter(settings).submit(request_)
    texts = (compiled_path("adaptation").read_text(), server.uploaded[-1])
    asked, modest = (list(yaml.safe_load_all(text)) for text in texts)
    for documents in (asked, modest):
        for executor in documents[0]["deploymentSpec"]["executors"].values():
            executor["container"].pop("image")
    assert "resources" not in yaml.safe_dump(modest)
    assert "tolerations" not in yaml.safe_dump(modest)
    # and nothing else is lost: accounts, secrets, limits of time
    for executor in asked[0]["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources")
    for pod in asked[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        pod.pop("tolerations", None)
    assert modest == asked


@pytest.mark.parametrize(("nodes", "waits"), [(1, False), (2, True)])
def test_a_pretraining_that_only_waits_for_machines_asks_for_no_gpu(server, settings, demo_params, nodes, waits):
    compute = demo_params.compute.model_copy(update={"nodes": nodes})
    arguments = {"run_id": "r", "params": demo_params.model_copy(update={"compute": compute}).model_dump_json(),
                 "manifest_uris": ["s3://b/lab_a/b1/manifest.json"], "labels": "s3://b/l.csv"}  # fmt: skip
    kubeflow.Kubeflow(settings).submit(compiled_path("training"), "r", "training", arguments)
    spec, _ = yaml.safe_load_all(server.uploaded[-1])
    executors = spec["deploymentSpec"]["executors"]
    assert ("accelerator" not in executors["exec-pretrain"]["container"]["resources"]) == waits
    assert "accelerator" in executors["exec-train-head"]["container"]["resources"]


def test_another_word_for_requests_is_refused(settings, monkeypatch):
    monkeypatch.setenv("CODA_KFP_REQUESTS", "few")
    with pytest.raises(ConfigError, match="CODA_KFP_REQUESTS: found 'few'"):
        kubeflow.Kubeflow(settings)


def test_package_that_another_trigger_uploads_meanwhile_is_found(server, settings, request_):
    server.raced = True
    KubeflowSubmitter(settings).submit(request_)
    (run,) = posted(server, "/runs")
    assert run["pipeline_version_reference"]["pipeline_id"] == "made-by-another"


def test_namespace_is_asked_for_everywhere(server, settings, request_, monkeypatch):
    monkeypatch.setenv("CODA_KFP_NAMESPACE", "lab")
    KubeflowSubmitter(settings).submit(request_)
    (upload,) = posted(server, "/upload")
    assert upload["namespace"] == "lab"
    (experiment,) = posted(server, "/experiments")
    assert experiment["namespace"] == "lab"
    assert all("namespace=lab" in query for query in server.queries)


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


def test_a_step_that_kubernetes_killed_for_memory_is_told_with_the_memory_to_raise(server, settings, request_):
    message = "OOMKilled (exit code 137)"
    tasks = [{"display_name": "adapt", "state": "FAILED", "error": {"code": 2, "message": message}},
             {"display_name": "ingest", "state": "SUCCEEDED"}]  # fmt: skip
    server.runs.append({
        "run_id": "id0", "display_name": request_.run_id, "state": "FAILED", "run_details": {"task_details": tasks},
    })  # fmt: skip
    assert KubeflowSubmitter(settings).last_words(request_.run_id) == message
    assert KubeflowSubmitter(settings).last_words("another") == ""
