"""A tree of objects, blocks that survive a broken connection, checksums that the service keeps, and public buckets."""

import base64
import hashlib

import pytest

from coda.errors import ConfigError, ContractError
from coda.plates.tree import LocalTree, TreeFile
from coda.storage import ObjectStore
from coda.storage import objects as objects_module
from coda.storage.trees import ObjectTree


@pytest.fixture
def store(moto_server):
    return ObjectStore(f"{moto_server.bucket().uri}/in", moto_server.endpoint)


def test_a_tree_of_objects_is_the_tree_of_the_same_folder(store, tmp_path):
    for path in ("b/x.tif", "a b/Images 1/y.tif", "z.csv", "b/deep/er/q.npy"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
        store.put(path, path.encode())
    store.put("b/folder/", b"")  # consoles write such marks for folders
    local, remote = LocalTree(tmp_path), ObjectTree(store)
    assert remote.files() == local.files()
    assert remote.files("b") == local.files("b") == [TreeFile("b/deep/er/q.npy", 15), TreeFile("b/x.tif", 7)]
    assert remote.files("b/") == remote.files("b")
    assert remote.files("nowhere") == []
    assert remote.read("z.csv", at_most=5) == b"z.csv"
    assert remote.size("z.csv") == 5
    assert remote.where == store.uri


def test_many_objects_come_over_several_pages(store, monkeypatch):
    for number in range(7):
        store.put(f"p/{number}.tif", b"x" * number)
    paginate = store.client.get_paginator("list_objects_v2").paginate
    pages = list(paginate(Bucket=store.bucket, Prefix=store.path("p/"), PaginationConfig={"PageSize": 3}))
    assert len(pages) == 3
    monkeypatch.setattr(type(store), "client", property(lambda _: _Paged(pages)))
    assert [file.size_bytes for file in ObjectTree(store).walk("p")] == list(range(7))


class _Paged:
    def __init__(self, pages):
        self._pages = pages

    def get_paginator(self, _):
        return self

    def paginate(self, **_):
        return iter(self._pages)


def test_absent_and_large_files_are_refused_in_the_words_of_a_tree(store):
    store.put("big.csv", b"12345")
    tree = ObjectTree(store)
    with pytest.raises(ContractError, match=r"big\.csv: found 5 bytes; expected at most 4 bytes"):
        tree.read("big.csv", at_most=4)
    with pytest.raises(ContractError, match="no such file"):
        tree.read("none.csv", at_most=4)
    with pytest.raises(ContractError, match="no such file"):
        list(tree.blocks("none.csv"))


def test_blocks_are_the_object_however_often_the_connection_breaks(store, monkeypatch):
    content = bytes(range(256)) * 40
    store.put("x", content)
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 1000)
    assert list(map(len, store.blocks("x"))) == [1000] * 10 + [240]
    asked = _break_bodies(store, monkeypatch, after=2)
    assert b"".join(store.blocks("x")) == content
    assert asked == [None, *(f"bytes={2000 * k}-" for k in range(1, 6))]


def _break_bodies(store, monkeypatch, *, after):
    """Have every body of this store break off after some blocks; returns the ranges that were asked for."""
    from botocore.exceptions import IncompleteReadError

    client, asked = store.client, []

    class Broken:
        def __init__(self, body):
            self._body = body

        def iter_chunks(self, size):
            for number, block in enumerate(self._body.iter_chunks(size)):
                if number == after:
                    raise IncompleteReadError(actual_bytes=0, expected_bytes=1)
                yield block

    class Client:
        def get_object(self, **request):
            asked.append(request.get("Range"))
            answer = client.get_object(**request)
            return answer | {"Body": Broken(answer["Body"])}

    monkeypatch.setattr(ObjectStore, "client", property(lambda _: Client()))
    return asked


def test_an_object_replaced_while_it_is_read_is_not_mixed(store, monkeypatch):
    store.put("x", b"a" * 5000)
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 1000)
    put = ObjectStore(store.uri, store.endpoint)
    real = store.client
    _break_bodies(store, monkeypatch, after=2)
    blocks = store.blocks("x")
    next(blocks)
    real.put_object(Bucket=put.bucket, Key=put.path("x"), Body=b"b" * 5000)
    with pytest.raises(Exception, match="replaced while it was read"):
        list(blocks)


def test_only_a_checksum_of_the_whole_object_is_taken_for_its_sha256(store, monkeypatch):
    body = b"pixels"
    key = store.path("with.tif")
    store.client.put_object(Bucket=store.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256")
    store.put("without.tif", body)
    tree = ObjectTree(store)
    tree.files()
    assert tree.stored_sha256("without.tif") is None
    assert store.sha256("with.tif") == hashlib.sha256(body).hexdigest()
    whole = base64.b64encode(hashlib.sha256(body).digest()).decode()
    for answer, expected in (
        ({"ChecksumSHA256": whole, "ChecksumType": "FULL_OBJECT"}, hashlib.sha256(body).hexdigest()),
        ({"ChecksumSHA256": whole, "ChecksumType": "COMPOSITE"}, None),
        ({"ChecksumSHA256": f"{whole}-3"}, None),
        ({"ChecksumSHA256": base64.b64encode(b"short").decode()}, None),
        ({}, None),
    ):
        monkeypatch.setattr(ObjectStore, "client", property(lambda _, said=answer: _Headed(said)))
        assert store.sha256("with.tif") == expected


class _Headed:
    def __init__(self, answer):
        self._answer = answer

    def head_object(self, **_):
        return self._answer


def test_a_public_bucket_is_read_without_credentials(moto_server, monkeypatch):
    store = moto_server.bucket()
    store.client.put_object(Bucket=store.bucket, Key="x", Body=b"public", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    with pytest.raises(ConfigError, match="credentials"):
        ObjectStore(store.uri, store.endpoint).get("x")
    public = ObjectTree(ObjectStore(store.uri, store.endpoint, unsigned=True))
    seen = []
    public.store.client.meta.events.register("before-send.s3", lambda request, **_: seen.append(dict(request.headers)))
    assert public.read("x", at_most=9) == b"public"
    assert public.files() == [TreeFile("x", 6)]
    assert seen
    assert not [headers for headers in seen if "Authorization" in headers]
    for write in (public.put, public.create):
        with pytest.raises(ConfigError, match="read without credentials"):
            write("y", b"", "text/csv")
