"""The tools of the soak: the proxy does to a client what its mode says, and plans are whole and repeatable."""

import http.client
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.soak.chaos import QUIET, SHARES, schedule
from tests.soak.deliveries import KINDS, plan
from tests.soak.proxy import LATE_S, MODES, FaultProxy

BODY = b"x" * 1000


@pytest.fixture
def server():
    """A server that counts the requests it carried out."""
    done = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            done.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_):
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    found.done = done
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def put(port, times=1, size=200_000):
    """Send so many requests on one connection, and return the answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        answers = []
        for _ in range(times):
            connection.request("PUT", "/k", b"v" * size)
            answer = connection.getresponse()
            with answer:
                answers.append((answer.status, answer.read()))
    return answers


def test_without_a_mode_the_proxy_is_not_noticed(server):
    with FaultProxy(server.server_port, seed=0) as proxy:
        assert put(proxy.port, times=3) == [(200, BODY)] * 3
    assert len(server.done) == 3
    assert not proxy.injected


@pytest.mark.parametrize("mode", ["500", "503"])
def test_an_error_is_answered_and_nothing_carried_out(server, mode):
    with FaultProxy(server.server_port, seed=0) as proxy:
        proxy.set(mode)
        ((status, body),) = put(proxy.port, size=1)
        assert (status, b"injected" in body) == (int(mode), True)
        proxy.set(None)
        assert put(proxy.port) == [(200, BODY)]
    assert len(server.done) == 1
    assert proxy.injected[mode] >= 1


@pytest.mark.parametrize(("mode", "carried_out"), [("away", 0), ("unanswered", 1), ("cut", 1)])
def test_a_broken_connection_breaks_where_its_mode_says(server, mode, carried_out):
    with FaultProxy(server.server_port, seed=0) as proxy:
        proxy.set(mode)
        try:
            answers = put(proxy.port)
        except (ConnectionError, http.client.HTTPException):
            answers = []
        # http.client takes an answer that ends in its header lines for a whole one without a body
        assert answers == [] or (mode == "cut" and answers != [(200, BODY)])
        assert len(server.done) == carried_out
        assert proxy.injected[mode] >= 1


def test_slow_is_late_and_whole(server):
    with FaultProxy(server.server_port, seed=0) as proxy:
        proxy.set("slow")
        started = time.monotonic()
        assert put(proxy.port) == [(200, BODY)]
        assert time.monotonic() - started >= LATE_S  # a lower bound: it cannot be too fast


def test_a_mode_that_is_none_is_refused(server):
    proxy = FaultProxy(server.server_port, seed=0)
    with proxy, pytest.raises(ValueError, match="sideways"):
        proxy.set("sideways")


@pytest.mark.parametrize(("batches", "sources"), [(200, 5), (30, 3), (12, 2)])
def test_a_plan_is_whole_and_its_seed_repeats_it(batches, sources):
    first = plan(batches, sources, 7)
    assert first == plan(batches, sources, 7)
    assert first != plan(batches, sources, 8)
    assert len(first) == len({item.batch for item in first}) == batches
    assert {item.source for item in first} == {f"site_{number}" for number in range(1, sources + 1)}
    assert {item.kind for item in first} == set(KINDS)


def test_every_fault_happens_and_the_last_life_of_a_trigger_is_long():
    faults = schedule(200, SHARES, 1)
    assert faults == schedule(200, SHARES, 1)
    assert {fault.kind for fault in faults} == set(SHARES)
    assert {f"object store {mode}" for mode in MODES} <= set(SHARES)
    assert [fault.due for fault in faults] == sorted(fault.due for fault in faults)
    of_trigger = [fault.due for fault in faults if fault.kind in ("trigger killed", "trigger frozen")]
    assert max(of_trigger) <= QUIET < 1
