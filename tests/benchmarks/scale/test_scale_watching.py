"""What is watched against what programs say of themselves; what is counted against bytes on a disk."""

import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.scale.measured_code import code_digest
from benchmarks.scale.run_figures import Run, by_step, figures_of, kind_of, stored_plates, traffic
from benchmarks.scale.run_watching import Stretch, Watching, bytes_below, bytes_on_disk
from benchmarks.scale.traffic import Metered, Request, read_requests
from coda.local.services import LANDING_BUCKET, EmbeddedServices
from coda.runners.port import RunOutcome
from coda.storage.data_registry import commit_batch
from coda.storage.objects import store_for
from coda.warm.asking import worker

MIB = 2**20


def task(step, inputs=(), outputs=()):
    """The command line of a task as KFP gives it."""
    told = {
        "inputs": {"artifacts": {name: {"artifacts": [{"uri": str(path)}]} for name, path in inputs}},
        "outputs": {"artifacts": {name: {"artifacts": [{"uri": str(path)}]} for name, path in outputs}},
    }
    return ["sh", "-ec", "script", "source", "--executor_input", json.dumps(told), "--function_to_execute", step]


BURN = """
import os, sys, time
if os.fork() == 0:                       # its child counts, and so does what it held
    while time.process_time() < 0.3: pass
    os._exit(0)
os.wait()
"""
HOLD = """
import sys, time
from pathlib import Path
held = b'x' * (300 * 2**20)
while not Path(sys.argv[1]).exists(): time.sleep(0.05)
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Programs as modules of a folder that `python -m` finds them in."""
    for name, text in (("burn", BURN), ("hold", HOLD)):
        (tmp_path / f"{name}_program.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(asker, *command):
    with tempfile.TemporaryFile() as out:
        return asker.start(command, env=dict(os.environ), cwd=Path.cwd(), out=out.fileno(), err=out.fileno())


def test_time_and_memory_of_a_step_are_those_of_its_programs(modules):
    with Watching() as watching, worker(("json",), modules / "log.txt") as asker:
        with watching(task("burn")):
            assert run(asker, "burn_program").wait() == 0
        with watching(task("hold")):
            program = run(asker, "hold_program", "stop")
            for _ in range(600):
                if watching.steps["hold"].peak_bytes > 300 * MIB:
                    break
                time.sleep(0.1)
            Path("stop").touch()
            assert program.wait() == 0
    burn, hold = watching.steps["burn"], watching.steps["hold"]
    assert burn.cpu_s > 0.28, "what a child used and what a fork of the worker used"
    assert 300 * MIB < hold.peak_bytes < 400 * MIB
    assert hold.peak_all_bytes > 300 * MIB > burn.peak_bytes
    assert (burn.tasks, hold.tasks) == (1, 1)


def test_what_is_handed_over_is_what_lies_there(tmp_path):
    given, made = tmp_path / "given", tmp_path / "made"
    (given / "deep").mkdir(parents=True)
    (given / "deep" / "a").write_bytes(b"12345")
    (given / "b.ome.zarr.zip").write_bytes(b"1")
    with Watching() as watching:
        with watching(task("one", [("dataset", given)], [("checked", made), ("metrics", tmp_path / "none")])):
            made.write_bytes(b"123")
        for _ in range(2):
            with watching(task("two", [("dataset", given)])):
                pass
    assert watching.steps["one"].handed == {"dataset": 6}
    assert watching.steps["one"].left == {"checked": 3, "metrics": 0}
    assert [watching.steps[step].stores_bytes for step in ("one", "two")] == [1, 2]
    assert (watching.steps["two"].tasks, watching.steps["two"].handed) == (2, {"dataset": 12})


def test_steps_side_by_side_share_an_entry_and_time_is_never_counted_twice():
    with Watching() as watching:
        with watching(task("a")), watching(task("b")):
            both = time.monotonic()
        between = time.monotonic()
        with watching(task("c")), watching(task("c")):
            third = time.monotonic()
    assert [watching.step_at(moment) for moment in (both, between, third)] == ["a+b", "runner", "c"]
    ends = [(it.began, it.ended) for it in watching.stretches]
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    inside = sum(it.ended - it.began for it in watching.stretches if it.step != "runner")
    assert sum(row.seconds for row in watching.steps.values()) == pytest.approx(inside)
    assert watching.step_at(ends[-1][1] + 1) == "runner"


def test_a_step_that_fails_is_watched_to_its_end():
    with Watching() as watching:
        with pytest.raises(RuntimeError), watching(task("a")):
            raise RuntimeError
        moment = time.monotonic()
    assert watching.step_at(moment) == "runner"


def test_links_are_handed_over_twice_and_kept_once(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert bytes_below(tmp_path) == 10
    assert bytes_on_disk(tmp_path) == 5
    assert bytes_below(tmp_path / "none") == 0


@pytest.fixture
def environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_every_byte_of_the_store_is_counted_dvcs_own_too(environment, tmp_path):
    batch = tmp_path / "batch"
    batch.mkdir()
    sizes = {"p1.ome.zarr.zip": 12 * MIB, "p2.ome.zarr.zip": 1000, "index.parquet": 77}  # the first goes in parts
    for name, size in sizes.items():
        (batch / name).write_bytes(os.urandom(size))
    log = tmp_path / "traffic.jsonl"
    with EmbeddedServices(tmp_path / "services", store=("benchmarks.scale.traffic", "--traffic", str(log))) as services:
        settings = services.settings
        _, place = read_requests(log)
        commit_batch(batch, "lab_b", "b1", settings=settings, run_id="r1")
        asked, place = read_requests(log, since=place)
        platform = store_for(settings.platform, settings)
        written = sum(item.size for item in platform.list("dvc/"))
        store_for(settings.landing, settings).put("a/b", b"123")
        store_for(settings.landing, settings).get("a/b")
        assert sorted(stored_plates("lab_b", "b1", settings).values()) == [1000, 12 * MIB]
        read_requests(log, since=place)
        later, _ = read_requests(log, since=place)
        with Watching() as watching:
            pass
        outcome = RunOutcome("r1", "adaptation", "released", "", None, None, 1.0)
        work = tmp_path / "work"
        (work / "outputs").mkdir(parents=True)
        (work / "outputs" / "x").write_bytes(b"12345")
        found = figures_of(Run(watching, asked, outcome, 1.0, work, LANDING_BUCKET), settings, "lab_b", "b1")
    counted = traffic(asked, settings)
    sent = sum(it.received for it in asked if it.method == "PUT" and it.key.startswith("dvc/"))
    assert sent == written >= sum(sizes.values())
    assert written <= counted["data"]["written_bytes"] < written + 10_000, (
        "and what an upload in parts says of its parts"
    )
    assert counted["raw"] == {"requests": 0, "read_bytes": 0, "written_bytes": 0}
    raw = traffic(later, settings)["raw"]
    assert raw == {"requests": 2, "read_bytes": 3, "written_bytes": 3}
    assert found["moved_bytes"] == sum(
        counted[kind][way] for kind in ("data", "records") for way in ("read_bytes", "written_bytes")
    )
    assert found["stored_bytes"] == 12 * MIB + 1000
    assert found["stored_bytes"] <= found["moved_stores_bytes"] < found["stored_bytes"] + 10_000
    assert (found["left_bytes"], found["left"]) == (5, {"outputs": 5})
    assert found["between_steps"] == counted


def test_requests_belong_to_the_step_that_ran_when_they_came(crowd_settings):
    watching = Watching()
    watching.stretches = [Stretch(0, 1, "runner"), Stretch(1, 2, "ingest"), Stretch(2, 3, "adapt")]
    asked = [Request(at, "GET", "/platform/dvc/files/x", 0, 10) for at in (0.5, 1.0, 1.9, 2.0, 3.0)]
    found = by_step(asked, watching, crowd_settings)
    assert {step: parts["data"]["read_bytes"] for step, parts in found.items()} == {
        "runner": 20, "ingest": 20, "adapt": 10,
    }  # fmt: skip


@pytest.fixture
def crowd_settings():
    from benchmarks.scale.crowd import settings_at

    return settings_at("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/landing/lab/b1/manifest.json", "raw"),
        ("/landing", "raw"),
        ("/platform/dvc/files/md5/ab/cd", "data"),
        ("/platform/dvcx/a", "records"),
        ("/platform/runs/r1/run.json", "records"),
        ("/platform", "records"),
    ],
)
def test_what_a_request_is_about(crowd_settings, path, kind):
    assert kind_of(Request(0.0, "GET", path, 0, 0), crowd_settings) == kind


