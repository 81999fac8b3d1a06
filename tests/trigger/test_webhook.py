"""The webhook as its senders and its attackers see it: over HTTP, on loopback."""

import base64
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress

import pytest
from conftest_trigger import Immediate, deliver

from coda.errors import ConfigError, TransientError
from coda.trigger.authentication import SIGNATURE_HEADER, TIMESTAMP_HEADER, Secrets, sign
from coda.trigger.ledger import Ledger
from coda.trigger.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES, RateLimit
from coda.trigger.service import Pace, Trigger
from coda.trigger.webhook import Webhook
from coda.trigger.webhook_server import PATH, WebhookServer

TOKEN, KEY = "token-0123456789abcdef", b"key-0123456789abcdef"
SECRETS = Secrets((b"an-older-token-still-known", TOKEN.encode()), (KEY,))
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def records(*keys, bucket="landing", source="ceph:s3", opaque=""):
    return {
        "Records": [
            {"eventName": "ObjectCreated:Put", "eventSource": source, "opaqueData": opaque,
             "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
            for key in keys
        ]
    }  # fmt: skip


EVENT = records("in/lab_b/b1/manifest.json")


class Place:
    """A webhook in front of a trigger that nobody polls."""

    def __init__(self, platform, params, **more):
        self.trigger = Trigger(
            platform.settings, Immediate(platform.store), params=params, events=(), pace=Pace(tick_s=0, backoff_s=0)
        )
        self.platform = platform
        self.taken = []
        self.rate = more.pop("rate", None)
        self.webhook = Webhook(
            self.take, landing=platform.landing, secrets=SECRETS, metrics=self.trigger.metrics, rate=self.rate
        )
        self.server = WebhookServer(self.webhook, **more)
        self.server.start()

    def take(self, key):
        self.taken.append(key)
        return self.trigger.take(key)

    def post(self, body, headers=BEARER, path=PATH, method="POST"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.port}{path}", data, headers=dict(headers), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  on loopback
                return answer.status, json.loads(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), error.headers

    def states(self):
        return [(state.source, state.batch, state.state) for state in Ledger(self.platform.store).newest()]

    def counted(self, outcome):
        return self.trigger.metrics.registry.get_sample_value(
            "coda_trigger_webhook_requests_total", {"outcome": outcome}
        )

    def raw(self, data):
        """Send bytes as they are, and return all that comes back."""
        with closing(socket.create_connection(("127.0.0.1", self.server.port), timeout=30)) as connection:
            connection.sendall(data)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


@pytest.fixture
def make(platform, demo_params):
    made = []

    def make_place(**more):
        made.append(Place(platform, demo_params, **more))
        return made[-1]

    yield make_place
    for place in made:
        place.server.stop()


@pytest.fixture
def place(make):
    return make()


def signed(body, at=None, key=KEY):
    at = int(time.time()) if at is None else at
    return {TIMESTAMP_HEADER: str(at), SIGNATURE_HEADER: f"sha256={sign(key, at, body)}"}


def test_told_batch_is_in_the_ledger_when_the_answer_comes_and_runs_at_the_next_round(place, platform):
    deliver(platform.landing)
    status, body, _ = place.post(EVENT)
    assert (status, body) == (200, {"recorded": 1})
    assert place.states() == [("lab_b", "b1", "landed")]
    assert place.trigger.nudged.is_set()
    place.trigger.run_once()
    assert place.states() == [("lab_b", "b1", "released")]
    assert place.post(EVENT)[0] == 200
    assert place.trigger.run_once() == []
    assert place.counted("recorded") == 2


CLOUD = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "s", "ce-id": "1"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({**CLOUD, "Content-Type": "application/json"}, EVENT),
        (
            {"Content-Type": "application/cloudevents+json"},
            {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": EVENT},
        ),
        ({}, records("in/lab_b/b1/manifest.json", source="minio:s3")),
        ({}, {"notification": records("in%2Flab_b%2Fb1%2Fmanifest.json", source="aws:s3")["Records"]}),
        ({}, {"key": "/buckets/landing/in/lab_b/b1/manifest.json", "event_type": "create",
              "message": {"new_entry": {"name": "manifest.json"}}}),
    ],
    ids=["cloudevents-binary", "cloudevents-structured", "minio", "argo-events", "seaweedfs"],
)  # fmt: skip
def test_every_sender_reaches_the_ledger(place, platform, headers, body):
    deliver(platform.landing)
    assert place.post(body, {**BEARER, **headers})[:2] == (200, {"recorded": 1})
    assert place.states() == [("lab_b", "b1", "landed")]


