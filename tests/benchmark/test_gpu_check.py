"""The GPU check without a GPU: it runs on few packages, records what fails, goes on, and makes up no figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from coda.benchmark.gpu_check import whole_check as check
from coda.benchmark.gpu_check.__main__ import main
from coda.benchmark.gpu_check.check_page import tables_of, write_page
from coda.benchmark.gpu_check.check_plan import FULL, TINY, Item, items_of
from coda.benchmark.gpu_check.check_record import Record, open_record, read_record
from coda.benchmark.gpu_check.made_plate import MadePlate
from coda.benchmark.gpu_check.measurements import Bench
from coda.benchmark.gpu_check.measuring_process import Answer, Setup, Worker
from coda.benchmark.gpu_check.needs import NEEDED
from coda.benchmark.gpu_check.whole_check import Asked, run_check
from coda.errors import ConfigError
from coda.plates.store import encode
from coda.plates.stored import read_fields
from coda.training.blindness import require_blind
from coda.training.images import image_source

QUICK = [item.name for item in items_of(TINY) if not item.options.get("compiled")]

BROUGHT = (
    "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec",  # by torch
    "dateutil", "six",  # by pandas
)  # fmt: skip
HOOK = """
import sys

ALLOWED = frozenset({allowed!r}) | sys.stdlib_module_names


class Only:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        return self.finder.find_spec(name, path, target) if top in ALLOWED or top.startswith("_") else None


sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
"""


def bare(root: Path, folder: Path, *arguments: str, without: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the check where every package but the listed ones is absent, in its own process and in those it starts."""
    allowed = [name for name in (*NEEDED, *BROUGHT, "coda") if name != without]
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK.format(allowed=allowed))
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "coda.benchmark.gpu_check", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tiny_plate(tmp_path_factory):
    return MadePlate(TINY, 32, tmp_path_factory.mktemp("plate"))


