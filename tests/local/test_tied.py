"""What was started for a person to look around ends with the program that started it, however that went."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTER = """
import os, signal, sys, time
from pathlib import Path
from coda.local.tied import end, start
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
child = start([sys.executable, "-c", sys.argv[2]], environment=os.environ, log=Path(sys.argv[1]) / "log")
Path(sys.argv[1], "ready").touch()
time.sleep(600)
"""

SERVER = """
import os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), worker.pid, flush=True)
time.sleep(600)
"""


def until(what):
    for _ in range(1200):
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_children_end_with_their_starter_and_so_do_theirs(number, tmp_path):
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), SERVER], start_new_session=True)
    log = tmp_path / "log"
    pids = [
        int(word) for word in until(lambda: log.exists() and log.read_text().endswith("\n") and log.read_text().split())
    ]
    assert len(pids) == 2
    assert all(map(alive, pids))
    os.kill(starter.pid, number)
    starter.wait()
    until(lambda: not any(map(alive, pids)))


def test_a_program_that_ends_by_itself_gives_its_code(tmp_path):
    from coda.local.tied import end, start

    child = start([sys.executable, "-c", "raise SystemExit(7)"], environment=os.environ, log=tmp_path / "log")
    assert child.wait() == 7
    end(child)