def test_unusable_manifest_is_told_and_refused(place, platform):
    platform.landing.put("lab_b/b1/manifest.json", b"{")
    assert place.post(EVENT)[0] == 200
    assert place.states() == [("lab_b", "b1", "refused")]
    assert [item.state for item in place.trigger.taken()] == ["refused"]


def test_sender_of_a_lost_answer_sends_again_and_changes_nothing(place, platform):
    deliver(platform.landing)
    done = [None] * 8

    def send(number):
        done[number] = place.post(EVENT)[0]

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [200] * 8
    assert place.states() == [("lab_b", "b1", "landed")]


@pytest.mark.parametrize("error", [TransientError("The object store is away."), ConfigError("No rights.")])
def test_store_that_is_away_has_the_sender_send_again_and_the_signature_stays_good(place, platform, monkeypatch, error):
    deliver(platform.landing)
    body = json.dumps(EVENT).encode()
    headers = signed(body)
    with monkeypatch.context() as patch:

        def fail(key):
            raise error

        patch.setattr(place.trigger.arrivals, "take", fail)
        status, said, answered = place.post(body, headers)
    assert (status, answered["Retry-After"]) == (503, "30")
    assert "send it again" in said["error"]
    assert place.states() == []
    assert place.post(body, headers)[0] == 200
    assert place.states() == [("lab_b", "b1", "landed")]


# who may tell


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-0123456789abcdef"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        {"Authorization": f"Bearer {KEY.decode()}"},
        {SIGNATURE_HEADER: "sha256=" + "0" * 64},
        {SIGNATURE_HEADER: "sha256=" + "0" * 64, TIMESTAMP_HEADER: "1e9"},
        {SIGNATURE_HEADER: "", **BEARER},
    ],
)
def test_stranger_learns_nothing_and_starts_nothing(place, platform, headers):
    deliver(platform.landing)
    status, said, answered = place.post(EVENT, headers)
    assert status == 401
    assert TOKEN not in json.dumps(said)
    assert KEY.decode() not in json.dumps(said)
    assert "Bearer" in answered["WWW-Authenticate"]
    assert place.taken == []
    assert place.counted("unauthorised") == 1


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"authorization": f"bearer {TOKEN}"},
        {"Authorization": "Bearer an-older-token-still-known"},
        {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()},
    ],
)
def test_token_is_taken_as_bearer_and_as_password(place, headers):
    assert place.post(EVENT, headers)[0] == 200


def test_ceph_says_the_token_in_its_records_and_all_of_them_must_say_it(place):
    assert place.post(records("in/l/b/manifest.json", opaque=TOKEN), {})[0] == 200
    mixed = records("in/l/b/manifest.json", opaque=TOKEN)
    mixed["Records"] += records("in/l/c/manifest.json")["Records"]
    assert place.post(mixed, {})[0] == 401
    assert place.post(records(opaque=TOKEN), {})[0] == 401


def test_signature_counts_once_and_for_its_time_and_body_only(place):
    body = json.dumps(EVENT).encode()
    headers = signed(body)
    assert place.post(body, headers)[0] == 200
    status, said, _ = place.post(body, headers)
    assert (status, place.counted("repeated")) == (409, 1)
    assert "accepted before" in said["error"]
    assert place.post(body + b" ", signed(body, int(time.time()) - 1))[0] == 401
    assert place.post(body, signed(body, key=b"another-key-of-somebody"))[0] == 401
    later = {**signed(body, int(time.time()) - 2), TIMESTAMP_HEADER: str(int(time.time()))}
    assert place.post(body, later)[0] == 401


@pytest.mark.parametrize("seconds", [-301, -100_000, 310])
def test_old_signature_and_one_of_the_future_are_refused(place, seconds):
    body = json.dumps(EVENT).encode()
    status, said, _ = place.post(body, signed(body, int(time.time()) + seconds))
    assert status == 401
    assert "clock" in said["error"]


def test_request_under_way_is_answered_when_the_service_ends(place, monkeypatch):
    entered, leave, answers = threading.Event(), threading.Event(), []

    def slow(key):
        entered.set()
        return leave.wait(30)

    monkeypatch.setattr(place.trigger.arrivals, "take", slow)
    sender = threading.Thread(target=lambda: answers.append(place.post(EVENT)[0]))
    sender.start()
    assert entered.wait(30)
    end = threading.Thread(target=place.server.stop)
    end.start()
    leave.set()
    end.join(30)
    sender.join(30)
    assert answers == [200]


