"""Faults of the object store: away, overloaded, breaking off, losing an answer."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import Moto, free_port

from coda.errors import CodaError, ConfigError, TransientError
from coda.storage import ObjectStore
from coda.storage.failures import disk_explained
from coda.storage.programs import dvc

Answer = Callable[[BaseHTTPRequestHandler, int], None]


@pytest.fixture
def faulty(moto_server: Moto) -> Iterator[Callable[[Answer], ObjectStore]]:
    """Start a server that gives the answers of a function: request handler, number of the request (from 1)."""
    servers = []

    def start(answer: Answer) -> ObjectStore:
        count = iter(range(1, 1000))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.body = self.rfile.read(length)
                answer(self, next(count))

            do_PUT = do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return ObjectStore("s3://bucket", f"http://127.0.0.1:{server.server_port}", attempts=2, timeout_s=1)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>words</Message></Error>".encode()


def test_a_store_that_is_away_is_noticed_within_seconds(moto_server: Moto) -> None:
    store = ObjectStore("s3://bucket", f"http://127.0.0.1:{free_port()}", attempts=3)
    started = time.monotonic()
    with pytest.raises(TransientError, match="does not answer"):
        store.get("k")
    assert time.monotonic() - started < 10
    with pytest.raises(TransientError):
        list(ObjectStore("s3://bucket", store.endpoint, attempts=1).list())


@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "ServiceUnavailable"])
def test_an_overloaded_store_is_transient(faulty: Callable[[Answer], ObjectStore], code: str) -> None:
    status = 500 if code == "InternalError" else 503
    store = faulty(lambda handler, _: send(handler, status, error_body(code)))
    with pytest.raises(TransientError, match=code):
        store.put("k", b"v")


def test_an_upload_that_the_store_has_forgotten_is_begun_again_later(faulty: Callable[[Answer], ObjectStore]) -> None:
    store = faulty(lambda handler, _: send(handler, 404, error_body("NoSuchUpload")))
    with pytest.raises(TransientError, match="NoSuchUpload"):
        store.put("k", b"v")


def test_a_silent_store_is_transient(faulty: Callable[[Answer], ObjectStore]) -> None:
    store = faulty(lambda *_: time.sleep(3))
    store.attempts = 1
    with pytest.raises(TransientError):
        store.get("k")


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "NoSuchBucket"])
def test_what_an_operator_must_change_is_no_retry(faulty: Callable[[Answer], ObjectStore], code: str) -> None:
    status = 404 if code == "NoSuchBucket" else 403
    store = faulty(lambda handler, _: send(handler, status, error_body(code)))
    with pytest.raises(ConfigError, match=code):
        store.get("k")


def test_an_unknown_refusal_keeps_its_words(faulty: Callable[[Answer], ObjectStore]) -> None:
    store = faulty(lambda handler, _: send(handler, 400, error_body("SomethingNew")))
    with pytest.raises(CodaError, match="SomethingNew"):
        store.get("k")


def test_an_object_in_an_archive_is_no_matter_of_rights(faulty: Callable[[Answer], ObjectStore]) -> None:
    store = faulty(lambda handler, _: send(handler, 403, error_body("InvalidObjectState")))
    with pytest.raises(CodaError, match="restore-object") as caught:
        store.get("k")
    assert not isinstance(caught.value, ConfigError), "one such object must not stop what other batches need"


def test_one_hiccup_is_not_noticed(faulty: Callable[[Answer], ObjectStore]) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        send(handler, 503, error_body("SlowDown")) if number == 1 else send(handler, 200, b"content", ETag='"x"')

    assert faulty(answer).get("k") == b"content"


def test_a_body_that_breaks_off_is_read_again(faulty: Callable[[Answer], ObjectStore]) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number > 1:
            send(handler, 200, b"content", ETag='"x"')
            return
        handler.send_response(200)
        handler.send_header("ETag", '"x"')
        handler.send_header("Content-Length", "7")
        handler.end_headers()
        handler.wfile.write(b"con")
        handler.wfile.flush()
        handler.close_connection = True

    assert faulty(answer).get("k") == b"content"


def test_the_winner_whose_answer_was_lost_still_wins(faulty: Callable[[Answer], ObjectStore]) -> None:
    held: dict[str, str] = {}

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if handler.command == "HEAD":
            send(handler, 200, b"", ETag='"x"', **held)
        elif held:
            send(handler, 412, error_body("PreconditionFailed"))
        else:  # the object is written, and then the service fails before it can say so
            held["x-amz-meta-coda-writer"] = handler.headers["x-amz-meta-coda-writer"]
            send(handler, 500, error_body("InternalError"))

    store = faulty(answer)
    assert store.put_if_absent("claim", b"mine")
    assert not store.put_if_absent("claim", b"again")


def test_colliding_writers_are_sent_back_and_try_again(faulty: Callable[[Answer], ObjectStore]) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            send(handler, 409, error_body("ConditionalRequestConflict"))
        else:
            send(handler, 200, ETag='"x"')

    assert faulty(answer).put_if_absent("claim", b"x")


def test_missing_credentials_are_named(moto_server: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        ObjectStore("s3://bucket", moto_server.endpoint).get("k")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)), disk_explained(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="other"), disk_explained(tmp_path):
        raise OSError(errno.EIO, "other")


@pytest.mark.parametrize("words", ["unexpected error - database or disk is full", "[Errno 28] No space left on device"])
def test_a_disk_that_is_full_for_dvc_is_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho 'ERROR: {words}' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setattr("coda.warm.asking.sys.executable", str(program))
    with pytest.raises(ConfigError) as caught:
        dvc(tmp_path, "push")
    assert words in str(caught.value)
    assert "Free some space" in str(caught.value)