def asked_of(application, log, **environ):
    told = {"REQUEST_METHOD": "GET", "PATH_INFO": "/b/k", **environ}
    return list(Metered(application, log)(told, lambda *_: None))


def test_a_request_is_written_down_when_it_is_through(tmp_path):
    log = tmp_path / "deep" / "log"
    assert read_requests(log) == ([], 0)
    asked_of(lambda *_: [b"12", b"345"], log)
    asked_of(lambda *_: [b"12"], log, REQUEST_METHOD="HEAD", CONTENT_LENGTH="")
    asked_of(lambda *_: [], log, REQUEST_METHOD="PUT", CONTENT_LENGTH="200", HTTP_X_AMZ_DECODED_CONTENT_LENGTH="150")
    asked_of(lambda *_: [b"1"], log, PATH_INFO="/b/", QUERY_STRING="list-type=2&prefix=dvc%2Ffiles")

    def broken(*_):
        yield b"1234"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asked_of(broken, log)
    found, place = read_requests(log)
    assert [(it.method, it.bucket, it.key, it.received, it.sent) for it in found] == [
        ("GET", "b", "k", 0, 5), ("HEAD", "b", "k", 0, 0), ("PUT", "b", "k", 150, 0), ("GET", "b", "dvc/files", 0, 1),
        ("GET", "b", "k", 0, 4),
    ]  # fmt: skip
    with log.open("a") as file:
        file.write('[1.0, "GET"')  # a line that is being written
    assert read_requests(log, since=place) == ([], place)
    with log.open("a") as file:
        file.write(', "/b/k", 1, 2]\n')
    assert [it.sent for it in read_requests(log, since=place)[0]] == [2]


def test_other_code_is_another_digest(tmp_path):
    package, pipeline = tmp_path / "coda", tmp_path / "adaptation.yaml"
    for name in ("steps/adapt.py", "cli/up.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("a = 1\n")
    pipeline.write_text("spec")
    first = code_digest(package, pipeline)
    (package / "cli" / "up.py").write_text("a = 2\n")
    assert code_digest(package, pipeline) == first, "nothing that is measured"
    (package / "steps" / "adapt.py").write_text("a = 2\n")
    second = code_digest(package, pipeline)
    pipeline.write_text("other")
    assert len({first, second, code_digest(package, pipeline)}) == 3
