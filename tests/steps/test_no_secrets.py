"""Marked secrets in the environment and services that fail: none of it may reach what is printed, stored or sent."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from servers import free_port, moto_server

from coda.errors import IntegrityError, Problem, TransientError
from coda.runners.capture import Capture
from coda.settings import Settings, read_settings, without_secrets
from coda.steps.context import running

__all__ = ["moto_server"]

MARKED = {
    "AWS_SECRET_ACCESS_KEY": "marked/aws+secret=one",
    "AWS_SESSION_TOKEN": "marked-session-token-two",
    "MLFLOW_TRACKING_PASSWORD": "marked\"password'three",
    "CODA_WEBHOOK_SECRET": "marked-webhook-four",
}
IN_ADDRESSES = "marked-in-address-five"


class Echo(BaseHTTPRequestHandler):
    """A service that fails and throws back all that it was sent, as careless proxies do."""

    def echo(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = f"{self.headers} {self.path} " + " ".join(MARKED.values()) + f" http://u:{IN_ADDRESSES}@h/"
        body = f"<Error><Code>Broken</Code><Message><![CDATA[{words}]]></Message></Error>".encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = echo  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def assert_clean(text):
    found = [name for name, value in MARKED.items() if value in text or json.dumps(value)[1:-1] in text]
    assert not found, (found, text[:2000])
    assert IN_ADDRESSES not in text
    assert "marked" not in text.replace("marked.txt", ""), text[:2000]


@pytest.mark.parametrize(
    ("host", "arguments"),
    [
        ("echo", ("registry", "list")),
        ("closed", ("registry", "list")),
        ("echo", ("ledger", "list")),
        ("echo", ("data", "list", "lab_a")),
        ("closed", ("data", "list", "lab_a")),
        ("echo", ("predict", "lab_a/b1")),
    ],
)
def test_no_command_prints_a_secret_when_a_service_fails(host, arguments, echo, root, tmp_path):
    where = echo if host == "echo" else f"127.0.0.1:{free_port()}"
    address = f"http://user:{IN_ADDRESSES}@{where}"
    variables = {
        **MARKED, "AWS_ACCESS_KEY_ID": "key", "AWS_ENDPOINT_URL_S3": f"http://{where}",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "CODA_LANDING": "s3://landing",
        "CODA_PLATFORM": "s3://platform", "MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_USERNAME": "user",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "CODA_DATA_REGISTRY": f"{address}/data.git",
        "CODA_DATA_REMOTE": "s3://platform/dvc", "CODA_CHECKPOINTS": str(tmp_path), "HOME": str(tmp_path),
        "PYTHONPATH": str(root), "PATH": os.environ["PATH"], "COLUMNS": "300",
    }  # fmt: skip
    command = [sys.executable, "-m", "coda", *arguments]
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode != 0, done.stdout
    assert len(done.stderr) > 40, "it said nothing at all"
    assert_clean(done.stdout + done.stderr)


@pytest.fixture
def marked(monkeypatch):
    for name, value in MARKED.items():
        if not name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


ANSWER = f"401 for {MARKED['MLFLOW_TRACKING_PASSWORD']} at http://u:{IN_ADDRESSES}@mlflow:5000/api"


@pytest.mark.parametrize(
    "error",
    [
        IntegrityError(ANSWER, [Problem(ANSWER, ANSWER, ANSWER, ANSWER)]),
        TransientError(ANSWER),
        RuntimeError(ANSWER),
        OSError(28, "No space left on device", ANSWER),
    ],
)
def test_the_stored_reason_and_the_log_of_a_failed_step_hold_none(error, marked, moto_server, tmp_path, capsys):
    settings = moto_server.settings(tmp_path)
    with pytest.raises(SystemExit), running("predict", "run-1", settings) as run:
        raise error
    stored = run.store.get("runs/run-1/failure.json").decode()
    assert "[hidden]" in stored
    assert json.loads(stored)["step"] == "predict"
    said = capsys.readouterr()
    assert "[hidden]" in said.err
    assert_clean(stored + said.out + said.err)


def test_the_log_of_a_run_holds_none(marked, tmp_path):
    told = []
    with (tmp_path / "log.txt").open("w") as file:
        capture = Capture(file, told.append)
        capture.write(f"a library says {ANSWER}\nand goes on\n")
    text = (tmp_path / "log.txt").read_text()
    assert "a library says 401 for [hidden] at http://[hidden]@mlflow:5000/api" in text
    assert_clean(text + " ".join([*capture.tail, *told]))


def test_a_setting_that_cannot_be_used_is_told_without_its_password():
    with pytest.raises(Exception, match="CODA_LANDING") as caught:
        read_settings({"CODA_LANDING": f"https://user:{IN_ADDRESSES}@host/bucket"})
    assert_clean(str(caught.value))


def test_settings_themselves_have_no_place_for_a_secret():
    assert not [name for name in Settings.model_fields if any(word in name for word in ("secret", "password", "token"))]


def test_ordinary_words_and_paths_stay(tmp_path):
    variables = {"AWS_SECRET_ACCESS_KEY": "abc", "KF_PIPELINES_SA_TOKEN_PATH": "/var/run/token", "X_TOKEN": "/etc/x"}
    text = f"abc in /var/run/token and /etc/x at s3://bucket/key and git@host:repo, a@b.c, {tmp_path}"
    assert without_secrets(text, variables) == text
    assert without_secrets("x s3cret+key y s3cret%2Bkey", {"A_SECRET": "s3cret+key"}) == "x [hidden] y [hidden]"
