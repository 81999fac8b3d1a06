"""Submits a pipeline to Kubeflow Pipelines, once for each run name, and waits for its end when asked to.

KFP gives runs identifiers of its own and lets any number of them share a name, so the name is looked up first. Between
that look and the submission lies the caller's claim in the ledger; steps are idempotent besides.
"""

import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import kfp
import urllib3
from kfp_server_api.exceptions import ApiException

from coda.errors import CodaError, ConfigError, Problem, ServiceRefusedError, TransientError
from coda.runners.failure_reason import reason
from coda.runners.port import Job
from coda.runners.spec import with_a_waiting_step, with_image, without_requests
from coda.settings import Settings
from coda.storage.service_answers import judged

TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105
"""Variable with the path of the projected service-account token, as KFP itself names it."""

DEFAULT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
NAMESPACE = "CODA_KFP_NAMESPACE"
SERVICE_ACCOUNT = "CODA_KFP_SERVICE_ACCOUNT"
PIPELINE_ROOT = "CODA_KFP_PIPELINE_ROOT"
REQUESTS = "CODA_KFP_REQUESTS"
"""Variable: 'none' has steps ask for no cores, memory or GPUs, on clusters too small for what they ask."""

LIVE = frozenset({"PENDING", "RUNNING", "PAUSED", "CANCELING", "RUNTIME_STATE_UNSPECIFIED", ""})
"""States of a run that may still change by itself."""

POLL_S = 10.0
"""Seconds between two looks at a run somebody waits for."""


@dataclass(frozen=True)
class Submission:
    """One run on Kubeflow.

    Attributes:
        kfp_id: Identifier the server gave.
        name: Our name of the run.
        state: KFP's word for where it is: 'PENDING', 'RUNNING', 'SUCCEEDED', 'FAILED', ...
        words: What Kubernetes and Argo said of its steps that failed, for example 'OOMKilled (exit code 137)'.
    """

    kfp_id: str
    name: str
    state: str
    words: str = ""

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        return self.state in LIVE


