"""What answers in place of MLflow, or is MLflow of another version: the operator's, and never an empty registry."""

import sqlite3
from contextlib import closing

import pytest
from strangers import ANSWERS, stranger

from coda.errors import ConfigError, ServiceRefusedError, TransientError
from coda.registry import list_versions
from coda.registry.mlflow_client import connect, experiment_id, explained


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Ask a server that fails once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.mark.parametrize("case", [*ANSWERS, "a stranger's object"])
def test_an_answer_is_judged_by_its_shape(case, moto_server, tmp_path):
    status, kind, body, operator = ANSWERS.get(case, (200, "application/json", '{"hello": 1}', True))
    with stranger(status, kind, body) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        settings = moto_server.settings(tmp_path).model_copy(update={"mlflow_uri": address})
        with pytest.raises(ServiceRefusedError if operator else TransientError) as caught:
            list_versions(settings)
    assert address in str(caught.value)
    assert caught.value.exit_code == (2 if operator else 75)


def test_a_database_of_another_mlflow_is_the_operators(moto_server, tmp_path):
    settings = moto_server.settings(tmp_path)
    experiment_id(connect(settings), settings)
    other = tmp_path / "other.db"
    other.write_bytes((tmp_path / "mlflow.db").read_bytes())
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("update alembic_version set version_num = '0000deadbeef'")
    with pytest.raises(ServiceRefusedError, match="mlflow db upgrade"):
        connect(settings.model_copy(update={"mlflow_uri": f"sqlite:///{other}"}))


def test_an_address_that_is_none_is_the_operators(moto_server, tmp_path):
    for address in ("sqlite:/x", "http://[::1", "gopher://x"):
        with pytest.raises(ConfigError):
            list_versions(moto_server.settings(tmp_path).model_copy(update={"mlflow_uri": address}))


@pytest.fixture
def database(moto_server, tmp_path):
    """Settings with a database of MLflow's own, and the file."""
    settings = moto_server.settings(tmp_path)
    experiment_id(connect(settings), settings)
    return settings, tmp_path / "mlflow.db"


def elsewhere(settings, address):
    return settings.model_copy(update={"mlflow_uri": address})


@pytest.mark.parametrize(
    "change",
    ["drop table registered_models", "alter table registered_models rename column description to words",
     "drop table alembic_version"],
)  # fmt: skip
def test_a_database_that_lacks_something_is_no_outage(change, database, tmp_path, capfd):
    settings, whole = database
    other = tmp_path / "other.db"
    other.write_bytes(whole.read_bytes())
    with closing(sqlite3.connect(other)) as changed, changed:
        changed.execute(change)
    with pytest.raises(ServiceRefusedError, match="mlflow db upgrade"):
        list_versions(elsewhere(settings, f"sqlite:///{other}"))
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_no_database_is_the_operators(database, tmp_path):
    settings, _ = database
    page = tmp_path / "page.db"
    page.write_text("<html>" * 100)
    addresses = [
        f"sqlite:///{page}", f"sqlite:///{tmp_path}", "sqlite:////proc/nothing/mlflow.db", f"sqlite:///{page}/a.db",
        "mssql://user:hunter22@host/db", "postgresql+nothing://u:hunter22@host/db", "http://", "http://ho st:1",
        "https://host:99999",
    ]  # fmt: skip
    for address in addresses:
        with pytest.raises(ServiceRefusedError, match="MLFLOW_TRACKING_URI") as caught:
            list_versions(elsewhere(settings, address))
        assert "hunter22" not in str(caught.value), address


def test_a_database_that_is_locked_is_an_outage(database):
    settings, file = database
    with closing(sqlite3.connect(file)) as other:
        other.execute("begin exclusive")
        with pytest.raises(TransientError, match="locked"):
            list_versions(settings)


@pytest.mark.parametrize(
    ("words", "operator"),
    [
        ('FATAL:  password authentication failed for user "mlflow"', True),
        ('FATAL:  database "mlflow" does not exist', True),
        ("(1045, \"Access denied for user 'mlflow'@'10.0.0.1' (using password: YES)\")", True),
        ("permission denied for table experiments", True),
        ("attempt to write a readonly database", True),
        ("connection to server at 10.0.0.1, port 5432 failed: Connection refused", False),
        ("FATAL:  sorry, too many clients already", False),
        ("FATAL:  the database system is starting up", False),
        ("server closed the connection unexpectedly", False),
        ("disk I/O error", False),
    ],
)
def test_one_class_of_error_has_two_meanings(words, operator, moto_server, tmp_path):
    from sqlalchemy.exc import OperationalError

    with (
        pytest.raises(ServiceRefusedError if operator else TransientError),
        explained("look", moto_server.settings(tmp_path)),
    ):
        raise OperationalError("SELECT 1", None, Exception(words))