def test_signature_sent_twice_at_once_is_taken_once(place, monkeypatch):
    body = json.dumps(EVENT).encode()
    headers = signed(body)
    entered, leave = threading.Event(), threading.Event()

    def slow(key):
        entered.set()
        leave.wait(30)
        return True

    monkeypatch.setattr(place.trigger.arrivals, "take", slow)
    first = []
    thread = threading.Thread(target=lambda: first.append(place.post(body, headers)[0]))
    thread.start()
    entered.wait(30)
    second = place.post(body, headers)[0]
    leave.set()
    thread.join()
    assert (first, second) == ([200], 409)


# what is sent


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"3",
        b'"text"',
        b"null",
        b"{}",
        b'{"Records": 3}',
        b'{"Records": [3]}',
        b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": 3}]}',
        b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": []}}]}',
        b"[" * 200_000 + b"]" * 200_000,
        b'{"body":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"Records": ' + b"9" * 100_000 + b"}",
        b'{"specversion": "1.0", "data_base64": "%%%"}',
        b'{"key": "/buckets/landing/in/l/b/manifest.json", "event_type": "create", "message": {"new_entry": 3}}',
        b'{"key": 3, "event_type": [], "message": []}',
    ],
)
def test_body_that_cannot_be_understood_is_a_clear_400_and_the_webhook_lives_on(place, body):
    status, said, _ = place.post(body)
    assert (status, set(said)) == (400, {"error", "problem"})
    assert place.taken == []
    assert place.post(EVENT)[0] == 200


@pytest.mark.parametrize(
    "event",
    [
        records("in/../in/l/b/manifest.json"),
        records("in/../../secrets/manifest.json"),
        records("in//l/b/manifest.json"),
        records("in/./b/manifest.json"),
        records("in/l/b\x00/manifest.json"),
        records("in/l/b\n/manifest.json"),
        records("in/l/\ud800/manifest.json"),
        records("in/" + "x" * 1100 + "/manifest.json"),
        records("in/%2e%2e/l/manifest.json", source="aws:s3"),
        records("elsewhere/l/b/manifest.json"),
        records("inside/l/b/manifest.json"),
        records("in/l/b/plate.tif"),
        records("in/l/b/manifest.json", bucket="another"),
        records("in/l/b/manifest.json", bucket="landing/in"),
        {"key": "/buckets/landing/../landing/in/x/manifest.json", "event_type": "create",
         "message": {"new_entry": {"name": "manifest.json"}}},
        {"key": "/etc/manifest.json", "event_type": "create", "message": {"new_entry": {"name": "manifest.json"}}},
    ],
)  # fmt: skip
def test_keys_of_other_places_are_never_looked_at(place, event):
    status, said, _ = place.post(event)
    assert (status, said) == (200, {"recorded": 0})
    assert place.taken == []


def test_message_of_more_manifests_than_one_has_is_refused(place):
    status, said, _ = place.post(records(*[f"in/l/b{number}/manifest.json" for number in range(101)]))
    assert status == 413
    assert "101 manifests" in said["error"]
    assert place.taken == []


# how it is sent


def test_body_above_the_limit_is_refused_unread_and_its_sender_reads_why(place):
    status, said, _ = place.post(b" " * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert str(MAX_BODY_BYTES) in said["error"]


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2_000_000, 3_500_000])
def test_sender_who_writes_on_reads_why_it_was_refused(place, size):
    """Else the kernel resets the connection for what was not read, and the answer is lost with it (decision 0053)."""
    for _ in range(5):
        answer = place.raw(head(f"Content-Length: {size}") + b" " * size)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert str(MAX_BODY_BYTES).encode() in answer


def head(*lines, path=PATH):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", *lines, "", ""]).encode()


