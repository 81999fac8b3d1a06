"""Work that worker processes can import."""

import os
import signal
import time
from pathlib import Path


def double(cell):
    return {"value": cell.task * 2}


def counted(cell):
    path = Path(cell.task["log"])
    with path.open("a") as log:
        log.write(f"{cell.name}\n")
    if cell.task.get("fail"):
        raise ValueError(f"{cell.name} is broken")
    if cell.task.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if cell.task.get("sleep"):
        time.sleep(cell.task["sleep"])
    return {"pid": os.getpid()}
