"""Runs as processes of this machine, and the service around the trigger, as a process that gets signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest_trigger import Immediate, deliver, record_of, train

from coda.config import load_params
from coda.errors import ConfigError
from coda.runners.submit import LocalSubmitter, Request
from coda.storage.objects import ObjectStore
from coda.trigger.ledger import Ledger
from coda.trigger.server import TriggerService
from coda.trigger.service import Pace, Trigger

# stands in for `coda pipeline run`: writes its arguments, holds the run's lock, ends as it is told
RUN = """
import json, sys, time
from pathlib import Path
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
work = Path(arguments["--work"])
Path(work, "calls.jsonl").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
from coda.runners.workdir import opened
from coda.settings import read_settings
from coda.storage.objects import ObjectStore
settings = read_settings()
with opened(work, arguments["--run-id"]):
    while not (work / "end").exists():
        time.sleep(0.02)
record = (work / "end").read_text().replace("RUN", arguments["--run-id"])
ObjectStore(settings.platform, settings.s3_endpoint).put(f"runs/{arguments['--run-id']}/run.json", record.encode())
print("it ran")
"""


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def store(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


@pytest.fixture
def submitter(settings, tmp_path):
    made = LocalSubmitter(settings, tmp_path / "work", command=(sys.executable, "-c", RUN))
    yield made
    made.stop(0)


def test_local_submitter_runs_one_process_with_the_batch_and_its_version(submitter, settings, store, demo_params):
    train(settings)
    digest = deliver(ObjectStore(settings.landing, settings.s3_endpoint)).digest()
    submitter.work.mkdir()
    (submitter.work / "end").write_text(record_of("RUN", "released").to_json())
    (handled,) = Trigger(settings, submitter, params=demo_params, pace=Pace(tick_s=0.05)).run_once()
    assert handled.state == "released"
    (call,) = [json.loads(line) for line in (submitter.work / "calls.jsonl").read_text().splitlines()]
    given = dict(zip(call[1::2], call[2::2], strict=True))
    assert call[0] == "adaptation"
    assert given["--manifest-digest"] == digest
    assert given["--manifest-uri"] == f"{settings.landing}/lab_b/b1/manifest.json"
    assert load_params(Path(given["--params"])) == demo_params
    assert "it ran" in (submitter.work / handled.run_id / "trigger.txt").read_text()


@pytest.mark.parametrize("runner", ["local", "docker"])
def test_run_of_an_earlier_trigger_is_seen_by_its_lock_and_not_started_twice(submitter, settings, demo_params, runner):
    submitter.runner = runner
    request = Request("adapt-x", "s3://l/x/b/manifest.json", "ab" * 32, demo_params)
    submitter.submit(request)
    deadline = time.monotonic() + 30
    other = LocalSubmitter(settings, submitter.work, runner, command=(sys.executable, "-c", "raise SystemExit(9)"))
    while not other.alive("adapt-x") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert other.alive("adapt-x")
    other.submit(request)
    assert other._processes == {}
    assert submitter.stop(5) == {"adapt-x"}
    assert not other.alive("adapt-x")


def test_work_folder_that_cannot_be_written_is_a_clear_error(settings, demo_params, tmp_path):
    (tmp_path / "file").write_text("")
    submitter = LocalSubmitter(settings, tmp_path / "file")
    with pytest.raises(ConfigError, match="no folder to work in"):
        submitter.submit(Request("r", "s3://l/x/b/manifest.json", "ab" * 32, demo_params))


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_service_works_and_shows_its_pages_until_it_is_stopped(settings, store, demo_params):
    train(settings)
    told = []
    trigger = Trigger(settings, Immediate(store), params=demo_params, pace=Pace(tick_s=0.01))
    service = TriggerService(trigger, poll_every_s=0.05, tell=told.append)
    assert get_before_start(service) == 503
    loop = threading.Thread(target=service.serve)
    loop.start()
    try:
        deliver(ObjectStore(settings.landing, settings.s3_endpoint))
        deadline = time.monotonic() + 30
        while not told and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [item.state for item in told] == ["released"]
        assert get(service.port, "/healthz")[0] == 200
        assert json.loads(get(service.port, "/readyz")[1]) == {"ready": True, "trouble": ""}
        assert 'coda_trigger_claims_total{source="lab_b"} 1.0' in get(service.port, "/metrics?x=1")[1]
        assert get(service.port, "/else")[0] == 404
    finally:
        service.stop()
        loop.join(20)
    assert not loop.is_alive()


def get_before_start(service):
    return service.page("/readyz")[0]


def test_service_lives_through_a_store_that_is_away(settings, demo_params, monkeypatch):
    monkeypatch.setattr("coda.trigger.server.PAUSE_S", 0.05)
    away = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    trigger = Trigger(away, Immediate(None), params=demo_params)
    monkeypatch.setattr(trigger.ledger.store, "attempts", 1)
    monkeypatch.setattr(trigger.arrivals.landing, "attempts", 1)
    service = TriggerService(trigger)
    loop = threading.Thread(target=service.serve)
    loop.start()
    deadline = time.monotonic() + 30
    while service.health.trouble == "starting" and time.monotonic() < deadline:
        time.sleep(0.02)
    ready, healthy = get(service.port, "/readyz"), get(service.port, "/healthz")
    service.stop()
    loop.join(30)
    assert ready[0] == 503
    assert "the object store does not answer" in ready[1]
    assert healthy[0] == 200


def test_the_end_of_the_output_stands_in_for_a_missing_reason(submitter, tmp_path):
    assert submitter.last_words("never-ran") == ""
    folder = tmp_path / "work" / "run-1"
    folder.mkdir(parents=True)
    (folder / "trigger.txt").write_text("one\n\n" + "\n".join(f"line {number}" for number in range(9)) + "\n")
    assert submitter.last_words("run-1") == "line 5 / line 6 / line 7 / line 8"


def test_what_steps_of_this_machine_wrote_is_scraped_here(settings, demo_params, tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "job.prom").write_text(
        "# HELP coda_fields_accepted Fields.\n# TYPE coda_fields_accepted gauge\ncoda_fields_accepted 7\n"
    )
    here = settings.model_copy(update={"metrics_dir": str(tmp_path / "metrics")})
    service = TriggerService(Trigger(here, Immediate(None), params=demo_params))
    loop = threading.Thread(target=service.serve)
    loop.start()
    status, body = get(service.port, "/metrics")
    service.stop()
    loop.join(30)
    assert status == 200
    assert "coda_fields_accepted 7.0" in body
    assert "coda_trigger_queue_length" in body


def test_pages_are_shown_on_ipv6(settings, demo_params, answers_ipv6):
    if not answers_ipv6:
        pytest.skip("this machine has no ::1")
    service = TriggerService(Trigger(settings, Immediate(None), params=demo_params), host="::1")
    loop = threading.Thread(target=service.serve)
    loop.start()
    try:
        with urllib.request.urlopen(f"http://[::1]:{service.port}/metrics", timeout=10) as answer:
            assert b"coda_trigger_queue_length" in answer.read()
    finally:
        service.stop()
        loop.join(30)


def test_taken_port_is_a_clear_error(settings, demo_params):
    trigger = Trigger(settings, Immediate(None), params=demo_params)
    first = TriggerService(trigger)
    try:
        with pytest.raises(ConfigError, match=f"127.0.0.1:{first.port}"):
            TriggerService(trigger, port=first.port)
    finally:
        first._pages.server_close()


def test_sigterm_gives_the_run_back_and_ends_its_processes(settings, store, demo_params, tmp_path):
    train(settings)
    deliver(ObjectStore(settings.landing, settings.s3_endpoint))
    work = tmp_path / "work"
    program = (
        "import json, sys; from pathlib import Path; from coda.config import Params; "
        "from coda.settings import read_settings; from coda.trigger.server import TriggerService; "
        "from coda.trigger.service import Pace, Trigger; from coda.runners.submit import LocalSubmitter; "
        "s = read_settings(); p = Params.model_validate_json(sys.argv[1]); "
        "t = Trigger(s, LocalSubmitter(s, Path(sys.argv[2]), command=(sys.executable, '-c', sys.argv[3])), params=p, "
        "pace=Pace(tick_s=0.05)); v = TriggerService(t, poll_every_s=0.1); v.stop_on_signals(); v.serve(grace_s=5)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, demo_params.model_dump_json(), str(work), RUN],
        env={**os.environ, **settings.environment},
    )
    ledger = Ledger(store)
    deadline = time.monotonic() + 60
    while not (work / "calls.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    (state,) = ledger.newest()
    assert (state.state, state.attempt) == ("landed", 0)
    assert "stopped" in state.reasons[0]
    assert not LocalSubmitter(settings, work).alive(state.run_id)
