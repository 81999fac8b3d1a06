"""What the environment of a person, a pod or a laptop tells boto3: named when it cannot be used, never an outage."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import Moto, free_port

from coda.errors import CodaError, ConfigError, TransientError
from coda.storage import ObjectStore
from coda.trigger.queue import Queue

SSO = "sso_start_url=https://x.awsapps.com/start\nsso_region=us-east-1\nsso_account_id=123456789012\nsso_role_name=r\n"
ROLE = "role_arn=arn:aws:iam::123456789012:role/r\n"

BROKEN = "testing\n"
"""A value as a secret made from a file has it: the line break came along."""

NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
"""Keys in the environment win over profiles and roles."""

UNUSABLE: dict[str, tuple[dict[str, str], str]] = {
    "a profile that is not there": ({"AWS_PROFILE": "lab-prod"}, "AWS_PROFILE"),
    "a default profile that is not there": ({"AWS_DEFAULT_PROFILE": "lab-prod"}, "AWS_DEFAULT_PROFILE"),
    "single sign-on without a token": ({**NO_KEYS, "config": f"[default]\n{SSO}"}, "aws sso login"),
    "a role's token that is not there": (
        {**NO_KEYS, "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"},
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
    "a container's token that is not there": (
        {
            **NO_KEYS,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/x",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nowhere/token",
        },
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ),
    "a broken config file": ({"config": "this is [no config\n"}, "AWS_CONFIG_FILE"),
    "a broken credentials file": ({"credentials": "this is [no config\n", **NO_KEYS}, "AWS_SHARED_CREDENTIALS_FILE"),
    "a profile's missing source": ({**NO_KEYS, "config": f"[default]\n{ROLE}source_profile=gone\n"}, "source_profile"),
    "a program for credentials that is not there": (
        {**NO_KEYS, "config": "[default]\ncredential_process=/nowhere/program\n"},
        "/nowhere/program",
    ),
    "a program for credentials that prints nonsense": (
        {**NO_KEYS, "config": "[default]\ncredential_process=echo hello\n"},
        "AWS_CONFIG_FILE",
    ),
    "a region with blanks": ({"AWS_DEFAULT_REGION": "eu west 1"}, "AWS_DEFAULT_REGION"),
    "a key with a line break": ({"AWS_ACCESS_KEY_ID": BROKEN}, "AWS_ACCESS_KEY_ID"),
    "a secret with a line break": ({"AWS_SECRET_ACCESS_KEY": BROKEN}, "AWS_SECRET_ACCESS_KEY"),
    "a token with a line break": ({"AWS_SESSION_TOKEN": "testing\r\n"}, "AWS_SESSION_TOKEN"),
    "half of the credentials": ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID"),
    "no credentials at all": (NO_KEYS, "AWS_ACCESS_KEY_ID"),
    "a bundle of certificates that is not there": ({"AWS_CA_BUNDLE": "/nowhere/ca.pem"}, "AWS_CA_BUNDLE"),
    "a mode of defaults that is none": ({"AWS_DEFAULTS_MODE": "odd"}, "AWS_DEFAULTS_MODE"),
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moto_server: Moto) -> Callable[[dict[str, str]], None]:
    """Set variables; 'config' and 'credentials' are the texts of the two files of AWS."""

    def set_all(variables: dict[str, str]) -> None:
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        for name, value in variables.items():
            if name in {"config", "credentials"}:
                (tmp_path / name).write_text(value)
            elif value or "proxy" in name.lower():
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)

    return set_all


@pytest.mark.parametrize("case", UNUSABLE, ids=str)
def test_a_setting_that_cannot_be_used_is_the_operators_whichever_call_meets_it_first(case, environment, moto_server):
    store = moto_server.bucket()
    variables, named = UNUSABLE[case]
    environment(variables)
    queue = Queue(f"{moto_server.endpoint}/123456789012/q", store, store)
    calls = (lambda: store.put_if_absent("a", b""), lambda: store.exists("a"), lambda: queue.drain(lambda key: True))
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        assert named in str(caught.value)
        assert "testing" not in str(caught.value), "a key is never shown"


@pytest.mark.parametrize(
    "endpoint",
    ["http://user name@127.0.0.1:9/", "http://127.0.0.1:99999", "http://[::1", "http://", "ftp://host", "http://h:0",
     "http://h\n:9"],
)  # fmt: skip
def test_an_endpoint_that_is_no_address_is_refused_by_name(endpoint):
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3"):
        ObjectStore("s3://bucket", endpoint)


def test_a_proxy_that_is_no_address_is_named(environment):
    environment({"HTTP_PROXY": "::nonsense", "NO_PROXY": "", "no_proxy": ""})
    with pytest.raises(ConfigError, match="_PROXY"):
        ObjectStore("s3://bucket", "http://127.0.0.1:9", attempts=1).put("a", b"")


def test_what_is_away_stays_an_outage(environment, moto_server):
    environment({**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{free_port()}/x"})
    with pytest.raises(TransientError):
        ObjectStore("s3://bucket", moto_server.endpoint).exists("a")
    environment({"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"})
    store = ObjectStore("s3://bucket", f"http://127.0.0.1:{free_port()}", attempts=1, timeout_s=1)
    with pytest.raises(TransientError, match="does not answer"):
        store.exists("a")


REFUSALS = {
    "ExpiredToken": "Renew the credentials",
    "ExpiredTokenException": "Renew the credentials",
    "InvalidToken": "Renew the credentials",
    "TokenRefreshRequired": "Renew the credentials",
    "InvalidClientTokenId": "Renew the credentials",
    "UnrecognizedClientException": "Renew the credentials",
    "SomethingNew": "Look at the service's log",
    "RequestExpired": "Renew the credentials",
    "AccessDenied": "the right it lacks",
    "AuthorizationHeaderMalformed": "AWS_DEFAULT_REGION",
}


@pytest.fixture
def refusing(environment) -> Iterator[Callable[[int, str], ObjectStore]]:
    """Start a server that refuses everything with a status and a code; the answer to a HEAD has no body."""
    servers = []

    def start(status: int, code: str) -> ObjectStore:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = f"<Error><Code>{code}</Code><Message>words of {code}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_PUT = do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return ObjectStore("s3://bucket", f"http://127.0.0.1:{server.server_port}", attempts=1, timeout_s=5)

    environment({})
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_explained_alike_whichever_request_comes_first(code, refusing, tmp_path):
    store = refusing(403 if code in {"AccessDenied", "InvalidClientTokenId"} else 400, code)
    kind = CodaError if code == "SomethingNew" else ConfigError
    calls = (
        lambda: store.exists("a"), lambda: store.get("a"), lambda: list(store.list()), lambda: store.sha256("a"),
        lambda: store.download("a", tmp_path / "a"), lambda: store.put("a", b""),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert code in str(caught.value)
        assert REFUSALS[code] in str(caught.value)


def test_a_large_upload_keeps_the_reason_of_its_refusal(refusing, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(9 * 1024 * 1024))
    with pytest.raises(ConfigError, match="Renew the credentials"):
        refusing(400, "ExpiredToken").upload(path, "large")


def test_a_certificate_nobody_vouches_for_names_the_bundle(environment, tmp_path):
    import subprocess

    environment({})
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out",
         tmp_path / "cert", "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ConfigError, match="AWS_CA_BUNDLE"):
            ObjectStore("s3://b", f"https://127.0.0.1:{server.server_port}", attempts=1, timeout_s=5).exists("a")
    finally:
        server.shutdown()
        server.server_close()
