"""The registry on an MLflow server with PostgreSQL, S3 artifacts, passwords and allowed hosts, as a cluster has it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from mlflow_server import ADMIN, PASSWORD, mlflow_server, postgres, postgres_programs
from servers import CREDENTIALS, Moto, moto_server
from tiny_models import bind, tiny, train

from coda.config import Params
from coda.contracts import ReleaseRecord
from coda.errors import ConfigError, IntegrityError
from coda.networks.extractor import load_extractor
from coda.registry import ConflictError, ReleaseLog, describe, fetch, fetch_state, list_versions, promote, rollback
from coda.registry.garbage import collect, find_garbage
from coda.registry.mlflow_client import connect
from coda.registry.verification import verify_registry
from coda.settings import Settings
from coda.storage.data_registry import create_registry
from coda.storage.objects import ObjectStore

pytestmark = pytest.mark.services
__all__ = ["moto_server"]


@pytest.fixture(scope="module")
def s3(moto_server: Moto) -> dict[str, str]:
    """Variables of the object store: Ceph where it runs, else moto."""
    if "CODA_TEST_S3_ENDPOINT" not in os.environ:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": moto_server.endpoint}
    return {
        "AWS_ACCESS_KEY_ID": os.environ["CODA_TEST_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": os.environ["CODA_TEST_S3_SECRET_KEY"],
        "AWS_DEFAULT_REGION": "default",
        "AWS_ENDPOINT_URL_S3": os.environ["CODA_TEST_S3_ENDPOINT"],
    }


@pytest.fixture(scope="module")
def bucket(s3: dict[str, str]) -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        store = ObjectStore(f"s3://registry-{uuid4().hex[:12]}", s3["AWS_ENDPOINT_URL_S3"])
        store.ensure_bucket()
        yield store


@pytest.fixture(scope="module")
def server(bucket: ObjectStore, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: make test-services installs it")
    pytest.importorskip("psycopg2", reason="the extra [postgres] is not installed")
    pytest.importorskip("flask_wtf", reason="the extra [postgres] is not installed")
    with (
        postgres(programs, "mlflow") as database,
        mlflow_server(
            tmp_path_factory.mktemp("mlflow"), database, f"{bucket.uri}/mlflow",
            {**s3, "MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL_S3"]},
        ) as address,
    ):  # fmt: skip
        yield address


@pytest.fixture(scope="module")
def settings(server: str, bucket: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("platform")
    found = Settings(
        landing=f"{bucket.uri}/landing", platform=f"{bucket.uri}/platform", s3_endpoint=bucket.endpoint,
        mlflow_uri=server, data_registry=str(folder / "registry.git"), data_remote=f"{bucket.uri}/dvc",
        checkpoints=str(folder / "checkpoints"),
    )  # fmt: skip
    create_registry(Path(found.data_registry), found.data_remote)
    return found


@pytest.fixture(scope="module")
def record(settings: Settings, demo_params: Params, tmp_path_factory: pytest.TempPathFactory) -> ReleaseRecord:
    return bind(train(tmp_path_factory.mktemp("trained"), tiny(demo_params), seed=1), settings)


def promote_as(settings: Settings, record: ReleaseRecord, after: int) -> bool:
    """In a process of its own: whether this promotion won."""
    try:
        promote(record, "race", by=record.release_id, reason="mine", settings=settings, expected_sequence=after)
    except ConflictError:
        return False
    return True


def test_register_release_fetch_and_roll_back(settings: Settings, record: ReleaseRecord, tmp_path: Path) -> None:
    assert [version.ref for version in list_versions(settings)] == [record.extractor, *record.heads]
    promote(record, "lab_a", by="gate", reason="good", settings=settings)
    promote(record.model_copy(update={"release_id": "rel-2"}), "lab_a", by="Ada", reason="same", settings=settings)
    rollback("lab_a", by="Ada", reason="worse", settings=settings)
    assert ReleaseLog(settings).serving("lab_a") == record
    alias = connect(settings).get_model_version_by_alias("coda-head", "serving-lab_a")
    assert int(alias.version) == record.head.version
    assert "## How to load" in alias.description
    assert fetch_state(record.extractor, tmp_path / "state", settings=settings).is_dir()
    found = verify_registry(settings=settings, everything=True)
    assert (found.versions, found.problems, found.aliases) == (3, (), ())


def test_mlflow_loads_it_where_only_the_password_is_known(
    settings: Settings, record: ReleaseRecord, tmp_path: Path
) -> None:
    """The client has no key of the object store: artifacts come through the server."""
    images = np.random.default_rng(0).normal(size=(1, 3, 48, 48)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, numpy as np, mlflow\n"
        f"model = mlflow.pyfunc.load_model('models:/coda-extractor/{record.extractor.version}')\n"
        "np.save(sys.argv[1] + '/tokens.npy', model.predict(np.load(sys.argv[1] + '/images.npy')))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"MLFLOW_TRACKING_URI": settings.mlflow_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True, cwd=tmp_path)
    network = load_extractor(fetch(record.extractor, tmp_path / "e", settings=settings))
    # the network records bfloat16, and is run in it
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = network(torch.from_numpy(images)).float().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "tokens.npy"), expected, atol=0.05)


def test_of_four_processes_that_promote_one_wins(settings: Settings, record: ReleaseRecord) -> None:
    rivals = [record.model_copy(update={"release_id": f"rival-{number}"}) for number in range(4)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        won = list(pool.map(promote_as, [settings] * 4, rivals, [0] * 4))
    assert won.count(True) == 1
    log = ReleaseLog(settings).history("race")
    assert [entry.release for entry in log] == [rivals[won.index(True)]]
    assert verify_registry(settings=settings).aliases == ()


def test_a_changed_byte_on_s3_is_refused_by_name(
    settings: Settings, record: ReleaseRecord, bucket: ObjectStore, tmp_path: Path
) -> None:
    key = next(item.key for item in bucket.list("mlflow/") if item.key.endswith("package/model/weights.safetensors"))
    whole = bucket.get(key)
    bucket.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = []
    for ref in (record.extractor, *record.heads):
        try:
            fetch(ref, tmp_path / "out", settings=settings)
        except IntegrityError as error:
            refused += [problem.where for problem in error.problems]
    assert len(refused) == 1
    assert refused[0].endswith("/weights.safetensors")
    bucket.put(key, whole)


def test_garbage_leaves_the_object_store(
    settings: Settings, demo_params: Params, bucket: ObjectStore, tmp_path: Path
) -> None:
    before = {item.key for item in bucket.list("mlflow/")}
    lost = bind(train(tmp_path, tiny(demo_params), seed=70), settings, "rel-lost")
    for ref in (lost.extractor, *lost.heads):
        assert describe(ref, settings=settings).ref == ref
    assert len({item.key for item in bucket.list("mlflow/")} - before) > 20
    later = datetime.now(UTC) + timedelta(days=1)
    found = [item for item in find_garbage(settings=settings, before=later) if item.kind == "version"]
    mine = [item for item in found if item.name in {f"{r.name}/{r.version}" for r in (lost.extractor, *lost.heads)}]
    assert len(mine) == 3
    collect(mine, settings=settings, before=later)
    assert {item.key for item in bucket.list("mlflow/")} == before


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(
    settings: Settings, record: ReleaseRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(ConfigError, match=r"(?i)mlflow"):
        list_versions(settings)
    with pytest.raises(ConfigError):
        fetch(record.extractor, tmp_path / "out", settings=settings)


def test_an_unknown_host_is_refused(server: str) -> None:
    for host, status in (("mlflow.example.org", 403), ("localhost", 401)):
        connection = HTTPConnection(server.removeprefix("http://"), timeout=30)
        connection.request("GET", "/api/2.0/mlflow/registered-models/search", headers={"Host": host})
        assert connection.getresponse().status == status
        connection.close()
