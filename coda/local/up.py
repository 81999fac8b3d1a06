"""The demo's stack kept running to explore: object store, MLflow UI, metrics endpoint, trigger."""

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from coda.config import Params
from coda.errors import CodaError, Problem
from coda.local.environment import script
from coda.local.services import EmbeddedServices, free_port
from coda.local.tied import end, start


def keep_up(folder: Path, params: Params, console: Console) -> None:
    """Start everything, print the addresses, and stop cleanly on KeyboardInterrupt.

    However this process ends, what it started ends with it.

    Args:
        folder: State of a demo, finished or not; an empty folder gives an empty stack.
        params: Parameters that arriving batches are adapted with.
        console: Where the addresses go.
    """
    with EmbeddedServices(folder / "services", images=folder / "plates") as services:
        work = folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        chosen = work / "params.yaml"
        chosen.write_text(params.model_dump_json(indent=2), encoding="utf-8")  # JSON is YAML
        mlflow_port, trigger_port = free_port(), free_port()
        processes = []
        try:
            processes.append(_mlflow(services, mlflow_port, folder))
            processes.append(_trigger(services, trigger_port, chosen, work, folder))
            _print_addresses(services, mlflow_port, trigger_port, folder, console)
            while all(process.poll() is None for process in processes):
                time.sleep(1.0)
            ended = next(process for process in processes if process.poll() is not None)
            found = f"a service that ended by itself (exit {ended.returncode})"
            problem = Problem("the local stack", found, "services that run until Ctrl-C", f"Read {folder}/*.log.")
            raise CodaError("The stack is stopped.", [problem])
        except KeyboardInterrupt:
            _tell(console, "Stopping ...")
        finally:
            for process in reversed(processes):
                end(process)
    _tell(console, "Everything is stopped; the state is kept. `make up` starts it again, `make clean` forgets it.")


def _tell(console: Console, text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        console.print(text)


def _mlflow(services: EmbeddedServices, port: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # mlflow starts uvicorn from its own environment's programs
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", services.settings.mlflow_uri]
    command += ["--default-artifact-root", str(services.settings.mlflow_artifacts), "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return start(command, environment=environment, log=folder / "mlflow.log")


def _trigger(services: EmbeddedServices, port: int, params: Path, work: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "coda", "trigger", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--params", str(params), "--work", str(work)]
    return start(command, environment={**os.environ, **services.environment}, log=folder / "trigger.log")


def _print_addresses(
    services: EmbeddedServices, mlflow_port: int, trigger_port: int, folder: Path, console: Console
) -> None:
    settings = services.settings
    console.print(f"Look here                http://127.0.0.1:{trigger_port}/   batches, drift, controls, models")
    console.print(f"Object store (S3, SQS)   {settings.s3_endpoint}   buckets coda-landing, coda-platform")
    console.print(f"MLflow                   http://127.0.0.1:{mlflow_port}")
    console.print(f"Metrics                  http://127.0.0.1:{trigger_port}/metrics")
    console.print(f"Trigger                  http://127.0.0.1:{trigger_port}/readyz, watching {settings.landing}")
    console.print(f"Logs                     {folder}/*.log")
    path = folder / "environment.sh"
    # the keys open nothing but the embedded store on loopback, which accepts any
    path.write_text(script(services.environment), encoding="utf-8")
    path.chmod(0o600)
    console.print(f"\nIn another terminal:     source {shlex.quote(str(path))}", soft_wrap=True)
    console.print("                         coda registry list; coda ledger list")
    console.print("Drop a batch:            coda simulate batch /tmp/new --lab lab_c --first 9")
    console.print("                         coda data deliver /tmp/new/lab_c/batch_09", soft_wrap=True)
    console.print("\nCtrl-C stops everything.")
