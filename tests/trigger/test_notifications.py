"""Notifications to a real HTTP receiver on loopback: what it is told, that it is once, and what it cannot break."""

import hashlib
import hmac
import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import numpy as np
import pytest
from conftest_trigger import Killed
from servers import free_port, moto_server
from simulated_history import Story, batch
from typer.testing import CliRunner

from coda.cli.monitoring import app
from coda.contracts import Notification
from coda.errors import ConfigError, TransientError
from coda.monitoring.batch_row import Facts
from coda.monitoring.batch_table import write_batch
from coda.storage.objects import ObjectStore
from coda.trigger import notifications, receiver
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.notifications import Notifier
from coda.trigger.receiver import KINDS, Receiver, read_receiver
from coda.trigger.server import TriggerService
from coda.trigger.service import Trigger

__all__ = ["moto_server"]

KEY = b"for-notifications-of-a-test"
HIDDEN_PATH = "services/T0/the-path-is-a-secret"


class Chat:
    """A receiver as an operator has one; it answers what a test says."""

    def __init__(self):
        self.answers, self.seconds, self.got = [], 0.0, []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                chat.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                time.sleep(chat.seconds)
                status = chat.answers.pop(0) if chat.answers else 200
                said = f"you asked for {self.path}".encode() if status >= 300 else b"ok"
                self.send_response(status)
                self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/{HIDDEN_PATH}"

    @property
    def told(self):
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
def chat():
    chat = Chat()
    yield chat
    chat.server.shutdown()
    chat.server.server_close()
    chat.thread.join()


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def store(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


@pytest.fixture
def metrics():
    return TriggerMetrics()


@pytest.fixture
def notifier(settings, chat, metrics):
    found = Notifier(settings, Receiver(chat.url, KEY), metrics, "me")
    found.begin()
    return found


def digest_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def ended(store, name, state, reasons=("the images cannot be read",), owner="me", **counted):
    """End a batch version as the trigger does: a state in the ledger and a row in the table."""
    version = BatchVersion("lab_b", name, digest_of(name), f"lab_b/{name}/manifest.json")
    new = Ledger(store, owner).append(version, state, after=None, reasons=reasons, **counted)
    page = f"reports/lab_b/{name}/{version.digest}/report.html"
    write_batch(store, Facts("lab_b", name, version.digest, state, new.at, page=page))
    return new


def count(metrics, outcome):
    return metrics.registry.get_sample_value("coda_trigger_notifications_total", {"outcome": outcome})


def signed_by_us(headers, body):
    """Check a message as docs/monitoring.md tells a receiver to."""
    at, given = headers["x-coda-timestamp"], headers["x-coda-signature"]
    mac = hmac.new(KEY, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return abs(time.time() - int(at)) < 300 and hmac.compare_digest(given, f"sha256={mac}")


def test_what_a_receiver_is_told_is_signed_documented_and_told_once(settings, store, chat, notifier, metrics, root):
    held = ended(store, "b1", "held", ("the gain is small",))
    ended(store, "b2", "failed", ("it broke", "When this is put right: coda ledger retry lab_b/b2"))
    ended(store, "b3", "refused", ("no\nimages",))
    ended(store, "b4", "released")
    ended(store, "b5", "failed", cause="lost")  # opened again by itself
    assert notifier.round()
    schema = json.loads((root / "docs" / "schemas" / "Notification.json").read_text())
    for path, headers, body in chat.got:
        assert path == f"/{HIDDEN_PATH}"
        assert headers["content-type"] == "application/json"
        assert signed_by_us(headers, body)
        assert not signed_by_us(headers, body + b" ")
        jsonschema.validate(json.loads(body), schema)
    told = {item["kind"]: item for item in chat.told}
    assert len(chat.got) == 3
    assert set(told) == {"held", "failed", "refused"}
    assert told["held"]["what_to_do"].endswith(f"`coda registry promote {held.run_id} --scope lab_b --reason WHY`")
    assert told["failed"]["reason"] == "it broke"
    assert "`coda ledger retry lab_b/b2`" in told["failed"]["what_to_do"]
    assert f"`coda manifest check {settings.landing}/lab_b/b3/manifest.json`" in told["refused"]["what_to_do"]
    report = f"{settings.platform}/reports/lab_b/b1/{digest_of('b1')}/report.html"
    assert told["held"]["links"] == {"report": report, "site": f"{settings.platform}/site/source/lab_b.html"}
    assert told["refused"]["text"].startswith("CODA: lab_b/b3 was refused.\nno images\n")
    assert {item.key for item in store.list("notifications/")} == {
        "notifications/since.json", *(f"notifications/{item['id']}.json" for item in chat.told),
    }  # fmt: skip
    record = store.get(f"notifications/{told['held']['id']}.json")
    assert Notification.parse(record, "record").reason == "the gain is small"
    assert notifier.round()
    assert Notifier(settings, Receiver(chat.url, KEY), metrics, "after a restart").round()
    assert len(chat.got) == 3
    assert count(metrics, "delivered") == 3


def test_links_lead_to_the_public_address_and_only_wanted_kinds_are_told(settings, store, chat, metrics):
    mine = Notifier(settings, Receiver(chat.url, KEY, ("held",), "https://coda.example.org"), metrics, "me")
    mine.begin()
    ended(store, "b1", "held")
    ended(store, "b2", "refused")
    assert mine.round()
    (told,) = chat.told
    assert told["links"]["site"] == "https://coda.example.org/site/source/lab_b.html"
    assert told["links"]["report"].startswith("https://coda.example.org/reports/lab_b/b1/")


def test_what_others_wrote_calls_nobody_in_a_chat(store, chat, notifier):
    ended(store, "b1", "refused", ("<!channel> @all " + "x" * 5000,))
    assert notifier.round()
    (told,) = chat.told
    assert "<!channel>" not in told["text"]
    assert "@all" not in told["text"]
    assert told["reason"].startswith("<!channel> @all x")
    assert len(told["text"]) < 1500


def test_what_ended_before_there_was_a_receiver_is_not_told(settings, store, chat, metrics):
    ended(store, "b1", "failed")
    time.sleep(1.1)  # the store tells times in whole seconds
    mine = Notifier(settings, Receiver(chat.url, KEY), metrics, "me")
    assert mine.round()
    ended(store, "b2", "failed")
    assert mine.round()
    assert [item["batch"] for item in chat.told] == ["b2"]


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_refusal_is_tried_again_and_holds_up_nothing_else(status, store, chat, notifier, metrics, caplog):
    chat.answers = [status]
    ended(store, "b1", "failed")
    ended(store, "b2", "failed")
    assert not notifier.round()
    assert [item["batch"] for item in chat.told] == ["b1", "b2"]
    assert notifier.round()
    assert [item["batch"] for item in chat.told] == ["b1", "b2", "b1"]
    assert {path for path, _, _ in chat.got} == {f"/{HIDDEN_PATH}"}, "no redirect is followed"
    assert chat.got[0][2] == chat.got[2][2]
    assert count(metrics, "failed") == 1
    assert f"it answered {status}" in caplog.text
    assert HIDDEN_PATH not in caplog.text


def test_a_receiver_that_wants_a_pause_gets_one(store, chat, notifier):
    chat.answers = [429]
    ended(store, "b1", "failed")
    ended(store, "b2", "failed")
    assert not notifier.round()
    assert len(chat.got) == 1


def test_a_receiver_that_is_slow_or_away_is_no_answer(settings, store, chat, notifier, metrics, monkeypatch, caplog):
    monkeypatch.setattr(receiver, "TIMEOUT_S", 0.3)
    chat.seconds = 2.0
    ended(store, "b1", "failed")
    ended(store, "b2", "failed")
    assert not notifier.round()
    assert len(chat.got) == 1, "the others wait as well"
    assert "timed out" in caplog.text
    away = Notifier(settings, Receiver(f"http://127.0.0.1:{free_port()}/{HIDDEN_PATH}", KEY), metrics, "me")
    assert not away.round()
    assert "refused" in caplog.text
    assert HIDDEN_PATH not in caplog.text
    assert KEY.decode() not in caplog.text


def test_after_a_day_it_is_given_up_and_said(store, chat, notifier, metrics, monkeypatch, caplog):
    chat.answers = [500, 500]
    ended(store, "b1", "failed")
    assert not notifier.round()
    monkeypatch.setattr(notifications, "GIVEN_UP", timedelta(seconds=-1))
    assert notifier.round()
    assert count(metrics, "given_up") == 1
    assert "is given up" in caplog.text
    assert notifier.round()
    assert count(metrics, "given_up") == 1
    assert len(chat.got) == 1


def test_a_trigger_that_dies_between_delivery_and_record_has_it_told_again_with_the_same_id(
    settings, store, chat, notifier, metrics, monkeypatch
):
    ended(store, "b1", "failed")

    def dies(self, key, data, content_type=""):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put_if_absent", dies)
        with pytest.raises(Killed):
            notifier.round()
    monkeypatch.setattr(notifications, "ORPHANED", timedelta(0))
    assert Notifier(settings, Receiver(chat.url, KEY), metrics, "its next start").round()
    first, second = chat.told
    assert first == second


def test_a_record_that_could_not_be_written_is_written_without_a_second_delivery(store, chat, notifier, monkeypatch):
    ended(store, "b1", "failed")

    def away(self, key, data, content_type=""):
        raise TransientError("The object store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put_if_absent", away)
        with pytest.raises(TransientError):
            notifier.round()
    assert notifier.round()
    assert len(chat.got) == 1
    assert len(list(store.list("notifications/lab_b/"))) == 1


def test_of_two_triggers_the_one_that_ended_a_batch_tells_of_it(settings, store, chat, monkeypatch):
    two = [Notifier(settings, Receiver(chat.url, KEY), TriggerMetrics(), owner) for owner in ("me", "you")]
    two[0].begin()
    for name, owner in (("b1", "me"), ("b2", "you"), ("b3", "you")):
        ended(store, name, "failed", owner=owner)
    threads = [threading.Thread(target=one.round) for one in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item["batch"] for item in chat.told) == ["b1", "b2", "b3"]
    ended(store, "b4", "failed", owner="one that is gone")
    assert two[0].round()
    assert len(chat.got) == 3
    monkeypatch.setattr(notifications, "ORPHANED", timedelta(0))
    for one in two:
        assert one.round()
    assert [item["batch"] for item in chat.told[3:]] == ["b4"]


def test_the_row_of_the_table_is_waited_for(store, chat, notifier, monkeypatch):
    version = BatchVersion("lab_b", "b1", digest_of("b1"), "lab_b/b1/manifest.json")
    Ledger(store, "me").append(version, "refused", after=None, reasons=("why",))
    assert notifier.round()
    assert chat.got == []
    monkeypatch.setattr(notifications, "ROW_COMES", timedelta(0))
    assert notifier.round()
    assert chat.told[0]["links"]["report"] == ""


def test_a_drift_is_told_when_it_begins_and_not_again_while_it_lasts(store, chat, notifier):
    rng = np.random.default_rng(0)
    for k in range(14):
        facts, numbers = batch("lab_b", k, 4, Story("step", 11), rng)
        write_batch(store, facts, numbers)
        if k >= 9:
            version = BatchVersion("lab_b", facts.batch, facts.manifest_digest, f"lab_b/{facts.batch}/manifest.json")
            Ledger(store, "me").append(version, "released", after=None)
            assert notifier.round()
    (told,) = [item for item in chat.told if "bright structures, ER" in item["reason"]]
    assert (told["kind"], told["batch"], told["state"]) == ("drift", "b0012", "released")
    assert told["reason"].startswith("bright structures, ER is below what history makes likely (sudden)")
    assert "`coda monitoring history --source lab_b --csv lab_b.csv`" in told["what_to_do"]
    assert told["text"].startswith("CODA: lab_b/b0012 drifts.")


def test_the_service_tells_of_a_batch_it_refused_while_its_rounds_go_on(settings, store, chat, demo_params):
    class Idle:
        def stop(self, grace_s):
            return frozenset()

    trigger = Trigger(settings, Idle(), params=demo_params)
    mine = Notifier(settings, Receiver(chat.url, KEY), trigger.metrics, trigger.ledger.owner)
    service = TriggerService(trigger, port=0, poll_every_s=1.0, notifier=mine)
    chat.seconds = 3.0
    thread = threading.Thread(target=service.serve, kwargs={"grace_s": 0})
    thread.start()
    try:
        ObjectStore(settings.landing, settings.s3_endpoint).put("lab_b/b1/manifest.json", b'{"cut sho')
        for _ in range(600):
            if chat.got:
                break
            time.sleep(0.05)
        turned = service.health.finished
        time.sleep(1.5)
        assert service.health.finished > turned, "rounds go on while the receiver takes its time"
    finally:
        service.stop()
        thread.join()
    (told,) = chat.told
    assert (told["kind"], told["source"], told["batch"]) == ("refused", "lab_b", "b1")


def test_what_is_configured_leaves_the_environment_and_is_not_shown(tmp_path):
    (tmp_path / "key").write_text(f"{KEY.decode()}\n")
    environment = {
        "CODA_NOTIFY_URL": f"https://chat.example.org/{HIDDEN_PATH}", "CODA_NOTIFY_KEY_FILE": str(tmp_path / "key"),
        "CODA_NOTIFY_ON": "held, drift", "CODA_SITE_URL": "https://coda.example.org/", "HOME": "/h",
    }  # fmt: skip
    found = read_receiver(environment)
    assert environment == {"HOME": "/h"}
    assert found == Receiver(
        f"https://chat.example.org/{HIDDEN_PATH}", KEY, ("held", "drift"), "https://coda.example.org"
    )
    assert HIDDEN_PATH not in repr(found)
    assert KEY.decode() not in repr(found)
    assert read_receiver({}) is None
    assert read_receiver({"CODA_NOTIFY_URL": "https://a.example.org", "CODA_NOTIFY_KEY": KEY.decode()}).on == KINDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"CODA_NOTIFY_URL": f"http://chat.example.org/{HIDDEN_PATH}"}, "an http address of another machine"),
        ({"CODA_NOTIFY_URL": f"{HIDDEN_PATH}"}, "characters that are no address"),
        ({"CODA_NOTIFY_URL": f"https://u:p@chat.example.org/{HIDDEN_PATH}"}, "an address with a user"),
        ({"CODA_NOTIFY_URL": ""}, "CODA_NOTIFY_URL: found nothing"),
        ({"CODA_NOTIFY_KEY": ""}, "head -c 32 /dev/urandom | base64"),
        ({"CODA_NOTIFY_KEY": "short"}, "5 characters in line 1"),
        ({"CODA_NOTIFY_KEY": f"{KEY.decode()}\n{KEY.decode()}"}, "2 keys"),
        ({"CODA_NOTIFY_ON": "held,released"}, "released"),
        ({"CODA_SITE_URL": "coda.example.org"}, "CODA_SITE_URL"),
    ],
)
def test_what_cannot_be_is_a_clear_error_that_shows_no_secret(change, said):
    good = {"CODA_NOTIFY_URL": f"https://chat.example.org/{HIDDEN_PATH}", "CODA_NOTIFY_KEY": KEY.decode()}
    with pytest.raises(ConfigError) as caught:
        read_receiver({**good, **change})
    assert said in str(caught.value)
    assert HIDDEN_PATH not in str(caught.value)
    assert KEY.decode() not in str(caught.value)


