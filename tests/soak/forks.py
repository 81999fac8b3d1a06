"""A fork server: `coda pipeline run`, the steps that KFP starts, and DVC, without the seconds of imports each time.

An adaptation of a few tiny plates spends most of its time on starting Python and importing torch, timm, MLflow, Great
Expectations and DVC some fifteen times (decision 0010). Here one process imports them, does nothing else, and
forks a child for every program that would have been started. The programs are the real ones, with their own arguments,
environment, exit codes and process groups: KFP's local runner walks the compiled pipeline as always, and only how it
starts a task is replaced.

The product's local runner does the same for one run (`coda.warm`); this server lives as long as the soak, serves all
its runs, their own program too, and knows no case in which it must not fork.

Run as ``python -m tests.soak.forks SOCKET``; it prints ``ready``, and ends when its standard input does.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.soak.asking import MESSAGE, start

WARM = (
    "coda.cli", "coda.cli.pipeline", "coda.runners.local", "coda.steps.ingest", "coda.steps.archive",
    "coda.steps.validate", "coda.steps.version", "coda.steps.adapt", "coda.steps.judge",
    "coda.steps.register_adaptation", "coda.steps.register_training", "coda.steps.release", "coda.steps.predict",
    "coda.steps.report", "coda.steps.finish", "coda.steps.pretrain", "coda.steps.train_head", "coda.steps.evaluate",
    "coda.trigger.batch_versions", "kfp.dsl.executor_main", "great_expectations", "mlflow",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo", "dvc.cli", "dvc.commands.add", "dvc.commands.data_sync", "dvc.repo",
    "dvc_s3", "s3fs", "aiobotocore.session", "matplotlib.pyplot", "tifffile", "imagecodecs", "zarr", "pyarrow.parquet",
    "sklearn.neighbors",
)  # fmt: skip
"""Modules that the programs import; imported before the first fork."""


@dataclass
class _Running:
    """One child and who asked for it."""

    connection: socket.socket
    group: int
    bound: bool


class ForkServer:
    """Listens on a socket, forks, and tells the end of each child to who asked for it."""

    def __init__(self, address: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(address))
        self._listener.listen(64)
        self._children: dict[int, _Running] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = os.pipe()

    def serve(self) -> None:
        """Serve until standard input ends; then end what still runs."""
        for end in self._bell:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._bell[1])
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell[0], selectors.EVENT_READ, self._reap)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    for child in list(self._children.values()):
                        _kill_group(child.group)
                    return
                key.data()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        body, files, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        if not body:
            connection.close()
            return
        request = json.loads(body)
        pid = os.fork()
        if pid == 0:
            self._close()
            become(request, files)
        for file in files:
            os.close(file)
        group = request["group"] or pid
        with contextlib.suppress(OSError):
            os.setpgid(pid, group)  # in the child too: whoever comes first
        self._children[pid] = _Running(connection, group, request["bound"])
        with contextlib.suppress(OSError):
            connection.send(str(pid).encode())  # who asked may be gone already
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._left(pid))

    def _left(self, pid: int) -> None:
        """The process that asked is gone."""
        child = self._children.get(pid)
        if child is None:
            return  # ended in the same moment
        self._selector.unregister(child.connection)
        if child.bound:
            _kill_group(child.group)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell[0], 4096)
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid)
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.connection)
            with contextlib.suppress(OSError):
                child.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            child.connection.close()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._listener.close()
        for child in self._children.values():
            child.connection.close()
        for end in self._bell:
            os.close(end)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def become(request: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the program of a request, in a fresh fork."""
    code = 1
    try:
        os.setpgid(0, request["group"])
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, buffering=1, encoding="utf-8", errors="replace", closefd=False)
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        tempfile.tempdir = None  # TMPDIR may be another one now
        module, *arguments = request["command"]
        name_this_process(arguments[-1] if module.startswith("kfp") else module)
        sys.argv = [module, *arguments]
        if not hasattr(sys.modules.get(module), "__path__"):
            sys.modules.pop(module, None)  # runpy warns of a module that was imported before it is run
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  as the interpreter does at its end
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def name_this_process(name: str) -> None:
    """Give this process a name of its own in the process table, so that a fault can be aimed at it."""
    Path("/proc/self/comm").write_text(f"soak:{name}"[:15], encoding="utf-8")


def run_task(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Stand in for the runner's `run_step`: same command, environment, output and exit code; a fork of this server.

    Args:
        full_command: ``sh -ec <script> <source of the component> --executor_input ... --function_to_execute ...``.
        env_vars: Variables beyond this process's own.
    """
    source, *arguments = full_command[full_command.index("-ec") + 2 :]
    program = Path(tempfile.mkdtemp()) / "ephemeral_component.py"
    program.write_text(source, encoding="utf-8")
    reader, writer = os.pipe()
    child = start(
        ["kfp.dsl.executor_main", "--component_module_path", str(program), *arguments],
        env={**os.environ, **(env_vars or {}), "_KFP_RUNTIME": "true"}, cwd=str(Path.cwd()), files=(0, writer, writer),
        group=os.getpgid(0),
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader, "r", encoding="utf-8", errors="replace") as output:
        for line in output:
            print(line, end="")  # KFP indents what it prints
    print("\n")
    return child.wait()


def run_program(
    command: list[str], *, cwd: Path, env: dict[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Stand in for `coda.warm.asking.run`, by which a step starts DVC: a fork of this server, however long it takes."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        files = (0, out.fileno(), errors.fileno())
        code = start(command, env=env, cwd=str(cwd), files=files, group=os.getpgid(0)).wait()
        out.seek(0), errors.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), errors.read())


def threads() -> list[str]:
    """Return the names of this process's threads, those of C libraries included."""
    return sorted(path.read_text(encoding="utf-8").strip() for path in Path("/proc/self/task").glob("*/comm"))


def main() -> None:
    """Import everything, put the substitutes in place, and serve."""
    for name in WARM:
        importlib.import_module(name)
    from coda.networks.torchvision_shim import ensure_torchvision
    from coda.runners import local, starting
    from coda.storage import clients
    from coda.warm import asking

    ensure_torchvision()
    importlib.import_module("timm")  # after the shim, as the networks do

    # this server in place of a warm worker of each run: its forks bear names that a fault can be aimed at
    local.worker = lambda *_: contextlib.nullcontext()
    starting.run_step = lambda _, *command: run_task(*command)
    asking.run = run_program
    name_this_process("forks")
    inherited = [name for name in threads() if name not in ("soak:forks", "jemalloc_bg_thd")]
    if inherited or clients._CLIENTS:
        # a fork has only the thread that forked; what others held or waited for is lost in it
        raise SystemExit(f"threads {inherited} and {len(clients._CLIENTS)} clients: a fork would inherit them")
    server = ForkServer(Path(sys.argv[1]))
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, all that it shares with this process
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve()


if __name__ == "__main__":
    main()
