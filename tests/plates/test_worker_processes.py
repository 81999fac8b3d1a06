"""Worker processes: results in order, and none that outlives the process it works for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coda.errors import CodaError
from coda.plates.workers import Workers

PARENT = """
import os, sys, time
from coda.plates.workers import Workers
if __name__ == "__main__":
    with Workers(2) as workers:
        pids = set()
        for pid in workers.map(work, range(40)):
            pids.add(pid)
            print(pid, flush=True)
        time.sleep(600)
"""
WORK = """
import os, time
def work(number):
    time.sleep(0.05)
    return os.getpid()
"""


def fail(number):
    os.kill(os.getpid(), signal.SIGKILL)


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    (tmp_path / "working.py").write_text(WORK)
    program = tmp_path / "parent.py"
    program.write_text(PARENT.replace("import os, sys, time", "import sys, time\nfrom working import work"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(40)}
    try:
        assert all(alive(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("worker processes are left")


def test_a_worker_that_dies_is_told():
    with Workers(2) as workers, pytest.raises(CodaError, match="lost a worker process"):
        list(workers.map(fail, range(4)))


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_tasks(count):
    with Workers(count) as workers:
        assert list(workers.map(abs, range(-20, 0))) == list(range(20, 0, -1))