def test_the_operator_may_try_the_receiver(chat, monkeypatch):
    def tried(url, *words):
        monkeypatch.setenv("CODA_NOTIFY_URL", url)
        monkeypatch.setenv("CODA_NOTIFY_KEY", KEY.decode())
        return CliRunner().invoke(app, ["notify", *words])

    assert tried(chat.url).output == "127.0.0.1 is told of: refused, held, failed, drift\n"
    assert chat.got == []
    done = tried(chat.url, "--test")
    assert "The receiver answered: 200 ok" in done.output
    path, headers, body = chat.got[0]
    assert json.loads(body)["kind"] == "test"
    assert signed_by_us(headers, body)
    chat.answers = [404]
    refused = tried(chat.url, "--test").exception
    assert isinstance(refused, ConfigError)
    assert "404 you asked for /[hidden]" in str(refused)
    assert path[1:] not in str(refused)
    away = tried(f"http://127.0.0.1:{free_port()}/{HIDDEN_PATH}", "--test").exception
    assert isinstance(away, TransientError)
    assert re.search("did not reach 127.0.0.1: .*refused", str(away))
    monkeypatch.delenv("CODA_NOTIFY_URL")
    monkeypatch.delenv("CODA_NOTIFY_KEY")
    assert "No receiver" in str(CliRunner().invoke(app, ["notify"]).exception)


def test_times_of_a_notification_are_those_of_the_end(store, chat, notifier):
    state = ended(store, "b1", "held")
    assert notifier.round()
    assert datetime.fromisoformat(chat.told[0]["at"]).astimezone(UTC) == state.at
