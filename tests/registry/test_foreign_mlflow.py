"""What answers in place of MLflow, or is MLflow of another version: the operator's, and never an empty registry."""

import sqlite3
from contextlib import closing

import pytest
from strangers import ANSWERS, stranger

from coda.errors import ConfigError, ServiceRefusedError, TransientError
from coda.registry import list_versions
from coda.registry.mlflow_client import connect, experiment_id


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
