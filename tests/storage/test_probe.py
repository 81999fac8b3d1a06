"""A store that takes If-None-Match and ignores it is refused before anything is claimed."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from servers import Moto

from coda.config import Params
from coda.doctor import examine
from coda.errors import ConfigError
from coda.storage import ObjectStore, probe
from coda.trigger.service import Trigger


class Proxy:
    """Hands requests on to moto without the header, as some gateways do; counts them."""

    def __init__(self, target: str) -> None:
        parts, self.requests = urlsplit(target), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "if-none-match"}
                connection = HTTPConnection(str(parts.hostname), parts.port)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                outer.requests.append(f"{self.command} {self.path}")
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                connection.close()

            do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(moto_server: Moto) -> Iterator[Proxy]:
    proxy = Proxy(moto_server.endpoint)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


def test_the_proxy_does_what_the_real_ones_did(proxy, moto_server):
    store = moto_server.bucket()
    through = ObjectStore(store.uri, proxy.endpoint)
    assert [through.put_if_absent("claim", b"mine") for _ in range(8)] == [True] * 8


def test_the_trigger_the_doctor_and_data_init_refuse_it_in_words(proxy, moto_server, tmp_path):
    settings = moto_server.settings(tmp_path).model_copy(update={"s3_endpoint": proxy.endpoint})
    trigger = Trigger(settings, submitter=None, params=Params.model_construct())  # type: ignore[arg-type]
    for start in (trigger.run_once, lambda: examine(settings)):
        with pytest.raises(ConfigError, match="If-None-Match"):
            start()
    environment = {**os.environ, **settings.environment}
    command = [sys.executable, "-m", "coda", "data", "init"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "If-None-Match" in done.stderr) == (2, True), done.stderr


def test_a_good_store_is_asked_at_most_twice_and_then_believed(moto_server, monkeypatch):
    store = moto_server.bucket()
    calls = []
    put = ObjectStore.put_if_absent
    monkeypatch.setattr(ObjectStore, "put_if_absent", lambda *args: (calls.append(args), put(*args))[1])
    for _ in range(3):
        probe.require_conditional_writes(store)
    assert len(calls) == 2
    monkeypatch.setattr(probe, "_ASKED", set())  # the next process
    probe.require_conditional_writes(store)
    assert len(calls) == 3
