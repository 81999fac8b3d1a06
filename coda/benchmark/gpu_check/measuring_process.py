"""The process that measures: one that fails, hangs or loses its device is ended, and another takes its place."""

import gc
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from coda.benchmark.gpu_check.check_plan import SIZES, Item
from coda.benchmark.job_processes import end_with_parent

MOST_WORDS, LET_GO_S = 600, 10.0
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Setup:
    """What a worker is started with: name of the size, device, folder of the plate store."""

    size: str
    device: str
    work: Path


@dataclass(frozen=True)
class Answer:
    """What became of one measurement.

    Attributes:
        result: Its numbers; None when there are none.
        error: Why not.
        seconds: Wall time.
        peaks: Largest memory while it was measured: 'gpu_bytes' and 'gpu_reserved_bytes' of the card (None on a CPU),
            'host_bytes' of the process (None where the system does not tell).
        late: Whether it was ended for lack of time.
    """

    result: dict[str, Any] | None
    error: str
    seconds: float
    peaks: dict[str, int | None]
    late: bool = False


class Worker:
    """A measuring process, and the connection to it."""

    def __init__(self, setup: Setup) -> None:
        """Start it; `ask` waits until it is ready."""
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._busy = False
        self._process = context.Process(target=_serve, args=(theirs, setup))
        self._process.start()
        theirs.close()

    def ask(self, item: Item | None, seconds: float) -> Answer:
        """Have one thing measured; None, which comes first, asks what the machine is.

        A worker whose answer holds an error must be ended: its device may be out of order.

        Args:
            item: The measurement.
            seconds: Time it has.
        """
        started, self._busy = time.perf_counter(), True
        try:
            self._connection.send(item)
            if not self._connection.poll(seconds):
                words = f"not finished after {seconds:.0f} s; it was ended"
                return Answer(None, words, time.perf_counter() - started, {}, late=True)
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            self.end()
            words = f"its process died (exit code {self._process.exitcode}); check free memory"
            return Answer(None, words, time.perf_counter() - started, {})
        self._busy = False
        return answer

    def end(self) -> None:
        """End the process and those it started (compilers): one that waits is let go, one that works is killed."""
        self._connection.close()
        self._process.join(0 if self._busy else LET_GO_S)
        if self._process.is_alive() and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()  # had it no group of its own yet
        self._process.join()


def _serve(connection: "Connection[Any, Any]", setup: Setup) -> None:
    os.setpgid(0, 0)
    threading.Thread(target=end_with_parent, daemon=True).start()
    bench: Any = None
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        started, host = time.perf_counter(), False
        try:
            if item is None:
                result, bench = _ready(setup)
            else:
                host = _forget_peaks(setup.device)
                started = time.perf_counter()
                result = bench.measure(item)
            answer = Answer(result, "", time.perf_counter() - started, _peaks(setup.device, host=host))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer, and the others go on
            words = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_WORDS]
            peaks: dict[str, int | None] = {}
            with suppress(Exception):  # a device out of order must not hide why
                peaks = _peaks(setup.device, host=host)
            answer = Answer(None, words, time.perf_counter() - started, peaks)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(answer)


def _ready(setup: Setup) -> tuple[dict[str, Any], Any]:
    """Return what the machine is, and what is measured with: all imports are done before any clock starts."""
    import torch

    from coda.benchmark.machine import describe_machine
    from coda.benchmark.sources import sources_digest
    from coda.config.load import shipped_params
    from coda.contracts.base import digest_of_json

    has_gpu = torch.cuda.is_available()
    found: dict[str, Any] = {"has_gpu": has_gpu, "torch": torch.__version__, "cuda": torch.version.cuda}
    if setup.device == "cuda" and not has_gpu:
        return found, None
    device = torch.device(setup.device)
    found |= asdict(describe_machine(device))
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"gpu_bytes": card.total_memory, "multiprocessors": card.multi_processor_count}
    texts = [path.read_text(encoding="utf-8") for path in shipped_params().values()]
    found["code"] = digest_of_json([sources_digest("coda.benchmark.gpu_check.measurements"), texts])
    from coda.benchmark.gpu_check.measurements import Bench

    return found, Bench(SIZES[setup.size], setup.device, setup.work)


def _forget_peaks(device: str) -> bool:
    """Begin anew with the peaks; return whether the system forgot the process's own."""
    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        FORGET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peaks(device: str, *, host: bool) -> dict[str, int | None]:
    import torch

    on_card = device == "cuda" and torch.cuda.is_available()
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines() if host else []
    return {
        "gpu_bytes": torch.cuda.max_memory_allocated() if on_card else None,
        "gpu_reserved_bytes": torch.cuda.max_memory_reserved() if on_card else None,
        "host_bytes": next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None),
    }
