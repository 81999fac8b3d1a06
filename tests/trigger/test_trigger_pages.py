"""The trigger shows the pages about drift and the reports they link to, and nothing else of its bucket."""

import http.client
import threading
import time

import pytest
from servers import moto_server
from simulated_history import write_history

from coda.monitoring.site.pages import fleet_page
from coda.registry.releases import ReleaseLog
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.server import TriggerService
from coda.trigger.service import Trigger
from coda.trigger.site import Site, now

__all__ = ["moto_server"]

DIGEST = "a" * 64


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def store(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


class Idle:
    """A submitter with nothing to do."""

    def stop(self, grace_s):
        return frozenset()


@pytest.fixture
def served(settings, demo_params):
    service = TriggerService(Trigger(settings, Idle(), params=demo_params, events=()), port=0)
    thread = threading.Thread(target=service.serve, kwargs={"grace_s": 0})
    thread.start()
    yield service
    service.stop()
    thread.join()


def ask(service, path):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def wait_for(service, path):
    for _ in range(200):
        answer = ask(service, path)
        if answer[0] == 200:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come: {answer}")


def test_the_first_page_leads_to_the_pages_which_are_built_by_themselves(served, store):
    write_history(store, "lab_b", 6, 4)
    served.site.want()
    status, headers, _ = ask(served, "/")
    assert (status, headers["Location"]) == (302, "/site/index.html")
    wait_for(served, "/site/source/lab_b.html")
    status, headers, body = wait_for(served, "/site/index.html")
    assert b"lab_b" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(served, "/site/site.js")[1]["Content-Type"].startswith("text/javascript")
    assert ask(served, "/healthz")[0] == 200


def test_how_sources_stand_is_scraped_with_what_serves_and_where_the_pages_are(served, store, settings):
    from conftest_trigger import release_of

    write_history(store, "lab_b", 6, 4)
    ReleaseLog(settings).append(release_of("lab_b"), "lab_b", action="promote", by="Ada", reason="looked at", after=0)
    served.site.want()
    wait_for(served, "/site/source/lab_b.html")
    for _ in range(200):
        text = ask(served, "/metrics")[2].decode()
        if "coda_drift_value{" in text and "coda_release_moved" in text:
            break
        time.sleep(0.1)
    assert f'coda_site_info{{url="http://127.0.0.1:{served.port}"}} 1.0' in text
    assert 'coda_batch_ended_timestamp_seconds{batch="b0005",outcome="released",page="reports/lab_b/b0005/' in text
    assert 'coda_drift_value{group="Acquisition",instrument="Opera Phenix",metric="bright structures, ER"' in text
    assert 'coda_release_moved_timestamp_seconds{outcome="promote"' in text
    read = [line for line in text.splitlines() if line.startswith("coda_site_read_timestamp_seconds")]
    assert abs(float(read[0].split()[1]) - time.time()) < 3600


def test_reports_are_shown_and_records_are_not(served, store):
    store.put(f"reports/lab_b/b1/{DIGEST}/report.html", b"<p>the report</p>")
    store.put(f"reports/lab_b/b1/{DIGEST}/summary.json", b"{}")
    store.put(f"reports/lab_b/b1/{DIGEST}/changed-0.png", b"a picture")
    store.put("ledger/lab_b/b1/0123456789abcdef/failure.html", b"why")
    store.put(f"reports/lab_b/b1/{DIGEST}/failure.html", b"why not")
    store.put("runs/r/params.json", b"{}")
    status, headers, body = ask(served, f"/reports/lab_b/b1/{DIGEST}/report.html")
    assert (status, body) == (200, b"<p>the report</p>")
    assert "script-src" not in headers["Content-Security-Policy"]
    assert ask(served, f"/reports/lab_b/b1/{DIGEST}/failure.html")[2] == b"why not"
    status, headers, body = ask(served, f"/reports/lab_b/b1/{DIGEST}/changed-0.png")
    assert (status, headers["Content-Type"], body) == (200, "image/png", b"a picture")
    assert ask(served, "/ledger/lab_b/b1/0123456789abcdef/failure.html")[2] == b"why"
    for path in (
        f"/reports/lab_b/b1/{DIGEST}/summary.json", "/runs/r/params.json",
        "/ledger/lab_b/b1/0123456789abcdef/claim.json",
        "/site/../runs/r/params.json", "/site/%2e%2e/runs/r/params.json", "//runs/r/params.json", "/site/x.exe",
    ):  # fmt: skip
        assert ask(served, path)[0] == 404, path


def test_what_runs_and_waits_is_told(settings, store):
    ledger = Ledger(store)

    def append(batch, state, **more):
        version = BatchVersion("lab_b", batch, batch[-1] * 64, f"lab_b/{batch}/manifest.json")
        return ledger.append(version, state, after=None, **more)

    append("b1", "running")
    append("b2", "failed", reasons=("the images cannot be read",))
    held = append("b3", "held", reasons=("the gain is small",))
    told = now(settings)
    assert [item["batch"] for item in told.running] == ["lab_b/b1"]
    todo = {item["what"]: item["todo"] for item in told.waiting}
    assert todo == {
        "lab_b/b2": "coda ledger retry lab_b/b2",
        "lab_b/b3": f"coda registry promote {held.run_id} --scope lab_b --reason WHY",
    }
    pages = {item["what"]: item["page"] for item in told.waiting}
    assert pages["lab_b/b2"].endswith("/failure.html")
    assert pages["lab_b/b3"] == f"reports/lab_b/b3/{'3' * 64}/report.html"
    text = fleet_page([], told.waiting, told.running)
    assert f'<a href="../{pages["lab_b/b2"]}">lab_b/b2</a>' in text
    from conftest_trigger import release_of

    release = release_of("lab_b").model_copy(update={"run_id": held.run_id})
    ReleaseLog(settings).append(release, "lab_b", action="promote", by="Ada", reason="looked at", after=0)
    assert [item["what"] for item in now(settings).waiting] == ["lab_b/b2"]


def test_a_store_that_is_away_is_no_page_and_no_end_of_the_trigger(settings, monkeypatch, caplog):
    from coda.errors import TransientError

    site = Site(settings, "http://127.0.0.1:1")

    def away(*_args, **_named):
        raise TransientError("The object store is away.")

    monkeypatch.setattr(ObjectStore, "get", away)
    monkeypatch.setattr(ObjectStore, "list", away)
    assert site.page("/site/index.html")[0] == 503
    stopping = threading.Event()
    thread = threading.Thread(target=site.keep, args=(stopping,))
    thread.start()
    stopping.set()
    site.want()
    thread.join(30)
    assert not thread.is_alive()


def test_what_ended_long_ago_is_not_read_to_tell_what_waits(settings, store, monkeypatch):
    """A year has ten thousand versions: by the marks it costs a listing, and a read for what is open or held."""
    ledger = Ledger(store)
    for batch in ("old1", "old2", "held", "open"):
        version = BatchVersion("lab_b", batch, DIGEST, f"lab_b/{batch}/manifest.json")
        state = ledger.append(version, "landed", after=None)
        if batch != "open":
            state = ledger.append(version, "held" if batch == "held" else "released", after=state)
            ledger.marks.close(state, ledger.written(state))
            ledger.marks.remove(ledger.marks.open(version.folder).get(version.folder, []))
    read = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key, **how: (read.append(key), get(self, key, **how))[1])
    told = now(settings)
    assert [item["batch"] for item in told.running] == ["lab_b/open"]
    assert [item["what"] for item in told.waiting] == ["lab_b/held"]
    assert sorted(key.split("/")[2] for key in read if key.startswith("ledger/")) == ["held", "open"]
