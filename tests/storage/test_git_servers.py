"""Git servers that refuse, are away, or are no Git servers at all: who must act."""

import http.server
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import yaml
from servers import free_port

from coda.errors import ConfigError, ServiceRefusedError, TransientError
from coda.storage import clone as clone_module
from coda.storage.clone import cloned
from coda.storage.data_registry import create_registry
from coda.storage.programs import git


@contextmanager
def answering(status, kind="text/plain", body=b"no", headers=()):
    """A server that gives every request one answer; status 0 breaks the connection off."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if status == 0:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  the name is the library's

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Reach loopback without the proxy of the machine that runs the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def opened(url):
    with cloned(url, "s3://bucket/dvc", None):
        pass


@pytest.mark.parametrize(
    ("page", "expected"),
    # git looks for lines; what has none is a repository without a branch to it
    [(b"<!doctype html><title>Sign in</title>", ServiceRefusedError), (b"", ServiceRefusedError),
     (b"<!doctype html>\n<title>Sign in</title>\n", ConfigError)],
)  # fmt: skip
def test_a_sign_in_page_is_no_empty_registry(page, expected):
    with (
        answering(200, "text/html; charset=utf-8", page) as port,
        pytest.raises(expected) as caught,
    ):
        opened(f"http://user:secret@127.0.0.1:{port}/registry.git")
    assert "CODA_DATA_REGISTRY" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_empty_repository_behind_a_real_server_is_one(tmp_path):
    # what git's own http-backend says of a repository without a commit
    advertised = b"001e# service=git-upload-pack\n0000"
    capabilities = b" capabilities^{}\0agent=git/2"
    line = b"0" * 40 + capabilities
    body = advertised + f"{len(line) + 4:04x}".encode() + line + b"0000"
    with answering(200, "application/x-git-upload-pack-advertisement", body) as port:
        assert clone_module._branch(tmp_path, f"http://127.0.0.1:{port}/registry.git") == ""


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, ConfigError), (403, ConfigError), (404, ConfigError), (407, ConfigError), (418, ConfigError),
     (0, TransientError), (429, TransientError), (500, TransientError), (502, TransientError), (503, TransientError)],
)  # fmt: skip
def test_an_answer_of_a_server_says_who_must_act(status, expected):
    headers = [("WWW-Authenticate", 'Basic realm="x"')] if status == 401 else []
    with answering(status, headers=headers) as port, pytest.raises(expected) as caught:
        opened(f"http://127.0.0.1:{port}/registry.git")
    assert caught.value.exit_code == {ConfigError: 2, TransientError: 75}[expected]


def test_a_server_that_is_not_there_is_an_outage():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match="connect"):
            opened(f"http://127.0.0.1:{unused.getsockname()[1]}/registry.git")


def test_an_address_that_git_does_not_know_is_the_operators():
    with pytest.raises(ConfigError, match="remote-nothing"):
        opened("nothing://host/registry.git")


def test_a_stranger_on_the_port_comes_with_the_words_of_ssh(monkeypatch, tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'Host key verification failed.' >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(ConfigError, match="Host key verification failed"):
        opened("git@127.0.0.1:registry.git")


@pytest.mark.parametrize(
    "words", ["You are not allowed to push code to protected branches on this project.", "quota exceeded"]
)
def test_a_server_that_refuses_the_push_is_asked_once(words, tmp_path, monkeypatch):
    bare = tmp_path / "server.git"
    bare.mkdir()
    git(bare, "init", "--quiet", "--bare")
    hook = bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho asked >> {bare}/pushes\necho '{words}' >&2\nexit 1\n")
    hook.chmod(0o755)
    with (
        cloned(f"file://{bare}", "s3://bucket/dvc", None) as clone,
        pytest.raises(ConfigError, match=words),
    ):
        clone.publish({"data/lab_b/b1": "outs:\n- md5: 0.dir\n"}, "b1")
    assert (bare / "pushes").read_text() == "asked\n"


def test_the_git_server_of_the_small_cluster_takes_what_steps_push(root, tmp_path):
    """As the overlay `dev` runs it but for folder and port: git's daemon over what `coda data init` made."""
    documents = yaml.safe_load_all((root / "k8s" / "overlays" / "dev" / "services.yaml").read_text())
    (pod,) = [item["spec"]["template"]["spec"] for item in documents
              if item["kind"] == "Deployment" and item["metadata"]["name"] == "data-registry"]  # fmt: skip
    (container,) = pod["containers"]
    port = free_port()
    changed = {"--base-path=/data": f"--base-path={tmp_path}", "--port=9418": f"--port={port}"}
    assert set(changed) <= set(container["args"])
    create_registry(tmp_path / "registry.git", "s3://bucket/dvc")
    command = [changed.get(word, word) for word in container["args"]]
    daemon = subprocess.Popen([*command, "--listen=127.0.0.1", "--log-destination=none"])
    try:
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = f"git://127.0.0.1:{port}/registry.git"
        with cloned(url, "s3://bucket/dvc", None) as clone:
            clone.publish({"data/lab_b/b1": "outs:\n- md5: 0.dir\n"}, "b1")
        assert "b1" in git(tmp_path / "registry.git", "log", "-1", "--format=%s", "main")
        with cloned(url, "s3://bucket/dvc", None) as clone:
            assert (clone.folder / "data/lab_b/b1.dvc").read_text().startswith("outs:")
    finally:
        daemon.terminate()
        daemon.wait(20)