class Kubeflow:
    """The few things this project asks of Kubeflow Pipelines."""

    def __init__(self, settings: Settings) -> None:
        """Name the server; nothing is connected yet.

        Raises:
            ConfigError: No server is configured, or `REQUESTS` has another value.
        """
        if not settings.kfp_endpoint:
            problem = Problem("CODA_KFP_ENDPOINT", "nothing", "the address of Kubeflow Pipelines", "Set it.")
            raise ConfigError("Kubeflow Pipelines is not configured.", [problem])
        requests = os.environ.get(REQUESTS, "")
        if requests not in {"", "none"}:
            problem = Problem(REQUESTS, repr(requests), "'none', or nothing", f"Unset {REQUESTS}, or set it to none.")
            raise ConfigError("Kubeflow Pipelines is not configured.", [problem])
        self.modest = requests == "none"
        self.endpoint = settings.kfp_endpoint
        self.image = settings.image
        self.namespace = os.environ.get(NAMESPACE) or None

    def find(self, name: str) -> Submission | None:
        """Return the run of this name that is alive or succeeded, else the newest one, or None."""
        with _explained(self.endpoint):
            answer = self._client().list_runs(
                page_size=100, sort_by="created_at desc", filter=_equals("name", name), namespace=self.namespace
            )
        found = [
            Submission(self._named(run.run_id, name), name, str(run.state or ""), _words(run))
            for run in answer.runs or () if run.display_name == name
        ]  # fmt: skip
        good = [run for run in found if run.live or run.state == "SUCCEEDED"]
        return next(iter(good or found), None)

    def submit(self, compiled: Path, name: str, experiment: str, arguments: Mapping[str, Any]) -> Submission:
        """Submit a compiled pipeline unless a run of this name is alive or succeeded.

        Raises:
            TransientError: The server is away or overloaded.
            ConfigError: The server refused: no rights, or no such namespace.
        """
        known = self.find(name)
        if known is not None and (known.live or known.state == "SUCCEEDED"):
            return known
        text = compiled.read_text(encoding="utf-8")
        text = with_image(text, self.image) if self.image else text
        if arguments.get("params") and json.loads(arguments["params"]).get("compute", {}).get("nodes", 1) > 1:
            text = with_a_waiting_step(text, "pretrain") if compiled.stem == "training" else text
        text = without_requests(text) if self.modest else text
        with _explained(self.endpoint), quiet():
            client = self._client()
            pipeline, version = self._version(client, compiled.stem, text)
            group = client.create_experiment(experiment, namespace=self.namespace)
            made = client.run_pipeline(
                experiment_id=self._named(group.experiment_id, "the experiment"),
                job_name=name,
                params=dict(arguments),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=os.environ.get(PIPELINE_ROOT) or None,
                service_account=os.environ.get(SERVICE_ACCOUNT) or None,
            )
        return Submission(self._named(made.run_id, "the run that was submitted"), name, "PENDING")

    def _named(self, identifier: object, what: str) -> str:
        """Return an identifier of Kubeflow's, or refuse an answer that has none."""
        if not isinstance(identifier, str) or not identifier:
            remedy = "Let CODA_KFP_ENDPOINT name Kubeflow Pipelines 2 itself; check its version (docs/pipelines.md)."
            problem = Problem(self.endpoint, f"no identifier of {what}", "an answer of Kubeflow Pipelines", remedy)
            raise ServiceRefusedError("Something else answers in place of Kubeflow Pipelines.", [problem])
        return identifier

    def _version(self, client: kfp.Client, pipeline: str, text: str) -> tuple[str, str]:
        """Return KFP's identifiers of a pipeline and of its version with this text, uploaded when it is new.

        A version's name is the digest of its text, so each is uploaded once, by whoever comes first.
        """
        title, digest = f"coda-{pipeline}", hashlib.sha256(text.encode()).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / f"{pipeline}.yaml"
            package.write_text(text, encoding="utf-8")
            parent = self._found_or_made(
                lambda: self._pipeline_named(client, title),
                lambda: client.upload_pipeline(str(package), title, namespace=self.namespace).pipeline_id,
            )
            version = self._found_or_made(
                lambda: _version_named(client, parent, digest),
                lambda: client.upload_pipeline_version(str(package), digest, parent).pipeline_version_id,
            )
        return parent, version

    def _pipeline_named(self, client: kfp.Client, name: str) -> str | None:
        # KFP's own look-up by name sees shared pipelines only
        answer = client.list_pipelines(filter=_equals("display_name", name), namespace=self.namespace)
        return next((str(item.pipeline_id) for item in answer.pipelines or () if item.display_name == name), None)

    def _found_or_made(self, look: Callable[[], str | None], make: Callable[[], Any]) -> str:
        found = look()
        if found is not None:
            return found
        try:
            return self._named(make(), "what was uploaded")
        except ApiException as error:
            # another trigger made it at the same moment
            found = look() if error.status == HTTPStatus.CONFLICT else None
            if found is None:
                raise
            return found

    def _client(self) -> kfp.Client:
        # a projected token changes within the hour: read for each use
        token = _token()
        self._require_kubeflow(token)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This client only works with Kubeflow Pipeline v2", FutureWarning)
            client = kfp.Client(host=self.endpoint, existing_token=token, namespace=self.namespace or "kubeflow")
        rest = client._run_api.api_client.rest_client  # noqa: SLF001  all its interfaces share one
        rest.request = self._judging(rest.request)
        return client

    def _require_kubeflow(self, token: str | None) -> None:
        """Ask once whether Kubeflow is there: its client would ask for half a minute, and log five tracebacks.

        Raises:
            TransientError: It does not answer.
            ServiceRefusedError: Something else does, or it lets nobody in.
        """
        base = self.endpoint if "://" in self.endpoint else f"http://{self.endpoint}"
        headers = {"authorization": f"Bearer {token}"} if token else {}
        bundle = next(
            (os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(name)), None
        )
        with urllib3.PoolManager(ca_certs=bundle) as pool:
            answer = pool.request(
                "GET",
                f"{base.rstrip('/')}/apis/v2beta1/healthz",
                headers=headers,
                timeout=10.0,
                retries=1,
                redirect=False,
            )
        kind, body = str(answer.headers.get("content-type", "")), answer.data.decode(errors="replace")
        self._judge(answer.status, kind, body)
        if answer.status != HTTPStatus.OK:
            found, remedy = (
                f"HTTP {answer.status} {body[:200]}",
                "Let CODA_KFP_ENDPOINT name Kubeflow Pipelines 2 itself.",
            )
            problem = Problem(self.endpoint, found, "an answer of Kubeflow Pipelines", remedy)
            raise ServiceRefusedError("Something else answers in place of Kubeflow Pipelines.", [problem])

    def _judge(self, status: int, kind: str, body: str) -> None:
        found = judged("Kubeflow Pipelines", "CODA_KFP_ENDPOINT", self.endpoint, status, kind, body)
        if found is not None:
            raise found

    def _judging(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **options: Any) -> Any:
            answer = request(*arguments, **options)
            body = answer.data.decode(errors="replace") if isinstance(answer.data, bytes) else str(answer.data)
            self._judge(answer.status, str(answer.getheader("content-type") or ""), body)
            return answer

        return asked


