"""Submits a pipeline to Kubeflow Pipelines, once for each run name, and waits for its end when asked to.

KFP gives runs identifiers of its own and lets any number of them share a name, so the name is looked up first. Between
that look and the submission lies the caller's claim in the ledger; steps are idempotent besides.
"""

import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import urllib3
from kfp_server_api.exceptions import ApiException

from coda.errors import CodaError, ConfigError, Problem, TransientError
from coda.runners.failure import reason
from coda.runners.port import Job
from coda.runners.spec import with_image
from coda.settings import Settings

TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105
"""Variable with the path of the projected service-account token, as KFP itself names it."""

DEFAULT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
NAMESPACE = "CODA_KFP_NAMESPACE"
SERVICE_ACCOUNT = "CODA_KFP_SERVICE_ACCOUNT"
PIPELINE_ROOT = "CODA_KFP_PIPELINE_ROOT"

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
    """

    kfp_id: str
    name: str
    state: str

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        return self.state in LIVE


class Kubeflow:
    """The few things this project asks of Kubeflow Pipelines."""

    def __init__(self, settings: Settings) -> None:
        """Name the server; nothing is connected yet.

        Raises:
            ConfigError: No server is configured.
        """
        if not settings.kfp_endpoint:
            problem = Problem("CODA_KFP_ENDPOINT", "nothing", "the address of Kubeflow Pipelines", "Set it.")
            raise ConfigError("Kubeflow Pipelines is not configured.", [problem])
        self.endpoint = settings.kfp_endpoint
        self.image = settings.image
        self.namespace = os.environ.get(NAMESPACE) or None

    def find(self, name: str) -> Submission | None:
        """Return the run of this name that is alive or succeeded, else the newest one, or None."""
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
        with _explained(self.endpoint):
            answer = self._client().list_runs(
                page_size=100, sort_by="created_at desc", filter=wanted, namespace=self.namespace
            )
        found = [
            Submission(run.run_id, run.display_name, str(run.state or "")) for run in answer.runs or ()
            if run.display_name == name
        ]  # fmt: skip
        good = [run for run in found if run.live or run.state == "SUCCEEDED"]
        return next(iter(good or found), None)

    def submit(self, compiled: Path, name: str, experiment: str, arguments: Mapping[str, Any]) -> Submission:
        """Submit a compiled pipeline unless a run of this name is alive or succeeded.

        Args:
            compiled: Compiled pipeline.
            name: Name of the run, the same for the same batch version.
            experiment: KFP's group of runs; one for each source.
            arguments: Values of the pipeline's parameters.

        Raises:
            TransientError: The server is away or overloaded.
            ConfigError: The server refused: no rights, or no such namespace.
        """
        known = self.find(name)
        if known is not None and (known.live or known.state == "SUCCEEDED"):
            return known
        with tempfile.TemporaryDirectory() as folder, _explained(self.endpoint):
            package = Path(folder) / compiled.name
            text = compiled.read_text(encoding="utf-8")
            package.write_text(with_image(text, self.image) if self.image else text, encoding="utf-8")
            made = self._client().create_run_from_pipeline_package(
                str(package),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment,
                enable_caching=False,
                namespace=self.namespace,
                pipeline_root=os.environ.get(PIPELINE_ROOT) or None,
                service_account=os.environ.get(SERVICE_ACCOUNT) or None,
            )
        return Submission(made.run_id, name, "PENDING")

    def _client(self) -> kfp.Client:
        # a projected token changes within the hour: read for each use
        token = _token()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This client only works with Kubeflow Pipeline v2", FutureWarning)
            return kfp.Client(host=self.endpoint, existing_token=token, namespace=self.namespace or "kubeflow")


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
        raise reason(job.run_id, job.settings, log=f"run {submission.kfp_id} in Kubeflow, {submission.state.lower()}")


def experiment_of(pipeline: str, arguments: Mapping[str, Any]) -> str:
    """Return the experiment of a run: one for each pipeline and source, read from the manifest's address."""
    uris = arguments.get("manifest_uris") or [arguments.get("manifest_uri", "")]
    sources = sorted({str(uri).split("/")[-3] for uri in uris if str(uri).count("/") >= 3})
    return f"{pipeline}-{sources[0]}" if len(sources) == 1 else pipeline


def _token() -> str | None:
    path = Path(os.environ.get(TOKEN_FILE) or DEFAULT_TOKEN)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


class _explained:  # noqa: N801  used as a function
    """Turns the client's errors into ours."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiException):
            status = int(error.status or 0)
            problem = Problem(self.endpoint, f"HTTP {status} {error.reason}", "an answer", _remedy(status))
            away = status in {0, 429} or status >= 500
            raise (TransientError if away else ConfigError)("Kubeflow Pipelines refused.", [problem]) from error
        if isinstance(error, urllib3.exceptions.HTTPError | OSError) and not isinstance(error, CodaError):
            problem = Problem(self.endpoint, str(error)[:200], "an answer", "Check that the server is up.")
            raise TransientError("Kubeflow Pipelines cannot be reached.", [problem]) from error


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return f"Check the service account's rights and its token ({TOKEN_FILE})."
    return "Try again later." if status == 429 or status >= 500 else "Read the server's log."
