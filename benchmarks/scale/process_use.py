"""What the processes below this one use: memory as they run, processor time once they have ended."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WORKER = b"coda.warm.worker"


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet buried."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (thread / "children").read_text(encoding="ascii").split()]
    return found


def programs(strangers: frozenset[int]) -> Iterator[int]:
    """Yield every process that works for a step: all below this one but warm workers and what was there before.

    Args:
        strangers: Children of this process that have nothing to do with a run.
    """
    for child in children(os.getpid()):
        if child not in strangers:
            if not is_worker(child):
                yield child
            yield from _below(child)


def memory_of(pid: int) -> tuple[int, int]:
    """Return the bytes that a process has in memory now and had at most, zeros when it is gone.

    Pages that it shares with the process it was forked from count as its own.
    """
    rows = _status(pid)
    return _kib(rows, "VmRSS"), _kib(rows, "VmHWM")


def inherited_bytes(strangers: frozenset[int]) -> int:
    """Return the memory that a program forked now would begin with: what the warm worker has imported so far."""
    workers = (child for child in children(os.getpid()) if child not in strangers and is_worker(child))
    return max((_kib(_status(worker), "RssAnon") for worker in workers), default=0)


def ended_cpu_s(strangers: frozenset[int]) -> float:
    """Return the seconds of processor time of all programs that have ended: those of this process and its workers."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime
    for child in children(os.getpid()):
        if child not in strangers:
            with suppress(OSError, ValueError, IndexError):
                words = Path(f"/proc/{child}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
                total += (int(words[13]) + int(words[14])) / TICKS
    return total


def is_worker(pid: int) -> bool:
    """Return whether a child of this process is a warm worker, which imports for all steps and is none."""
    with suppress(OSError):
        return WORKER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def _status(pid: int) -> dict[str, str]:
    """Return what the kernel tells of a process; of one that has ended, nothing of memory."""
    with suppress(OSError):
        rows = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
        return dict(row.split(":", 1) for row in rows if ":" in row)
    return {}


def _kib(rows: dict[str, str], name: str) -> int:
    """Return a row of so many kB in bytes; 0 where it is absent."""
    words = rows.get(name, "").split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else 0


def _below(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from _below(child)
