"""Work that worker processes can import."""

import os
import signal
import time
from pathlib import Path


def double(job):
    return {"value": job.task * 2}


def counted(job):
    path = Path(job.task["log"])
    with path.open("a") as log:
        log.write(f"{job.name}\n")
    if job.task.get("fail"):
        raise ValueError(f"{job.name} is broken")
    if job.task.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if job.task.get("sleep"):
        time.sleep(job.task["sleep"])
    return {"pid": os.getpid()}