def test_the_whole_check_runs_on_the_listed_packages_alone(root, tmp_path):
    only = [part for name in QUICK for part in ("--only", name)]
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), *only]
    done = bare(root, tmp_path / "hook", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(tmp_path / "out" / "gpu_check.json")
    assert {name: item["state"] for name, item in record.items.items()} == dict.fromkeys(QUICK, "measured")
    assert all(item["peaks"]["gpu_bytes"] is None for item in record.items.values())
    page = (tmp_path / "out" / "gpu_check.md").read_text()
    assert "Nothing here was measured on a GPU" in page
    assert "these figures mean nothing" in page
    again = bare(root, tmp_path / "hook", *arguments)
    assert again.returncode == 0
    assert "measured (" not in again.stdout
    assert read_record(tmp_path / "out" / "gpu_check.json").items == record.items


def test_a_missing_package_is_named_before_anything_is_measured(root, tmp_path):
    done = bare(root, tmp_path / "hook", "--out", str(tmp_path / "out"), without="imagecodecs")
    assert done.returncode == 2
    assert "expected imagecodecs (plate stores). Bring its wheel" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_page_of_the_check_lists_every_package(root):
    text = (root / "docs" / "gpu_check.md").read_text()
    assert [distribution for distribution, _ in NEEDED.values() if distribution not in text] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_make_says_so_and_measures_nothing(root, tmp_path):
    command = ["make", "gpu-check", f"PYTHON={sys.executable}", f"ARGS=--out {tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "No GPU is here. Nothing was measured, and nothing is estimated." in done.stderr
    assert "Error 2" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_worker_tells_a_failure_goes_on_and_is_ended_when_late(tmp_path):
    worker = Worker(Setup("tiny", "cpu", tmp_path))
    machine = worker.ask(None, 200)
    assert machine.result["gpu"] is None
    assert len(machine.result["code"]) == 64
    failed = worker.ask(Item("step", "step", 1, {"batch": 0, "images": "device", "compiled": False}), 100)
    assert failed.result is None
    assert "pretrain.batch_size" in failed.error
    measured = worker.ask(Item("feed", "feed", 1, {"batch": 2, "images": "stored"}), 100)
    assert measured.result["samples_per_s"] > 0
    assert 0 < measured.result["decoded_per_sample"] <= 2 + 4 * 2
    assert measured.peaks["host_bytes"] > 50e6
    late = worker.ask(Item("feed", "feed", 1, {"batch": 2, "images": "device"}), 0)
    assert (late.result, late.late) == (None, True)
    worker.end()
    assert not worker._process.is_alive()
    assert "process died" in worker.ask(None, 1).error


def test_memory_and_store_hold_the_same_fields_and_a_store_cut_short_is_written_anew(tiny_plate):
    stored = tiny_plate.stored
    assert len(stored) == TINY.fields == len(set(tiny_plate.table["image_id"]))
    assert np.array_equal(read_fields(stored).images, tiny_plate.memory.images)
    assert len({place.sha256 for place in stored.places}) == TINY.fields
    require_blind(stored.table)
    (tiny_plate._folder / "places.json").unlink()
    stored.places[0].store.write_bytes(b"half")
    anew = MadePlate(TINY, 32, tiny_plate._folder.parent)
    assert np.array_equal(read_fields(anew.stored).images, tiny_plate.memory.images)


def test_a_made_field_shrinks_as_a_real_one(tmp_path):
    field = MadePlate(FULL, 448, tmp_path).field(1234)
    assert 0.76 < len(encode(field)) / field.nbytes < 0.86  # decision 0048: 0.78 to 0.79, simulated to 0.86


def test_each_measurement_has_images_of_its_own_so_that_host_means_host(tmp_path):
    bench = Bench(TINY, "cpu", tmp_path)
    away = torch.device("meta")
    kept = bench._fields("device")
    assert image_source(kept, away, "device")._images.device == away
    assert image_source(bench._fields("host"), away, "host")._images.device.type == "cpu"


def asked(folder, **changes):
    return Asked(**{"out": folder, "work": folder / "work", "device": "cpu", "size": "tiny", "minutes": 8.0, **changes})


A_CARD = {
    "has_gpu": True, "gpu": "a card", "torch": "2.11", "cuda": "13", "code": "c" * 64, "cpu": "a cpu", "cores": 2,
    "load": 0.0,
}  # fmt: skip


class Scripted:
    """A worker whose answers are made up, item by item."""

    def __init__(self, setup):
        type(self).started += 1

    def ask(self, item, seconds):
        if item is None:
            return Answer(self.machine, "", 0.0, {})
        self.asked.append(item.name)
        found = self.answers.get(item.name, {"samples_per_s": 1.0})
        return found if isinstance(found, Answer) else Answer(found, "", 1.0, {"gpu_bytes": 2**30})

    def end(self):
        pass


@pytest.fixture
def scripted(monkeypatch):
    kind = type("Now", (Scripted,), {"answers": {}, "asked": [], "started": 0, "machine": dict(A_CARD)})
    monkeypatch.setattr(check, "Worker", kind)
    monkeypatch.setattr(check, "tables_of", lambda record: [])
    return kind


def test_what_fails_is_recorded_the_others_go_on_and_a_second_call_tries_it_last(scripted, tmp_path):
    scripted.answers["step-2"] = Answer(None, "OutOfMemoryError: CUDA out of memory", 3.0, {"gpu_bytes": 5})
    record, names = run_check(asked(tmp_path), lambda words: None)
    assert scripted.asked == names == [item.name for item in items_of(TINY)]
    assert record.failed("step-2")
    assert all(record.measured(name) for name in names if name != "step-2")
    assert scripted.started == 2  # its process was ended, and another went on
    kept = json.loads((tmp_path / "gpu_check.json").read_text())["items"]["step-2"]
    assert kept["error"] == "OutOfMemoryError: CUDA out of memory"
    assert kept["peaks"] == {"gpu_bytes": 5}
    scripted.asked.clear()
    scripted.answers.clear()
    record, _ = run_check(asked(tmp_path), lambda words: None)
    assert scripted.asked == ["step-2"]
    assert record.measured("step-2")


def test_each_is_written_as_it_ends(scripted, tmp_path):
    def ask(self, item, seconds):
        if item is not None and item.name == "step-2":
            raise KeyboardInterrupt
        return Scripted.ask(self, item, seconds)

    scripted.ask = ask
    with pytest.raises(KeyboardInterrupt):
        run_check(asked(tmp_path), lambda words: None)
    assert list(read_record(tmp_path / "gpu_check.json").items) == ["matrix", "plate"]


def test_the_limit_of_minutes_holds_and_what_it_cuts_off_did_not_fail(scripted, tmp_path):
    record, names = run_check(asked(tmp_path, minutes=0.3), lambda words: None)
    assert (scripted.asked, record.items) == ([], {})
    scripted.answers["plate"] = Answer(None, "not finished", 40.0, {}, late=True)
    record, _ = run_check(asked(tmp_path, minutes=1.0), lambda words: None)  # less than the plate's budget
    assert list(record.items) == ["matrix"]
    record, _ = run_check(asked(tmp_path), lambda words: None)
    assert record.failed("plate")
    assert scripted.asked[-1] == names[-1]


@pytest.mark.parametrize(("changed", "told"), [("torch", "torch"), ("code", "code"), ("gpu", "device")])
def test_a_record_of_another_machine_torch_or_code_is_kept_aside(scripted, tmp_path, changed, told):
    run_check(asked(tmp_path, only=["matrix"]), lambda words: None)
    scripted.machine[changed] = "another"
    said = []
    record, _ = run_check(asked(tmp_path, only=["matrix"]), said.append)
    assert scripted.asked == ["matrix", "matrix"]
    assert said[0] == f"An earlier record differs in {told}; it is kept as gpu_check-before-1.json."
    assert read_record(tmp_path / "gpu_check-before-1.json").key != record.key


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"version": 1, "key": 1}', '{"version": 1}'])
def test_a_file_that_is_no_record_is_left_alone(tmp_path, content):
    path = tmp_path / "gpu_check.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_record(path, {}, {}, [])
    assert path.read_text() == content


def test_exit_codes(scripted, tmp_path, capsys):
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path)]
    assert main([*arguments, "--minutes", "0.1"]) == 75
    scripted.answers["decode"] = Answer(None, "a failure", 1.0, {})
    assert main(arguments) == 1
    assert main([*arguments, "--only", "step-*"]) == 0
    assert main([*arguments, "--only", "stp"]) == 2
    assert "Name one of them" in capsys.readouterr().err