def _words(run: Any) -> str:
    """Return the messages of a run and its tasks, each once; none of a run that did well."""
    tasks = getattr(run.run_details, "task_details", None) or ()
    messages = [str(item.error.message) for item in (run, *tasks) if getattr(item.error, "message", None)]
    return " / ".join(dict.fromkeys(" ".join(message.split())[:200] for message in messages))[:1000]


def _version_named(client: kfp.Client, pipeline: str, name: str) -> str | None:
    answer = client.list_pipeline_versions(pipeline, filter=_equals("display_name", name))
    found = (item for item in answer.pipeline_versions or () if item.display_name == name)
    return next((str(item.pipeline_version_id) for item in found), None)


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def run_kubeflow(job: Job) -> None:
    """Submit a job to Kubeflow, and wait for its end when the job waits.

    Raises:
        CodaError: The run failed; the error is that of its step.
    """
    server = Kubeflow(job.settings)
    submission = server.submit(job.compiled, job.run_id, experiment_of(job.pipeline, job.arguments), job.arguments)
    job.say(f"{job.run_id} is on Kubeflow as run {submission.kfp_id} ({submission.state.lower()}).")
    state = submission.state
    while job.wait and submission.live:
        time.sleep(POLL_S)
        submission = server.find(job.run_id) or submission
        if submission.state != state:
            state = submission.state
            job.say(f"{job.run_id} is {state.lower()}.")
    if job.wait and submission.state != "SUCCEEDED":
        raise reason(
            job.run_id,
            job.settings,
            tail=filter(None, [submission.words]),
            log=f"run {submission.kfp_id} in Kubeflow, {submission.state.lower()}",
        )


def experiment_of(pipeline: str, arguments: Mapping[str, Any]) -> str:
    """Return the experiment of a run: one for each pipeline and source, read from the manifest's address."""
    uris = arguments.get("manifest_uris") or [arguments.get("manifest_uri", "")]
    sources = sorted({str(uri).split("/")[-3] for uri in uris if str(uri).count("/") >= 3})
    return f"{pipeline}-{sources[0]}" if len(sources) == 1 else pipeline


def _token() -> str | None:
    path = Path(os.environ.get(TOKEN_FILE) or DEFAULT_TOKEN)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what KFP's client prints for notebooks ("Run details: ...") out of the log."""
    with redirect_stdout(io.StringIO()):
        yield


class _explained:  # noqa: N801  used as a function
    """Turns the client's errors into ours."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiException):
            status = int(error.status or 0)
            headers = error.headers or {}
            form, body = str(headers.get("content-type", "")), str(error.body or "")
            found = (
                judged("Kubeflow Pipelines", "CODA_KFP_ENDPOINT", self.endpoint, status, form, body) if status else None
            )
            if found is not None:
                raise found from error
            problem = Problem(self.endpoint, f"HTTP {status} {error.reason} {body[:200]}", "an answer", _remedy(status))
            raise (ConfigError if status else TransientError)("Kubeflow Pipelines refused.", [problem]) from error
        if isinstance(error, urllib3.exceptions.LocationValueError):
            remedy = "Set it to http://host:port or https://host."
            problem = Problem("CODA_KFP_ENDPOINT", self.endpoint, "an address", remedy)
            raise ServiceRefusedError("Kubeflow Pipelines is not configured.", [problem]) from error
        if isinstance(error, urllib3.exceptions.HTTPError | OSError) and not isinstance(error, CodaError):
            problem = Problem(self.endpoint, str(error)[:200], "an answer", "Check that the server is up.")
            raise TransientError("Kubeflow Pipelines cannot be reached.", [problem]) from error


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return f"Check the service account's rights and its token ({TOKEN_FILE})."
    return "Try again later." if status == 429 or status >= 500 else "Read the server's log."
