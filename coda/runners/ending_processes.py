"""Ending processes that this program started, with all they started themselves."""

import os
import signal
import subprocess
from contextlib import suppress


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process that leads its own session, and its children: politely, then for good."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
    # steps may outlive the runner that started them
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
