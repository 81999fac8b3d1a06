"""A step of this machine ends when the process that runs its pipeline is gone, however that process went.

KFP starts steps as grandchildren; when the runner is killed nobody would stop them, and a training step would hold the
machine for hours. The step is asked to stop with SIGTERM, so that training saves its checkpoint first.
"""

import os
import signal
import threading
import time
from pathlib import Path

RUNNER_PID = "CODA_RUNNER_PID"
"""Variable with the process number of the runner; set by the local runner alone."""

INTERVAL_S = 1.0
GRACE_S = 20.0


def end_with_runner() -> None:
    """Watch the runner from a background thread, where there is one on this machine."""
    number = os.environ.get(RUNNER_PID)
    if number and int(number) != os.getpid():
        runner = int(number)
        threading.Thread(target=_watch, args=(runner, _birth(runner)), name="runner-watch", daemon=True).start()


def _watch(runner: int, birth: str) -> None:
    while _alive(runner) and _birth(runner) == birth:
        time.sleep(INTERVAL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(75)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _birth(pid: int) -> str:
    # process numbers are used again; on Linux the start time tells one bearer of a number from the next
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
