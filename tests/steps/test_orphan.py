"""A step whose runner is killed is stopped, with the time to save its work."""

import os
import signal
import subprocess
import sys
import time

STEP = """
import pathlib, signal, sys, time
from coda.steps.orphan import end_with_runner

def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("asked to stop")
    raise SystemExit(75)

signal.signal(signal.SIGTERM, stop)
end_with_runner()
pathlib.Path(sys.argv[2]).write_text("started")
time.sleep(60)
"""

RUNNER = """
import os, subprocess, sys, time
os.environ["CODA_RUNNER_PID"] = str(os.getpid())
# a shell between, as KFP's runner has it
subprocess.Popen(["sh", "-c", '"$0" -c "$1" "$2" "$3"', sys.executable, sys.argv[1], sys.argv[2], sys.argv[3]])
time.sleep(60)
"""


def wait_for(path, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.exists()


def test_a_step_ends_with_its_runner(tmp_path):
    stopped, started = tmp_path / "stopped", tmp_path / "started"
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, STEP, str(stopped), str(started)])
    assert wait_for(started)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    assert wait_for(stopped), "the step went on without its runner"
