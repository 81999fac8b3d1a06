"""MLflow as production has it: a server on PostgreSQL, artifacts on S3, basic authentication, allowed hosts."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from servers import free_port

ADMIN, PASSWORD = "coda-admin", "a-password-of-the-tests"


def postgres_programs() -> Path | None:
    """Folder with PostgreSQL's server programs, or none where it is not installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").is_file()), None)


@contextmanager
def postgres(programs: Path, database: str) -> Iterator[str]:
    """Run a fresh server on a free loopback port; yields ``postgresql+psycopg2://user:password@host:port``."""
    import psycopg2

    # below /tmp and not pytest's own folder, which another user may not enter; PostgreSQL refuses to run as root
    work = Path(tempfile.mkdtemp(prefix="coda-postgres-"))
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    port = free_port()
    try:
        (work / "password").write_text(PASSWORD)
        work.chmod(0o755)
        if as_user:
            for path in (work, work / "password"):
                shutil.chown(path, "nobody", "nogroup")
        data = work / "data"
        options = ["-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={work / 'password'}", "--encoding=UTF8"]
        _run([*as_user, programs / "initdb", "-D", data, "--no-sync", *options], work)
        listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={work} -c fsync=off"
        control = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-t", "120"]
        _run([*control, "-l", work / "log", "-o", listen, "start"], work)
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user="mlflow", password=PASSWORD, dbname="postgres"
            )
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{database}"')
            connection.close()
            yield f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{port}"
        finally:
            _run([*control, "-m", "immediate", "stop"], work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def mlflow_server(folder: Path, database: str, artifacts: str, s3: dict[str, str]) -> Iterator[str]:
    """Run an MLflow server as `k8s/base/mlflow.yaml` does; yields its address.

    Args:
        folder: Folder for its configuration and log.
        database: ``postgresql+psycopg2://user:password@host:port``; models and users share its database ``mlflow``.
        artifacts: ``s3://bucket/prefix``.
        s3: Variables with which the server, and nobody else, reaches the object store.
    """
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {database}/mlflow\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=2",
        "--app-name=basic-auth", f"--artifacts-destination={artifacts}", "--allowed-hosts=localhost,localhost:*",
    ]  # fmt: skip
    environment = {
        **os.environ,
        **s3,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": f"{database}/mlflow",
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-of-this-test",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(port, server, log)
        yield f"http://localhost:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _run(command: list[str | Path], work: Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=work)


def _wait(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        connection = HTTPConnection("localhost", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    raise AssertionError(f"MLflow did not start:\n{log.read_text()[-4000:]}")
