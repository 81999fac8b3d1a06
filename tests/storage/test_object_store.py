"""ObjectStore against moto: an independent implementation of S3 answers."""

import pickle  # noqa: TID251 (the bytes are this test's own)
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.s3.models import s3_backends
from servers import Moto

from coda.errors import ConfigError, ContractError
from coda.storage import ObjectNotFoundError, ObjectStore, locate, split_uri
from coda.storage.bulk import upload_folder
from coda.storage.objects import WHOLE_BYTES


@pytest.fixture
def store(moto_server: Moto) -> ObjectStore:
    bucket = moto_server.bucket()
    return ObjectStore(f"{bucket.uri}/some/prefix", moto_server.endpoint)


def raw_client(store: ObjectStore):
    return boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1")


def test_bytes_come_back_and_lie_below_the_prefix(store: ObjectStore) -> None:
    store.put("a/b.json", b"{}", content_type="application/json")
    seen = raw_client(store).get_object(Bucket=store.bucket, Key="some/prefix/a/b.json")
    assert seen["Body"].read() == b"{}"
    assert seen["ContentType"] == "application/json"
    assert store.get("a/b.json") == b"{}"
    assert store.size("a/b.json") == 2
    assert store.url("a/b.json") == f"s3://{store.bucket}/some/prefix/a/b.json"


def test_an_absent_object(store: ObjectStore) -> None:
    assert store.find("none") is None
    assert store.size("none") is None
    assert not store.exists("none")
    with pytest.raises(ObjectNotFoundError, match="some/prefix/none"):
        store.get("none")
    with pytest.raises(ObjectNotFoundError):
        store.download("none", Path("never-written"))
    assert not Path("never-written").exists()
    store.delete("none")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=40
    ).filter(lambda key: not key.startswith("/") and "//" not in key and not key.endswith("/") and
             not {".", ".."} & set(key.split("/"))),
    content=st.binary(max_size=100),
)  # fmt: skip
def test_any_key_is_listed_as_it_was_written(store: ObjectStore, key: str, content: bytes) -> None:
    store.put(key, content)
    assert [info.key for info in store.list()] == [key]
    assert store.get(key) == content
    store.delete(key)
    assert not store.exists(key)


def test_listing_is_whole_sorted_and_confined(store: ObjectStore, moto_server: Moto) -> None:
    names = [f"x/{number:04d} ü+%.txt" for number in range(1100)]  # more than one page
    for name in names:  # straight into moto's memory: a thousand requests would take seconds
        s3_backends["123456789012"]["aws"].put_object(store.bucket, f"some/prefix/{name}", b"1")
    ObjectStore(f"s3://{store.bucket}/some/prefix-other", moto_server.endpoint).put("x/no", b"1")
    assert [info.key for info in store.list("x/")] == names
    info = next(store.list("x/0001"))
    assert (info.size, info.modified.tzinfo is not None) == (1, True)
    store.put("y/z/1", b"1")
    assert list(store.folders()) == ["x", "y"]
    assert list(store.folders("y/")) == ["z"]


def test_of_forty_writers_one_creates(store: ObjectStore) -> None:
    with ThreadPoolExecutor(40) as pool:
        won = list(pool.map(lambda number: store.put_if_absent("claim", str(number).encode()), range(40)))
    assert sum(won) == 1
    assert store.get("claim") == str(won.index(True)).encode()


def test_a_store_can_be_sent_to_another_process(store: ObjectStore) -> None:
    store.put("k", b"v")
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert copy.get("k") == b"v"
    assert copy.uri == store.uri


def test_large_files_travel_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * (WHOLE_BYTES // 256) + b"end"
    (tmp_path / "big").write_bytes(content)
    store.upload(tmp_path / "big", "big")
    assert store.download("big", tmp_path / "sub" / "back").read_bytes() == content
    assert "-" in next(store.list("big")).etag  # S3 marks the tag of an object that came in parts


def test_a_folder_travels_whole_and_its_manifest_last(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "batch"
    for number in range(20):
        path = folder / f"plate {number % 3}" / f"ü{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    (folder / "manifest.json").write_text("{}")
    order: list[str] = []
    upload = store.upload

    def noted(path: Path, key: str, content_type: str = "") -> None:
        upload(path, key, content_type)
        order.append(key)

    store.upload = noted  # type: ignore[method-assign]
    seen: list[tuple[int, int]] = []
    count = store.upload_folder(folder, "src/b 1", progress=lambda done, total: seen.append((done, total)))
    assert count == 21
    assert order[-1] == "src/b 1/manifest.json"
    assert seen[-1] == (21, 21)
    files = store.download_folder("src/b 1", tmp_path / "back")
    assert sorted(path.relative_to(tmp_path / "back") for path in files) == sorted(
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file()
    )


def test_files_that_stay_are_not_sent(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("a.tif", "b.csv", "manifest.json"):
        (tmp_path / name).write_bytes(b"x")
    assert upload_folder(store, tmp_path, "b", last=("manifest.json",), workers=2, leave=(".tif",)) == 2
    assert sorted(item.key for item in store.list("b/")) == ["b/b.csv", "b/manifest.json"]


def test_a_failed_file_keeps_the_manifest_back(store: ObjectStore, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.tif").write_bytes(b"x")
    (tmp_path / "manifest.json").write_text("{}")
    upload = store.upload

    def failing(path: Path, key: str, content_type: str = "") -> None:
        if path.name == "3.tif":
            raise ConfigError("no")
        upload(path, key, content_type)

    store.upload = failing  # type: ignore[method-assign]
    with pytest.raises(ConfigError):
        store.upload_folder(tmp_path, "b")
    assert not store.exists("b/manifest.json")


def test_keys_that_leave_the_folder_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    raw_client(store).put_object(Bucket=store.bucket, Key="some/prefix/b/../../evil", Body=b"x")
    with pytest.raises(ContractError, match="evil"):
        store.download_folder("b", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("uri", ["http://b/k", "s3://", "s3:///key", "bucket/key", ""])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        split_uri(uri)


def test_addresses_are_split(moto_server: Moto, tmp_path: Path) -> None:
    assert split_uri("s3://b/x/y/") == ("b", "x/y")
    assert split_uri("s3://b") == ("b", "")
    store, name = locate("s3://b/x/manifest.json", moto_server.settings(tmp_path))
    assert (store.uri, name, store.endpoint) == ("s3://b/x", "manifest.json", moto_server.endpoint)
    store, name = locate("s3://b/manifest.json", moto_server.settings(tmp_path))
    assert (store.url(name), name) == ("s3://b/manifest.json", "manifest.json")


def test_a_missing_bucket_is_named(moto_server: Moto) -> None:
    with pytest.raises(ConfigError, match="not-there"):
        ObjectStore("s3://not-there", moto_server.endpoint).put("k", b"")
