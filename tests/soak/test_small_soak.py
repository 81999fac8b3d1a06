"""The fork server stands for real programs, and a soak of a few batches works, as does what it watches."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.soak.asking import start
from tests.soak.figures import summary_of, table_of
from tests.soak.soak import Size, Soak
from tests.soak.stage import Stage

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

FAULTS = ("trigger killed", "step killed", "object store unanswered", "events repeated")


@pytest.fixture(scope="module")
def stage():
    # the path of a socket must be short, and pytest's own folders are deep
    with (
        tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder,
        Stage(Path(folder), 1) as it,
    ):
        yield it


def asked(*arguments):
    command = [sys.executable, "-S", "-m", "tests.soak.asking", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_fork_has_the_output_and_the_exit_codes_of_the_real_program(stage):
    answer = asked("ledger", "list", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    # the ledger is empty unless the batches came first: tests run in any order
    assert all(state["source"] for state in json.loads(answer.stdout))
    wrong = asked("pipeline", "run", "adaptation", "--manifest-uri", "s3://x/manifest.json", "--params", "nowhere.yaml")
    assert wrong.returncode == 2
    assert "nowhere.yaml" in wrong.stdout + wrong.stderr


def test_a_fork_has_an_environment_a_folder_and_a_group_of_its_own(stage, tmp_path):
    with (tmp_path / "out").open("w+") as out:
        files = (0, out.fileno(), out.fileno())
        child = start(["http.server", "--help"], env={"PATH": os.environ["PATH"]}, cwd=str(tmp_path), files=files)
        assert os.getpgid(child.pid) == child.pid
        assert child.wait() == 0
        out.seek(0)
        assert "usage" in out.read()


def until(question):
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(stage):
    """A program that does nothing for a long time, in a fork."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        command = ["http.server", "--bind", "127.0.0.1", "0"]
        return start(command, env=os.environ, cwd=str(stage.folder), files=(nothing,) * 3)
    finally:
        os.close(nothing)


def test_a_killed_fork_says_so_and_leaves_the_table_of_processes(stage):
    child = waiting(stage)
    until(lambda: stage.processes().get(child.pid) == "http.serve")  # the table has room for so much of a name
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert child.pid not in stage.processes()


def test_a_run_ends_with_the_process_that_stands_for_it(stage):
    # http.server in place of a run: the stand-in is told which program only by its module
    program = (
        "import os, sys; from tests.soak.asking import start;"
        "child = start(['http.server', '--bind', '127.0.0.1', '0'], env=os.environ, cwd='.',"
        " files=(0, 1, 2), bound=True);"
        "print(child.pid, flush=True); child.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        pid = int(process.stdout.readline())
        process.kill()
    until(lambda: pid not in stage.processes())


def test_a_few_batches_with_faults_each_end_exactly_once(stage):
    stage.train()
    outcome = Soak(stage, Size(batches=5, sources=2, seed=1, limit_s=600, faults=FAULTS)).run()
    summary = summary_of(outcome)
    assert outcome.findings.clean, table_of(outcome)
    # one good batch is sent again changed: six versions, one of them broken
    assert summary["accepted"] == summary["released_once"] >= 4
    assert summary["refused"] >= 1
    assert set(summary["kinds"]) <= set(FAULTS)
    assert summary["kinds"]["trigger killed"] == 1
    assert summary["triggers"] == 2
    assert summary["peak_rss_mib"] > 10