def record_of_a_card() -> Record:
    step = {"batch": 128, "images": "device", "compiled": False, "samples_per_s": 2900.0, "best": 3000.0,
            "turns": [2800.0, 2900.0, 3000.0], "flops_per_sample": 1e11, "first_s": 2.0}  # fmt: skip
    results = {
        "matrix": {"flops": 8e14, "dtype": "bfloat16", "side": 8192},
        "plate": {"store_bytes": 80, "pixel_bytes": 100},
        "step-128": step,
        "step-256": {**step, "batch": 256},
        "feed-device": {"images": "device", "batch": 128, "samples_per_s": 50e3, "best": 60e3},
        "decode": {"field_bytes": 10**6, "threads": 16, "fields_per_s_one_thread": 600.0,
                   "fields_per_s_all_threads": 8000.0},
    }  # fmt: skip
    items = {
        name: {"state": "measured", "seconds": 1.0, "budget_s": 2.0, "peaks": {"gpu_bytes": 3 * 2**30}, "error": "",
               "result": result}
        for name, result in results.items()
    }  # fmt: skip
    items["step-512"] = {
        "state": "failed",
        "seconds": 1.0,
        "budget_s": 2.0,
        "peaks": {},
        "error": "a|b",
        "result": None,
    }
    machine = {**A_CARD, "gpu_bytes": 141 * 2**30, "multiprocessors": 132}
    planned = [item.name for item in items_of(FULL)]
    return Record({"device": "a card", "size": "full", "code": "c" * 64}, machine, planned, items)


def test_tables_by_hand_and_nothing_that_was_not_measured(tmp_path):
    record = record_of_a_card()
    tables = {table["name"]: table["rows"] for table in tables_of(record)}
    first, second = tables["step"]
    assert first["utilisation"] == pytest.approx(3000 * 1e11 / 8e14)
    assert first["views_share"] == pytest.approx(3000 / 60e3)
    assert first["peak_GiB"] == 3
    assert second["views_share"] is None  # no views of its batch size were measured
    one, every = tables["decode"]
    assert one["cores_for_3000_samples_per_s"] == pytest.approx(3000 * 2 / 600)
    assert every["cores_for_3000_samples_per_s"] == pytest.approx(3000 * 2 / (8000 / 16))
    assert (one["MB_per_s"], one["stored_over_pixels"]) == (600, 0.8)
    assert "adaptation" not in tables
    page = write_page(tmp_path, record, tables_of(record)).read_text()
    assert "Nothing here was measured on a GPU" not in page
    assert "| step-512 | failed | 1 | 2 | – | – | – | a\\|b |" in page
    assert "| adaptation | not measured | – |" in page
    del record.items["matrix"]
    assert {row["utilisation"] for row in {t["name"]: t["rows"] for t in tables_of(record)}["step"]} == {None}


def test_a_page_is_rendered_from_its_record_alone(tmp_path, capsys):
    record = record_of_a_card()
    record.write(tmp_path / "gpu_check.json", tables_of(record))
    assert main(["--render", str(tmp_path / "gpu_check.json")]) == 0
    assert (tmp_path / "gpu_check.md").read_text() == write_page(tmp_path, record, tables_of(record)).read_text()
    assert main(["--render", str(tmp_path / "absent.json")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_every_measurement_has_a_budget_and_they_are_named_once():
    for size in (FULL, TINY):
        items = items_of(size)
        assert len({item.name for item in items}) == len(items)
        assert all(0 < item.budget_s < 8 * 60 for item in items)
    assert FULL.fields == 3456