def test_headers_above_the_limit_are_refused(place):
    answer = place.raw(head(*[f"X-{number}: {'y' * 1000}" for number in range(2 * MAX_HEADER_BYTES // 1000)]))
    assert b" 413 " in answer.partition(b"\r\n")[0]
    assert place.raw(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 41")


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ([], b""),
        (["Content-Length: -1"], b""),
        (["Content-Length: 1e3"], b""),
        (["Content-Length: 2", "Content-Length: 3"], b"{}"),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"{}"),
        (["Transfer-Encoding: gzip, chunked"], b"{}"),
        (["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n"),
        (["Transfer-Encoding: chunked"], b"-2\r\n{}\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"2\r\n{}XX0\r\n\r\n"),
    ],
)
def test_request_that_could_be_read_in_two_ways_is_refused(place, lines, body):
    assert place.raw(head(*lines) + body).startswith(b"HTTP/1.1 400 ")
    assert place.taken == []


def chunks(body, size):
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_body_in_chunks_is_read_up_to_the_same_limit(place):
    body = json.dumps(EVENT).encode()
    assert place.raw(head("Transfer-Encoding: chunked") + chunks(body, 7)).startswith(b"HTTP/1.1 200 ")
    assert place.taken == ["lab_b/b1/manifest.json"]
    big = chunks(b" " * (MAX_BODY_BYTES + 1), 65536)
    assert place.raw(head("Transfer-Encoding: chunked") + big).startswith(b"HTTP/1.1 413 ")


def test_sender_that_waits_for_continue_is_told_to_go_on(place):
    body = json.dumps(EVENT).encode()
    with closing(socket.create_connection(("127.0.0.1", place.server.port), timeout=30)) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert b" 200 " in connection.recv(1000)


@pytest.mark.parametrize("sent", [b"", b"POST /ev", head("Content-Length: 10"), head("Content-Length: 10") + b"{"])
def test_slow_sender_is_let_go_and_does_not_hold_its_place(make, sent):
    place = make(request_s=0.3, most_connections=1)
    with closing(socket.create_connection(("127.0.0.1", place.server.port), timeout=30)) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 " if b"\r\n\r\n" in sent else b"")
        while connection.recv(1000):
            pass
    body = json.dumps(EVENT).encode()
    deadline = time.monotonic() + 30
    while place.taken == [] and time.monotonic() < deadline:
        with suppress(OSError):  # turned away while the slow one's place is being cleared
            place.raw(head(f"Content-Length: {len(body)}") + body)
    assert place.taken == ["lab_b/b1/manifest.json"]


def test_sender_that_drips_is_let_go_however_steadily_it_drips(make):
    place = make(request_s=0.5)
    with closing(socket.create_connection(("127.0.0.1", place.server.port), timeout=30)) as connection:
        with pytest.raises(OSError):  # noqa: PT011, PT012  reset or broken pipe, as the kernel likes
            for _ in range(2000):
                connection.sendall(b"X")
                time.sleep(0.02)
        assert place.taken == []


def test_more_connections_than_there_are_places_are_told_to_come_back(make):
    place = make(most_connections=2, request_s=30)
    waiting = [socket.create_connection(("127.0.0.1", place.server.port), timeout=30) for _ in range(2)]
    try:
        for connection in waiting:
            connection.sendall(b"POST")
        deadline = time.monotonic() + 30
        answer = b""
        while b" 503 " not in answer and time.monotonic() < deadline:
            with suppress(OSError):
                answer = place.raw(b"")
        assert b"Retry-After: 1" in answer
    finally:
        for connection in waiting:
            connection.close()


def test_address_that_sends_too_much_is_told_to_wait(make):
    place = make(rate=RateLimit(0.001, 2))
    assert [place.post(EVENT)[0] for _ in range(3)] == [200, 200, 429]
    _, said, answered = place.post(EVENT)
    assert "too many" in said["error"]
    assert int(answered["Retry-After"]) >= 1
    assert place.counted("limited") == 2


def test_other_paths_and_methods_are_refused(place):
    assert place.post(EVENT, path="/metrics")[0] == 404
    status, said, answered = place.post(b"", method="PUT")
    assert (status, answered["Allow"]) == (405, "POST")
    assert "POST" in said["error"]
    assert place.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert place.taken == []


def test_taken_port_is_a_clear_error(place):
    with pytest.raises(ConfigError, match="The webhook cannot listen"):
        WebhookServer(place.webhook, port=place.server.port)


def test_secrets_and_messages_are_not_logged(place, caplog):
    with caplog.at_level("DEBUG"):
        place.post(EVENT)
        place.post(records("in/l/b/manifest.json", opaque=TOKEN), {}, path=f"{PATH}?token={TOKEN}")
        place.post(b"{")
    assert TOKEN not in caplog.text


def test_the_webhook_answers_on_ipv6(platform, demo_params, answers_ipv6):
    if not answers_ipv6:
        pytest.skip("this machine has no ::1")
    place = Place(platform, demo_params, host="::1")
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://[::1]:{place.server.port}{PATH}", data=b"{}", timeout=10)
        with refused.value as answer:
            assert answer.code == 401
    finally:
        place.server.stop()
